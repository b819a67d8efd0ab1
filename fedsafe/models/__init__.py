"""Models by name."""

from fedsafe.models.zoo import build_model

__all__ = ["build_model"]
