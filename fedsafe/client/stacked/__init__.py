"""The stacked DP-SGD engine: many clients in one forward and one backward pass."""

from fedsafe.client.stacked.engine import clipped_sum
from fedsafe.client.stacked.model import StackedModel, layout_of, measure, missing_rule
from fedsafe.client.stacked.stacked_trainer import StackedTrainer

__all__ = ["StackedModel", "StackedTrainer", "clipped_sum", "layout_of", "measure", "missing_rule"]
