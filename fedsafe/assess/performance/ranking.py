"""The area under the ROC curve, with an interval that covers."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from fedsafe.findings import Interval, wilson

Array = NDArray[np.float64]


def auc(positive: Array, negative: Array) -> tuple[float, Interval, str]:
    """Area under the curve, its interval on the logit scale (DeLong, DeLong and Clarke-Pearson, 1988).

    Args:
        positive: ``(p,)`` scores of positives, p at least 2.
        negative: ``(n,)`` scores of negatives, n at least 2.

    Returns:
        The area, its 95 % interval, and the interval's name.
    """
    p, n = len(positive), len(negative)
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    above = (ranks[:p] - stats.rankdata(positive)) / n
    below = 1 - (ranks[p:] - stats.rankdata(negative)) / p
    value = float(above.mean())
    error = math.sqrt(above.var(ddof=1) / p + below.var(ddof=1) / n)
    if error == 0 or value in (0.0, 1.0):
        # The variance of a perfect or a constant ranking is no evidence: fall back on the smaller class
        # alone.
        smaller = min(p, n)
        return value, wilson(round(value * smaller), smaller), "wilson on the smaller class"
    centre, half = special.logit(value), special.ndtri(0.975) * error / (value * (1 - value))
    return value, (float(special.expit(centre - half)), float(special.expit(centre + half))), "delong-logit"
