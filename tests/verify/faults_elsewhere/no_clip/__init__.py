"""Local training with DP-SGD, after the usual PyTorch quickstart."""
