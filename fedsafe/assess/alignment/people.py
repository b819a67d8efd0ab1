"""Whom a model serves worst: the last tenth of the people, those below chance, and groups."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.alignment.judged import Judged
from fedsafe.assess.alignment.luck import alike, effective_pairs, on_other_items
from fedsafe.assess.performance.evenness import FEWEST_SHARDS, SMALLEST_SHARD, worst_tenth
from fedsafe.findings import Finding, Provenance, bounded_mean, estimate, not_measured, percentile, proportion

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_WORST, _BELOW = "alignment.worst_decile_accuracy", "alignment.below_chance"
_MOST_LISTED = 1000


def worst_people(
    judged: Judged, rng: np.random.Generator, resamples: int, *, named: bool, context: Provenance
) -> list[Finding]:
    """Mean accuracy over the worst tenth of the people, and the share of people below chance.

    Choosing the worst after the fact finds the unlucky: beside both stands what they would be if the model were equally
    right for everybody (binomial, with what each person's pairs are worth, see `effective_pairs`), and beside the first
    what those who are worst on one half of the items have on the other half.

    Args:
        judged: The pairs.
        rng: Source of the resampling.
        resamples: For the interval.
        named: Whether people may be told apart; quantiles are those from a tenth to nine tenths where they may not.
        context: Fields of every finding.
    """
    right = judged.right
    number = np.bincount(judged.people, minlength=len(judged.names))
    kept = np.flatnonzero(number >= SMALLEST_SHARD)
    detail: dict[str, Any] = {"too_few_pairs": len(number) - len(kept), "smallest": SMALLEST_SHARD}
    if len(kept) < FEWEST_SHARDS:
        reason = f"{len(kept)} annotators have {SMALLEST_SHARD} pairs or more, {FEWEST_SHARDS} are needed"
        return [
            not_measured(
                metric,
                reason,
                status="insufficient",
                n=len(kept),
                unit="annotators",
                detail=detail,
                **context,
            )
            for metric in (_WORST, _BELOW)
        ]
    means = (np.bincount(judged.people, weights=right) / np.maximum(number, 1))[kept]
    everybody = float(np.bincount(judged.people, weights=right)[kept].sum() / number[kept].sum())
    worth, correlation = effective_pairs(judged)
    same = alike(worth[kept], everybody, rng)
    null = worst_tenth(same)
    value = float(worst_tenth(means[None])[0])
    drawn = means[rng.integers(0, len(means), size=(resamples, len(means)))]
    detail["correlation_of_pairs_with_a_common_item"] = correlation
    # The least and the most are figures of single people.
    inner = [0.1, 0.25, 0.5, 0.75, 0.9]
    detail["quantiles"] = np.quantile(means, [0, *inner, 1] if named else inner)
    listed: dict[str, Any] = {}
    if named:
        order = kept[np.argsort(means, kind="stable")][:_MOST_LISTED]
        listed["annotators"] = [
            {
                "annotator": judged.names[code],
                "pairs": int(number[code]),
                "accuracy": float(right[judged.people == code].mean()),
            }
            for code in order
        ]
    interval, method = percentile(worst_tenth(drawn)), "bootstrap over annotators"
    if np.ptp(means) < 1e-12:  # alike people are no proof that others are
        interval, method = bounded_mean(means, 0.0, 1.0)
    low, high = percentile(null)
    within = bool(low <= value <= high)
    return [
        estimate(
            _WORST,
            value,
            interval=interval,
            method=method,
            n=len(means),
            unit="annotators",
            anchors={
                "chance": 0.5,
                "annotators_alike": float(null.mean()),
                "on_other_items": on_other_items(judged, kept, rng),
            },
            diagnostics={
                "explained_by_luck": within,
                "annotators_alike_from": low,
                "annotators_alike_to": high,
            },
            detail={**detail, **listed},
            **context,
        ),
        proportion(
            _BELOW,
            int(np.sum(means < 0.5)),
            len(means),
            unit="annotators",
            anchors={"annotators_alike": float(np.mean(same < 0.5))},
            detail=detail,
            **context,
        ),
    ]
