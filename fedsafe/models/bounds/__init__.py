"""What a network's outputs can be over a region of inputs: sound bounds, and the margins that follow."""

from fedsafe.models.bounds.network import Network, Step, trace
from fedsafe.models.bounds.operations import Operation
from fedsafe.models.bounds.propagation import (
    ibp_margin,
    interval_margins,
    intervals,
    questions,
    relaxed_margins,
)
from fedsafe.models.bounds.region import InputRegion, Norm
from fedsafe.models.bounds.rounding import Rounding

__all__ = [
    "InputRegion",
    "Network",
    "Norm",
    "Operation",
    "Rounding",
    "Step",
    "ibp_margin",
    "interval_margins",
    "intervals",
    "questions",
    "relaxed_margins",
    "trace",
]
