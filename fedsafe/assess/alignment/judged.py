"""Pairs that people judged, beside what a model makes of them; and who is drawn together in a resample."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedsafe.assess.base import Subject
from fedsafe.assess.resampling import (
    FEWEST_CLUSTERS,
    Clusters,
    Figure,
    cluster_sums,
    resample,
)
from fedsafe.data.preferences import CLASSES, CLASSES_WITH_TIES, FIRST, TIE, Preferences
from fedsafe.findings import Interval, bounded_mean, percentile

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

FEW = 20
"""People, below whom a bootstrap over them is too narrow."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Evaluation pairs, what was said of each, and what the model says.

    Attributes:
        preferences: Who judged which items, for all evaluation pairs.
        groups: Group columns of all evaluation pairs.
        outputs: ``(n, 1)`` or ``(n, 3)`` the model's, of all evaluation pairs.
        y: ``(n,)`` classes, of all evaluation pairs.
        margin: ``(d,)`` reward of the first less that of the second, of the decided pairs: those that are no tie.
        chosen: ``(d,)`` 1 where the first was preferred, else 0.
        decided: ``(d,)`` rows of the decided pairs.
        people: ``(d,)`` who judged, numbered from 0.
        names: Of the people, as they are numbered.
    """

    preferences: Preferences
    groups: Mapping[str, NDArray[np.str_]]
    outputs: Array
    y: Indices
    margin: Array
    chosen: Indices
    decided: Indices
    people: Indices
    names: tuple[str, ...]

    @property
    def right(self) -> Array:
        """``(d,)`` 1 where the model prefers what the person preferred, 0.5 where its rewards are equal, else 0."""
        return agreement(self.margin, self.chosen)

    @property
    def first(self) -> Indices:
        """``(d,)`` numbers of the items that were shown first."""
        return self.preferences.first[self.decided]

    @property
    def second(self) -> Indices:
        """``(d,)`` numbers of the items that were shown second."""
        return self.preferences.second[self.decided]


def why_not(subject: Subject) -> str:
    """Why a subject has no preferences to be held to; "" where it has."""
    task = subject.task
    if task.preferences is None:
        return "the task says of no record who preferred what"
    if task.classes not in (CLASSES, CLASSES_WITH_TIES):
        return f"the classes are {', '.join(task.classes)}, not {', '.join(CLASSES)}, and perhaps {TIE}"
    if subject.evaluation is not task.evaluation:
        return "the model is judged on other records than those of which it is known who judged them"
    return ""


def judge(subject: Subject, preferences: Preferences) -> Judged:
    """The evaluation pairs with the model's answers.

    Args:
        subject: With a task of preferences, see `why_not`.
        preferences: The task's.

    Raises:
        ModelError: The model's output is not finite.
    """
    return of_outputs(subject, preferences, subject.logits(subject.evaluation.x))


def of_outputs(subject: Subject, preferences: Preferences, outputs: Array) -> Judged:
    """The evaluation pairs with answers that are known already.

    Args:
        subject: With a task of preferences.
        preferences: The task's.
        outputs: ``(n, 1)`` or ``(n, 3)``.
    """
    y = subject.evaluation.y
    decided = np.flatnonzero(y <= CLASSES.index(FIRST))
    names, people = np.unique(preferences.annotators[decided], return_inverse=True)
    return Judged(
        preferences=preferences,
        groups=subject.evaluation.groups,
        outputs=outputs,
        y=y,
        margin=margins(outputs)[decided],
        chosen=y[decided],
        decided=decided,
        people=np.asarray(people, np.int64),
        names=tuple(map(str, names)),
    )


def margins(outputs: Array) -> Array:
    """``(n,)`` reward of the first less that of the second, from ``(n, 1)`` or ``(n, 3)`` outputs.

    With ties, the logits of the two decided classes differ by just that (Davidson, 1970).
    """
    return np.asarray(outputs[:, 0] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0])


def agreement(margin: Array, chosen: NDArray[Any]) -> Array:
    """``(n,)`` 1 where a preference has the sign of the choice, 0.5 where there is none, else 0.

    Args:
        margin: ``(n,)`` preference for the first.
        chosen: ``(n,)`` 1 where the first was chosen, else 0.
    """
    return np.asarray(np.where(margin == 0, 0.5, (margin > 0) == (chosen == 1)), np.float64)


def clusters_of_judged(judged: Judged) -> Clusters:
    """Who is drawn together of the decided pairs; see `clusters_of_pairs`."""
    return clusters_of_pairs(judged.people, judged.first, judged.second)


def clusters_of_pairs(people: Indices, first: Indices, second: Indices) -> Clusters:
    """People where there are enough of them; else pairs of items, and the figures hold for these people alone.

    Args:
        people: ``(n,)`` who judged each pair, numbered from 0 without gaps.
        first: ``(n,)`` numbers of the items that were shown first.
        second: ``(n,)`` of those shown second.
    """
    count = int(people.max(initial=-1)) + 1
    if count >= FEWEST_CLUSTERS:
        note = f"only {count} annotators: a bootstrap over so few is too narrow" if count < FEW else ""
        return Clusters(codes=people, name="annotators", note=note)
    items = np.sort(np.stack([first, second], axis=1), axis=1)
    codes = np.unique(items, axis=0, return_inverse=True)[1].reshape(-1)
    note = f"{count} annotators are too few to stand for others: the interval is about these alone"
    return Clusters(codes=np.asarray(codes, np.int64), name="pairs of items", note=note)


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """A figure with its interval.

    Attributes:
        value: Of all pairs.
        interval: Or None.
        method: How it was made; None without one.
    """

    value: float
    interval: Interval | None
    method: str | None


def resampled(
    figure: Figure,
    values: Array,
    clusters: Clusters,
    rng: np.random.Generator,
    resamples: int,
    *,
    bounds: tuple[float, float] | None = None,
) -> Resampled:
    """A figure of sums over the pairs, with an interval from drawing clusters of pairs, see `expanded` (Efron, 1979).

    Args:
        figure: Maps ``(rows, columns)`` totals to ``(rows,)``.
        values: ``(n, columns)`` of the pairs, the first column 1 where a pair counts.
        clusters: Of the pairs.
        rng: Source of the draws.
        resamples: How many.
        bounds: Least and most that the figure of one cluster can be: then clusters that are all alike are no proof
            that others are, see `fedsafe.findings.bounded_mean`.
    """
    sums = cluster_sums(values, clusters.codes)
    sums = sums[sums[:, 0] > 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(figure(sums.sum(axis=0, keepdims=True))[0])
        if len(sums) < 2 or not np.isfinite(value):
            return Resampled(value=value, interval=None, method=None)
        replicates = figure(resample(sums, rng, resamples))
        if bounds is not None and np.ptp(replicates) < 1e-12:
            interval, method = bounded_mean(figure(sums), *bounds)
            return Resampled(value=value, interval=interval, method=f"{method}, over {clusters.name}")
    finite = replicates[np.isfinite(replicates)]
    if not len(finite):
        return Resampled(value=value, interval=None, method=None)
    interval = percentile(finite, expanded(len(sums)))
    return Resampled(value=value, interval=interval, method=clusters.method)


def expanded(clusters: int, confidence: float = 0.95) -> float:
    """The confidence that a percentile interval over so few clusters must have on paper to cover as often as it says.

    A bootstrap of n clusters has the spread of n in place of n - 1, and the tails of a normal distribution in place of
    Student's (Hesterberg, 2015: the expanded percentile interval).

    Args:
        clusters: At least 2.
        confidence: Two-sided, wanted.
    """
    reach = np.sqrt(clusters / (clusters - 1)) * special.stdtrit(clusters - 1, 0.5 + confidence / 2)
    return float(2 * special.ndtr(reach) - 1)


def ratio(totals: Array) -> Array:
    """``(rows,)`` second column over the first of ``(rows, 2)`` totals: a share or a mean."""
    return np.asarray(totals[:, 1] / totals[:, 0])


def counted(values: Array) -> Array:
    """``(n, 2)`` a count of one beside each value."""
    return np.stack([np.ones(len(values)), values], axis=1)
