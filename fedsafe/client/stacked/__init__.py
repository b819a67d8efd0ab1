"""The stacked DP-SGD engine: many clients in one forward and one backward pass."""

from fedsafe.client.stacked.engine import clipped_sum, plain_sum
from fedsafe.client.stacked.model import StackedModel, StackShape, layout_of, measure
from fedsafe.client.stacked.stacked_trainer import StackedTrainer

__all__ = [
    "StackShape",
    "StackedModel",
    "StackedTrainer",
    "clipped_sum",
    "layout_of",
    "measure",
    "plain_sum",
]
