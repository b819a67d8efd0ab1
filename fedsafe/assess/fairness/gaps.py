"""Counts of outcomes by group, and the largest gap between groups with an interval that covers."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame
from numpy.typing import NDArray

from fedsafe.findings import wilson

Rate = Literal["selection_rate", "true_positive_rate", "false_positive_rate", "accuracy"]
Array = NDArray[np.float64]
Counts = NDArray[np.int64]

# The cells that a rate counts, and those that it divides by: true negatives, false positives, false
# negatives, true positives.
CELLS: dict[Rate, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "selection_rate": ((1, 3), (0, 1, 2, 3)),
    "true_positive_rate": ((3,), (2, 3)),
    "false_positive_rate": ((1,), (0, 1)),
    "accuracy": ((0, 3), (0, 1, 2, 3)),
}


def count_cells(
    y: NDArray[np.int64],
    predicted: NDArray[np.int64],
    groups: Mapping[str, NDArray[Any]],
    *,
    binary: bool,
) -> pd.DataFrame:
    """Counts the outcomes in every combination of groups.

    Args:
        y: ``(n,)`` true classes.
        predicted: ``(n,)`` predicted classes.
        groups: For each attribute, ``(n,)`` the group that each example belongs to.
        binary: Whether class 1 is positive. Otherwise a correct example counts as a true positive and a wrong
            one as a false negative, which leaves accuracy as it is.

    Returns:
        One row for each combination that occurs, indexed by the attributes, with the columns true negatives,
        false positives, false negatives and true positives. The groups of one attribute are sums of its rows.
    """
    truth, guess = (y, predicted) if binary else (np.ones_like(y), (y == predicted).astype(np.int64))
    outcome = 2 * truth + guess
    frame = MetricFrame(
        metrics={"cells": _cells}, y_true=outcome, y_pred=outcome, sensitive_features=pd.DataFrame(groups)
    )
    cells = frame.by_group["cells"].dropna()
    return pd.DataFrame(np.stack(cells.to_list()), index=cells.index, columns=["tn", "fp", "fn", "tp"])


def _cells(y_true: NDArray[np.int64], y_pred: NDArray[np.int64]) -> Counts:
    return np.bincount(np.asarray(y_true), minlength=4)


def rate_counts(cells: NDArray[Any], rate: Rate) -> tuple[NDArray[Any], NDArray[Any]]:
    """Successes and trials of a rate from cells ``(..., 4)``, in the order of `count_cells`."""
    hit, base = CELLS[rate]
    return cells[..., list(hit)].sum(axis=-1), cells[..., list(base)].sum(axis=-1)


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The largest difference between two groups, over one rate or the worse of several.

    Attributes:
        value: The difference.
        interval: Its 95 % interval.
        null_mean: What a perfectly fair classifier shows on average with groups of these sizes.
        null_95: What it exceeds in one of 20 evaluations.
        lowest: Index of the group with the lowest rate, of the rate that differs most.
        highest: Index of the group with the highest.
        resolution: The step of the smallest group's rate.
    """

    value: float
    interval: tuple[float, float]
    null_mean: float
    null_95: float
    lowest: int
    highest: int
    resolution: float


def measure_gap(cells: Counts, rates: tuple[Rate, ...], rng: np.random.Generator, resamples: int) -> Gap:
    """The largest gap between two groups, with an interval that covers when there is none.

    The percentile bootstrap of a largest gap counts its upward bias twice and never covers 0. Instead every
    pair of groups gets an interval of Newcombe (1998), all valid together: its normal quantile is replaced by
    that of the largest studentised difference (Tukey, 1953, and Kramer, 1956), found by a bootstrap
    stratified by group. The largest true gap then lies between the largest lower end and the largest upper
    end.

    Args:
        cells: ``(groups, 4)`` in the order of `count_cells`; every rate has trials in every group.
        rates: The rates to compare; the gap is the largest over all of them.
        rng: Source of the resampling.
        resamples: Number of resamples.
    """
    sizes, groups = cells.sum(axis=1), len(cells)
    # Half an example in every cell (Jeffreys), so that a group without errors still has sampling error.
    smoothed = (cells + 0.5) / (sizes[:, None] + 2.0)
    drawn = np.stack(
        [rng.multinomial(n, p, size=resamples) for n, p in zip(sizes, smoothed, strict=True)], axis=1
    )
    left, right = (np.array(side) for side in zip(*combinations(range(groups), 2), strict=True))
    counted = [rate_counts(cells, rate) for rate in rates]
    studentised, null = [], []
    for rate, (hits, trials) in zip(rates, counted, strict=True):
        part, whole = rate_counts(drawn, rate)
        errors = part / np.maximum(whole, 1) - np.divide(*rate_counts(smoothed, rate))
        differences = errors[:, left] - errors[:, right]
        studentised.append(np.abs(differences) / differences.std(axis=0))
        fair = rng.binomial(trials, hits.sum() / trials.sum(), size=(resamples, groups)) / trials
        null.append(np.ptp(fair, axis=1))
    quantile = float(np.quantile(np.concatenate(studentised, axis=1).max(axis=1), 0.95))
    confidence = 2 * NormalDist().cdf(quantile) - 1
    lows, highs = zip(*(_pair_ends(*pair, left, right, confidence) for pair in counted), strict=True)
    shares = [hits / trials for hits, trials in counted]
    worst = max(shares, key=np.ptp)
    fair_gap = np.max(null, axis=0)
    return Gap(
        value=float(np.ptp(worst)),
        interval=(float(np.max(lows)), float(np.max(highs))),
        null_mean=float(fair_gap.mean()),
        null_95=float(np.quantile(fair_gap, 0.95)),
        lowest=int(worst.argmin()),
        highest=int(worst.argmax()),
        resolution=1 / min(int(trials.min()) for _, trials in counted),
    )


def _pair_ends(
    hits: Counts, trials: Counts, left: Counts, right: Counts, confidence: float
) -> tuple[float, float]:
    """The largest lower and the largest upper end of the pairs' absolute differences."""
    share = hits / trials
    ends = np.array([wilson(int(k), int(n), confidence) for k, n in zip(hits, trials, strict=True)])
    below, above = share - ends[:, 0], ends[:, 1] - share
    difference = share[left] - share[right]
    low = difference - np.hypot(below[left], above[right])
    high = difference + np.hypot(above[left], below[right])
    return max(0.0, float(np.max([low, -high]))), float(np.max([high, -low]))
