"""Models by name."""

from fedsafe.models.fixed import FixedFeatures
from fedsafe.models.zoo import build_model

__all__ = ["FixedFeatures", "build_model"]
