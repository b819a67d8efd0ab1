"""How far a person's accuracy goes up and down by chance alone, where her pairs share items."""

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.alignment.judged import Judged

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_DRAWS = 1000
_SPLITS = 50


def effective_pairs(judged: Judged) -> tuple[Array, float]:
    """How many independent pairs the pairs of each person are worth, and the correlation that this follows from.

    Two pairs with a common item are right or wrong together more often than others of the same person. With a
    correlation of r, n pairs of which each shares an item with s others have a mean as variable as that of
    n / (1 + r s) independent ones (Kish, 1965). The correlation is that of pairs which share an item less that of pairs
    which do not, over all people, at least 0.

    Returns:
        ``(people,)`` at most the number of pairs, and the correlation.
    """
    people, width = judged.people, int(max(judged.first.max(), judged.second.max())) + 1
    number = np.bincount(people).astype(np.float64)
    right = judged.right
    rest = right - (np.bincount(people, weights=right) / number)[people]
    sharing = _products(np.ones_like(rest), people, judged, width)
    products = _products(rest, people, judged, width).sum()
    others = number * (number - 1) - sharing
    variance = float(np.square(rest).sum() / max(number.sum() - len(number), 1.0))
    # The residuals of one person add up to nothing: all products of two are less their squares.
    apart = -float(np.square(rest).sum()) - products
    if variance <= 0 or sharing.sum() == 0:
        return number, 0.0
    alike = products / sharing.sum()
    if others.sum() > 0:
        alike -= apart / others.sum()
    correlation = float(np.clip(alike / variance, 0.0, 1.0))
    return number / (1.0 + correlation * sharing / number), correlation


def _products(values: Array, people: Indices, judged: Judged, width: int) -> Array:
    """``(people,)`` sums of the products of two different pairs of a person that have an item in common."""
    count = int(people.max()) + 1

    def squares(codes: Indices) -> Array:
        found, place = np.unique(codes, return_inverse=True)
        repeats = len(place) // len(values)
        sums = np.bincount(place.reshape(-1), weights=np.tile(values, repeats))
        return np.asarray(np.bincount(found // width**2, weights=sums**2, minlength=count), np.float64)

    first, second = judged.first, judged.second
    low, high = np.minimum(first, second), np.maximum(first, second)
    ends = np.concatenate([people * width**2 + first, people * width**2 + second])
    dyads = people * width**2 + low * width + high
    own = np.bincount(people, weights=values**2, minlength=count)
    return np.asarray(squares(ends) - squares(dyads) - own)


def alike(number: Array, chance: float, rng: np.random.Generator) -> Array:
    """``(draws, people)`` accuracies if the model were equally right for everybody.

    Args:
        number: ``(people,)`` independent pairs of each.
        chance: That a pair is right.
        rng: Source of the draws.
    """
    whole = np.maximum(1, np.round(number)).astype(np.int64)
    return np.asarray(rng.binomial(whole, chance, size=(_DRAWS, len(whole))) / whole)


def on_other_items(judged: Judged, kept: Indices, rng: np.random.Generator) -> float | None:
    """Mean accuracy, on pairs of one half of the items, of the tenth that is worst on those of the other half.

    Pairs across the halves are left out, so that nothing of what made somebody the worst is in her score.

    Args:
        judged: The pairs.
        kept: People who count.
        rng: Source of the halves.

    Returns:
        None where too few people have pairs in both halves.
    """
    mine = np.isin(judged.people, kept)
    people, right = judged.people[mine], judged.right[mine]
    first, second = judged.first[mine], judged.second[mine]
    items, found = int(max(first.max(), second.max())) + 1, []
    for _ in range(_SPLITS):
        half = rng.random(items) < 0.5
        sums = []
        for side in (half, ~half):
            rows = side[first] & side[second]
            total = np.bincount(people[rows], weights=right[rows], minlength=len(judged.names))
            sums.append((np.bincount(people[rows], minlength=len(judged.names)), total))
        both = np.flatnonzero((sums[0][0] > 0) & (sums[1][0] > 0))
        if len(both) < len(kept) / 2:
            continue
        here, there = (total[both] / number[both] for number, total in sums)
        worst = np.argsort(here + 1e-9 * rng.random(len(here)))[: int(np.ceil(len(both) * 0.1))]
        found.append(float(there[worst].mean()))
    return float(np.mean(found)) if found else None
