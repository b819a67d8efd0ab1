"""What people foretell of each other: the ceiling of a model that knows the items alone."""

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.alignment.judged import (
    Judged,
    agreement,
    clusters_of_pairs,
    counted,
    ratio,
    resampled,
)
from fedsafe.data.preferences import Preferences
from fedsafe.findings import Finding, Provenance, estimate, not_measured

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_CEILING, _SHARE = "alignment.human_ceiling", "alignment.share_of_ceiling"
_FEWEST = 20  # pairs that others judged too


def ceiling(judged: Judged, rng: np.random.Generator, resamples: int, context: Provenance) -> list[Finding]:
    """How well the other people foretell a person's pairs, and which share of that gain the model has.

    Where single items were rated, the others' mean ratings of the two are compared; else the majority of the others who
    judged the same pair. The person is left out, equal means or votes count half, and so do the model's equal rewards.
    A model may pass the ceiling: it learns from more people than those who judged a pair.

    Args:
        judged: The pairs.
        rng: Source of the resampling.
        resamples: For the intervals.
        context: Fields of every finding.
    """
    rated = len(judged.preferences.ratings) > 0
    foretold = by_ratings(judged) if rated else by_votes(judged)
    known = np.flatnonzero(np.isfinite(foretold))
    how = "mean ratings by the others" if rated else "majority of the others on the same pair"
    detail = {
        "foretold_by": how,
        "pairs": len(known),
        "pairs_that_nobody_else_judged": len(foretold) - len(known),
    }
    if len(known) < _FEWEST:
        reason = f"others judged {len(known)} of the {len(foretold)} pairs too, {_FEWEST} are needed"
        return [
            not_measured(
                metric, reason, status="insufficient", n=len(known), unit="pairs", detail=detail, **context
            )
            for metric in (_CEILING, _SHARE)
        ]
    people = np.unique(judged.people[known], return_inverse=True)[1].reshape(-1)
    clusters = clusters_of_pairs(np.asarray(people, np.int64), judged.first[known], judged.second[known])
    human = agreement(foretold[known], judged.chosen[known])
    model = judged.right[known]
    found = resampled(ratio, counted(human), clusters, rng, resamples, bounds=(0.0, 1.0))
    notes = {"interval": clusters.note} if clusters.note else {}
    same = {"model_on_the_same_pairs": float(model.mean())}
    findings = [
        estimate(
            _CEILING,
            found.value,
            interval=found.interval,
            method=found.method,
            n=len(known),
            unit="pairs",
            anchors={"chance": 0.5, **same},
            diagnostics=notes,
            detail={**detail, "undecided_by_the_others": int(np.sum(foretold[known] == 0))},
            **context,
        )
    ]
    if found.interval is None or found.interval[0] <= 0.5:
        reason = (
            f"the others foretell {found.value:.3f} of the pairs, which is not surely more than chance: there is no "
            f"gain to have a share of"
        )
        return [
            *findings,
            not_measured(
                _SHARE, reason, status="insufficient", n=len(known), unit="pairs", detail=detail, **context
            ),
        ]
    columns = np.stack([np.ones(len(known)), model, human], axis=1)
    part = resampled(_part, columns, clusters, rng, resamples)
    findings.append(
        estimate(
            _SHARE,
            part.value,
            interval=part.interval,
            method=None if part.method is None else f"{part.method}, in pairs",
            n=len(known),
            unit="pairs",
            anchors={"chance": 0.0, "other_people": 1.0},
            diagnostics=notes,
            detail={**detail, **same},
            **context,
        )
    )
    return findings


def by_ratings(judged: Judged) -> Array:
    """``(d,)`` mean rating of the first less that of the second, of all but the person; not a number where unknown.

    Means that differ by rounding alone are equal.
    """
    known = judged.preferences
    names = {name: code for code, name in enumerate(known.annotator_names)}
    own = np.array([names.get(name, -1) for name in judged.names], np.int64)[judged.people]
    means = [mean_of_others(known, own, items) for items in (judged.first, judged.second)]
    gap = means[0] - means[1]
    scale = np.abs(known.ratings).max(initial=1.0)
    return np.asarray(np.where(np.abs(gap) < 1e-9 * scale, 0.0, gap))


def mean_of_others(preferences: Preferences, people: Indices, items: Indices) -> Array:
    """``(n,)`` mean rating of each item by all but one person; not a number where nobody else rated it.

    Args:
        preferences: With ratings.
        people: ``(n,)`` positions in `annotator_names`; -1 for somebody who rated nothing.
        items: ``(n,)`` numbers of items.
    """
    count, width = preferences.item_count, len(preferences.annotator_names) + 1
    total = np.bincount(preferences.rated, weights=preferences.ratings, minlength=count)
    number = np.bincount(preferences.rated, minlength=count)
    places = preferences.rated * width + preferences.raters
    codes, place = np.unique(places, return_inverse=True)
    own_total = np.bincount(place.reshape(-1), weights=preferences.ratings)
    own_number = np.bincount(place.reshape(-1))
    wanted = items * width + people
    at = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    found = (codes[at] == wanted) & (people >= 0)
    left = number[items] - np.where(found, own_number[at], 0)
    rest = total[items] - np.where(found, own_total[at], 0.0)
    return np.asarray(np.divide(rest, left, out=np.full(len(items), np.nan), where=left > 0))


def by_votes(judged: Judged) -> Array:
    """``(d,)`` others who preferred the first of the same pair less those who preferred the second; else not a number.

    A tie is a vote for neither, and counts as a judgement.
    """
    known = judged.preferences
    turned = known.first > known.second
    low, high = np.minimum(known.first, known.second), np.maximum(known.first, known.second)
    votes = np.array([-1.0, 1.0, 0.0])[judged.y] * np.where(turned, -1.0, 1.0)
    pairs = np.unique(low * (int(high.max()) + 1) + high, return_inverse=True)[1].reshape(-1)
    people = np.unique(known.annotators, return_inverse=True)[1].reshape(-1)
    own = np.unique(pairs * (int(people.max()) + 1) + people, return_inverse=True)[1].reshape(-1)
    others = np.bincount(pairs)[pairs] - np.bincount(own)[own]
    total = np.bincount(pairs, weights=votes)[pairs] - np.bincount(own, weights=votes)[own]
    total = total * np.where(turned, -1.0, 1.0)
    return np.asarray(np.where(others > 0, total, np.nan)[judged.decided])


def _part(totals: Array) -> Array:
    """The model's gain over chance as a share of people's, of ``(rows, 3)`` totals."""
    return np.asarray((totals[:, 1] / totals[:, 0] - 0.5) / (totals[:, 2] / totals[:, 0] - 0.5))
