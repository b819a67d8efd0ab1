"""Local training with DP-SGD on sensor readings."""
