"""Pairwise accuracy: over all pairs, with ties, of each person where there are few, and whether it is chance."""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedsafe.assess.alignment.judged import (
    FEW,
    Judged,
    agreement,
    clusters_of_judged,
    clusters_of_pairs,
    counted,
    ratio,
    resampled,
)
from fedsafe.assess.resampling import FEWEST_CLUSTERS, Clusters
from fedsafe.assess.scores import decide
from fedsafe.data.preferences import CLASSES_WITH_TIES
from fedsafe.findings import Finding, Interval, Provenance, clopper_pearson, estimate, not_measured

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_MOST_NAMED = 20  # people, each of whom has a finding of her own


def accuracy(
    judged: Judged, rng: np.random.Generator, resamples: int, *, named: bool, context: Provenance
) -> list[Finding]:
    """Accuracy on the decided pairs, of few named people each, and with ties; and its gain over chance.

    Args:
        judged: The pairs.
        rng: Source of the resampling.
        resamples: For the intervals.
        named: Whether people may be told apart.
        context: Fields of every finding.
    """
    clusters = clusters_of_judged(judged)
    found = resampled(ratio, counted(judged.right), clusters, rng, resamples, bounds=(0.0, 1.0))
    findings = [
        estimate(
            "alignment.accuracy",
            found.value,
            interval=found.interval,
            method=found.method,
            n=len(judged.decided),
            unit="pairs",
            anchors={"chance": 0.5, **without_a_reward(judged)},
            diagnostics={"interval": clusters.note} if clusters.note else {},
            detail={
                "annotators": len(judged.names),
                "ties_left_out": len(judged.y) - len(judged.decided),
                "equal_rewards": int(np.sum(judged.margin == 0)),
                "counted": "pairs that are no tie; equal rewards count half",
            },
            **context,
        ),
        over_chance(judged, context),
    ]
    if named and 1 < len(judged.names) <= _MOST_NAMED:
        findings += [
            _of_one(judged, code, name, rng, resamples, context) for code, name in enumerate(judged.names)
        ]
    if judged.outputs.shape[1] == len(CLASSES_WITH_TIES):
        findings.append(_with_ties(judged, rng, resamples, context))
    return findings


def _of_one(
    judged: Judged, code: int, name: str, rng: np.random.Generator, resamples: int, context: Provenance
) -> Finding:
    """Accuracy on one person's pairs, which are drawn one by one."""
    right = judged.right[judged.people == code]
    pairs = Clusters(codes=np.arange(len(right)), name="pairs of one annotator")
    found = resampled(ratio, counted(right), pairs, rng, resamples, bounds=(0.0, 1.0))
    where = {"annotator": name}
    if found.interval is None:
        reason = "one pair of this annotator says nothing of others"
        return not_measured(
            "alignment.accuracy",
            reason,
            status="insufficient",
            n=len(right),
            unit="pairs",
            where=where,
            **context,
        )
    return estimate(
        "alignment.accuracy",
        found.value,
        interval=found.interval,
        method=found.method,
        n=len(right),
        unit="pairs",
        anchors={"chance": 0.5},
        where=where,
        **context,
    )


def _with_ties(judged: Judged, rng: np.random.Generator, resamples: int, context: Provenance) -> Finding:
    """Share of all pairs, ties among them, whose outcome is the likeliest by the model."""
    right = (decide(judged.outputs) == judged.y).astype(np.float64)
    known = judged.preferences
    people = np.unique(known.annotators, return_inverse=True)[1].reshape(-1)
    clusters = clusters_of_pairs(np.asarray(people, np.int64), known.first, known.second)
    found = resampled(ratio, counted(right), clusters, rng, resamples, bounds=(0.0, 1.0))
    shares = np.bincount(judged.y, minlength=3) / len(judged.y)
    return estimate(
        "alignment.accuracy_with_ties",
        found.value,
        interval=found.interval,
        method=found.method,
        n=len(judged.y),
        unit="pairs",
        anchors={"chance": 1 / 3, "most_frequent_outcome": float(shares.max())},
        detail={"ties": float(shares[2]), "ties_foretold": float(np.mean(decide(judged.outputs) == 2))},
        **context,
    )


def without_a_reward(judged: Judged) -> dict[str, float]:
    """Accuracy of choosing always the first, the second and, where lengths are known, the longer or the shorter."""
    first = float(judged.chosen.mean())
    found = {"always_the_first": first, "always_the_second": 1.0 - first}
    lengths = judged.preferences.lengths
    if len(lengths):
        longer = float(agreement(lengths[judged.first] - lengths[judged.second], judged.chosen).mean())
        found |= {"always_the_longer": longer, "always_the_shorter": 1.0 - longer}
    return found


def over_chance(judged: Judged, context: Provenance) -> Finding:
    """Accuracy less one half, and in words whether it is more than chance, for other people and other items too.

    People who share items are right and wrong together: an interval from drawing people alone is too narrow to tell a
    model from chance. The variance counts every two pairs that have the person or an item in common.

    Args:
        judged: The pairs.
        context: Fields of the finding.
    """
    right = judged.right
    value, n = float(right.mean()) - 0.5, len(right)
    people, items = len(judged.names), len(np.unique([judged.first, judged.second]))
    if items < 3 or n < 2:
        reason = f"{n} pairs of {items} items say nothing of others"
        return not_measured(
            "alignment.gain_over_chance", reason, status="insufficient", n=n, unit="pairs", **context
        )
    with_people = people >= FEWEST_CLUSTERS
    interval = sandwich(right, judged.people if with_people else None, judged.first, judged.second)
    low, high = max(-0.5, interval[0] - 0.5), min(0.5, interval[1] - 0.5)
    verdict = "above chance" if low > 0 else "below chance" if high < 0 else "at chance"
    rule, most = max(without_a_reward(judged).items(), key=lambda entry: entry[1])
    needless = (
        f" No reward is needed for {most:.3f}: choosing {rule.replace('_', ' ')}."
        if most > 0.5 + value
        else ""
    )
    whose = "people and items" if with_people else f"items, for these {people} people"
    return estimate(
        "alignment.gain_over_chance",
        value,
        interval=(low, high),
        method="sandwich over annotators and items" if with_people else "sandwich over items",
        n=n,
        unit="pairs",
        anchors={"chance": 0.0},
        diagnostics={"interval": f"only {items} items: an interval over so few is too narrow"}
        if items < FEW
        else {},
        detail={
            "verdict": verdict,
            "reading": f"The accuracy is {0.5 + value:.3f}, its 95 % interval over {whose} {0.5 + low:.3f} to "
            f"{0.5 + high:.3f}: {verdict}.{needless}",
        },
        **context,
    )


def sandwich(
    values: Array, people: Indices | None, first: Indices, second: Indices, confidence: float = 0.95
) -> Interval:
    """Interval of a mean over pairs of items, where pairs with a common person or a common item are alike.

    The variance of the mean is the sum of the products of the residuals of all such pairs of pairs over n squared, by
    inclusion and exclusion (Cameron, Gelbach and Miller, 2011; with pairs of items: Aronow, Samii and Assenova, 2015);
    it is taken for no less than what people alone, or items alone, make of it.
    Student's quantile has the freedom of the smaller number of clusters.

    Args:
        values: ``(n,)`` in [0, 1].
        people: ``(n,)`` who judged, from 0; None where only the items count.
        first: ``(n,)`` numbers of the items shown first.
        second: ``(n,)`` of those shown second.
        confidence: Two-sided.
    """
    n, mean = len(values), float(values.mean())
    rest = values - mean
    numbers, items = np.unique(np.stack([first, second]), return_inverse=True)
    a, b = items.reshape(2, -1)
    width = len(numbers)
    dyads = np.minimum(a, b) * width + np.maximum(a, b)
    smallest = width
    total = share_an_item = _squares(rest, a, b, dyads)
    if people is not None:
        count = int(people.max()) + 1
        smallest = min(width, count)
        alone = _squared(rest, people)
        # Pairs of one person that share an item were counted twice.
        both = _squares(rest, people * width + a, people * width + b, people * width**2 + dyads)
        total = max(share_an_item + alone - both, share_an_item, alone)
    error = np.sqrt(max(total, 0.0) * smallest / (smallest - 1)) / n
    if np.ptp(values) < 1e-12 and mean in (0.0, 1.0):
        # Without a difference there is no variance to see; what is known is how rare another outcome can be.
        rare = clopper_pearson(0, smallest, confidence)[1]
        return (0.0, rare) if mean == 0.0 else (1.0 - rare, 1.0)
    reach = float(special.stdtrit(smallest - 1, 0.5 + confidence / 2)) * float(error)
    return mean - reach, mean + reach


def _squares(rest: Array, first: Indices, second: Indices, dyads: Indices) -> float:
    """Sum of the products of all pairs that share an item, once each."""
    ends = _squared(np.concatenate([rest, rest]), np.concatenate([first, second]))
    return ends - _squared(rest, dyads)


def _squared(rest: Array, codes: Indices) -> float:
    found = np.unique(codes, return_inverse=True)[1].reshape(-1)
    return float(np.square(np.bincount(found, weights=rest)).sum())
