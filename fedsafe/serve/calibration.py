"""Confidence that means what it says: one temperature, fitted on held-out public records (Guo et al., 2017)."""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from fedsafe.assess.performance.calibration import Reliability, reliability
from fedsafe.serve.detectors.base import Array, probabilities_of

_RANGE = (-4.0, 4.0)  # of the logarithm


def fit_temperature(outputs: Array, y: NDArray[np.int64]) -> float:
    """The temperature with the least log-loss, between e^-4 and e^4.

    Args:
        outputs: ``(n, outputs)`` logits.
        y: ``(n,)`` classes.
    """
    rows = np.arange(len(y))

    def loss(log_temperature: float) -> float:
        own = probabilities_of(outputs, float(np.exp(log_temperature)))[rows, y]
        return float(-np.log(np.maximum(own, 1e-300)).mean())

    return float(np.exp(optimize.minimize_scalar(loss, bounds=_RANGE, method="bounded").x))


def confidence_reliability(outputs: Array, y: NDArray[np.int64], temperature: float) -> Reliability:
    """Confidence in the predicted class against whether it is right, in bins."""
    found = probabilities_of(outputs, temperature)
    return reliability(found.max(axis=1), found.argmax(axis=1) == y)
