"""Accuracy over the pairs of each group of people, and the worst group beside that of groups dealt at random."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.alignment.judged import FEW, Judged, counted, ratio, resampled
from fedsafe.assess.resampling import FEWEST_CLUSTERS, Clusters, cluster_sums, draw_counts
from fedsafe.findings import Finding, Provenance, Scalar, bounded_mean, estimate, not_measured, percentile

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_GROUP, _WORST = "alignment.group_accuracy", "alignment.worst_group_accuracy"
FEWEST_PAIRS = 30
_DRAWS = 500


def group_accuracies(
    judged: Judged, rng: np.random.Generator, resamples: int, context: Provenance
) -> list[Finding]:
    """For each group column: the accuracy of each group, with people drawn within it, and the smallest of them.

    The smallest of several is below their mean by chance alone: beside it stands what it is where the same people are
    dealt to groups of the same sizes at random.

    Args:
        judged: The pairs.
        rng: Source of the resampling.
        resamples: For the intervals.
        context: Fields of every finding.
    """
    findings = []
    for attribute, values in judged.groups.items():
        names, codes = np.unique(values[judged.decided], return_inverse=True)
        codes = np.asarray(codes.reshape(-1), np.int64)
        enough = []
        for code, name in enumerate(names):
            where: dict[str, Scalar] = {"attribute": attribute, "group": str(name)}
            rows = np.flatnonzero(codes == code)
            people = np.unique(judged.people[rows], return_inverse=True)[1].reshape(-1)
            count = int(people.max()) + 1
            if count < FEWEST_CLUSTERS or len(rows) < FEWEST_PAIRS:
                findings.append(_too_small(where, count, len(rows), context))
                continue
            enough.append(code)
            clusters = Clusters(codes=np.asarray(people, np.int64), name="annotators of the group")
            found = resampled(ratio, counted(judged.right[rows]), clusters, rng, resamples, bounds=(0.0, 1.0))
            few = f"only {count} annotators: a bootstrap over so few is too narrow"
            findings.append(
                estimate(
                    _GROUP,
                    found.value,
                    interval=found.interval,
                    method=found.method,
                    n=len(rows),
                    unit="pairs",
                    anchors={"chance": 0.5, "everybody": float(judged.right.mean())},
                    diagnostics={"interval": few} if count < FEW else {},
                    detail={"annotators": count},
                    where=where,
                    **context,
                )
            )
        findings.append(_worst(judged, attribute, names, codes, enough, rng, resamples, context))
    return findings


def _too_small(where: Mapping[str, Scalar], people: int, pairs: int, context: Provenance) -> Finding:
    reason = f"{people} annotators with {pairs} pairs; {FEWEST_CLUSTERS} and {FEWEST_PAIRS} are needed"
    return not_measured(
        _GROUP, reason, status="insufficient", n=people, unit="annotators", where=where, **context
    )


def _worst(
    judged: Judged,
    attribute: str,
    names: NDArray[np.str_],
    codes: Indices,
    enough: list[int],
    rng: np.random.Generator,
    resamples: int,
    context: Provenance,
) -> Finding:
    where: dict[str, Scalar] = {"attribute": attribute}
    if len(enough) < 2:
        reason = f"{len(enough)} of {len(names)} groups are large enough, 2 are needed"
        return not_measured(
            _WORST, reason, status="insufficient", n=len(enough), unit="groups", where=where, **context
        )
    # A person in two groups stands in each with the pairs that she judged as one of it.
    rows = np.isin(codes, enough)
    place, person = np.searchsorted(enough, codes[rows]), judged.people[rows]
    members = np.unique(place * len(judged.names) + person, return_inverse=True)
    group_of = members[0] // len(judged.names)
    sums = cluster_sums(counted(judged.right[rows]), np.asarray(members[1].reshape(-1), np.int64))
    values = smallest(sums, group_of, len(enough))
    interval = percentile(_replicates(sums, group_of, len(enough), rng, resamples))
    method = "bootstrap over annotators of each group"
    if np.ptp(sums[:, 1] / sums[:, 0]) < 1e-12:  # alike people are no proof that others are
        interval, method = bounded_mean(sums[:, 1] / sums[:, 0], 0.0, 1.0)
    dealt = np.array([smallest(sums, rng.permutation(group_of), len(enough))[0] for _ in range(_DRAWS)])
    return estimate(
        _WORST,
        values[0],
        interval=interval,
        method=method,
        n=len(sums),
        unit="annotators",
        anchors={"chance": 0.5, "groups_dealt_at_random": float(dealt.mean())},
        diagnostics={"explained_by_luck": bool(np.quantile(dealt, 0.05) <= values[0])},
        detail={"group": str(names[enough[values[1]]]), "groups": len(enough)},
        where=where,
        **context,
    )


def smallest(sums: Array, group_of: Indices, groups: int) -> tuple[float, int]:
    """The smallest accuracy of the groups, and which group has it.

    Args:
        sums: ``(people, 2)`` pairs, and those of them that are right.
        group_of: ``(people,)`` groups, from 0.
        groups: How many.
    """
    n, right = (np.bincount(group_of, weights=column, minlength=groups) for column in sums.T)
    shares = right / n
    return float(shares.min()), int(shares.argmin())


def _replicates(
    sums: Array, group_of: Indices, groups: int, rng: np.random.Generator, resamples: int
) -> Array:
    """``(resamples,)`` smallest accuracies, the people of each group drawn anew."""
    least = np.full(resamples, np.inf)
    for group in range(groups):
        own = sums[group_of == group]
        totals = draw_counts(len(own), resamples, rng) @ own
        least = np.minimum(least, totals[:, 1] / totals[:, 0])
    return least
