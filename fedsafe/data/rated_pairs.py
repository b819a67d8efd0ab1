"""Pairs out of ratings: whoever rated two items differently prefers one of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.preferences import Indices, Names
from fedsafe.rng import public_generator

Outcomes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of items and what was said of them.

    Args:
        annotators: ``(n,)`` names: who judged.
        first: ``(n,)`` numbers of the items that were shown first.
        second: ``(n,)`` numbers of those shown second.
        outcomes: ``(n,)`` 1 where the first is preferred, 0 where the second is, 2 where neither.
    """

    annotators: Names
    first: Indices
    second: Indices
    outcomes: Outcomes

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.annotators)

    def take(self, rows: Indices) -> "Pairs":
        """The pairs at ``rows``, in that order."""
        return Pairs(
            annotators=self.annotators[rows],
            first=self.first[rows],
            second=self.second[rows],
            outcomes=self.outcomes[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Ratings:
    """What people gave to single items.

    Args:
        annotators: ``(r,)`` names: who rated.
        items: ``(r,)`` numbers of the items.
        values: ``(r,)`` what they gave; the higher, the more preferred.
    """

    annotators: Names
    items: Indices
    values: NDArray[np.float64]

    def by_annotator(self) -> Mapping[str, Indices]:
        """Sorted rows of each annotator, in the order of their names."""
        names, code = np.unique(self.annotators, return_inverse=True)
        order = np.argsort(code, kind="stable")
        rows = np.split(order, np.cumsum(np.bincount(code))[:-1])
        return {str(name): np.sort(own) for name, own in zip(names, rows, strict=True)}


def pairs_of_ratings(
    ratings: Ratings, apart: NDArray[np.bool_], *, ties: bool, most: int | None, seed: int
) -> Pairs:
    """All pairs of items that one person rated, both held out or both not, in a random order of showing.

    What one person's pairs are, and their order, follows from the seed, from that person's name and from that person's
    ratings alone: if another's changed them, noise that hides one person would not hide who moved the rest.

    Args:
        ratings: At most one of an item by a person.
        apart: ``(items,)`` whether an item is held out.
        ties: Whether two items with one rating are a pair, a tie.
        most: At most so many pairs of a person on each side, chosen at random; None for all.
        seed: Decides what is random.
    """
    found = []
    for name, rows in ratings.by_annotator().items():
        rng = public_generator(seed, f"pairs of annotator {name}")
        for side in (False, True):
            own = rows[apart[ratings.items[rows]] == side]
            own = own[np.argsort(ratings.items[own], kind="stable")]  # not the order in which a file has them
            left, right = np.triu_indices(len(own), k=1)
            value = ratings.values[own]
            kept = np.arange(len(left)) if ties else np.flatnonzero(value[left] != value[right])
            chosen = rng.permutation(kept)[:most]
            swapped = rng.random(len(chosen)) < 0.5
            first = own[np.where(swapped, right[chosen], left[chosen])]
            second = own[np.where(swapped, left[chosen], right[chosen])]
            gap = ratings.values[first] - ratings.values[second]
            found.append(
                Pairs(
                    annotators=np.full(len(chosen), name),
                    first=ratings.items[first],
                    second=ratings.items[second],
                    outcomes=np.where(gap == 0, 2, gap > 0).astype(np.int64),
                )
            )
    return joined(found)


def joined(parts: list[Pairs]) -> Pairs:
    """The pairs of all parts, in order."""
    empty = Pairs(
        annotators=np.empty(0, "<U1"),
        first=np.empty(0, np.int64),
        second=np.empty(0, np.int64),
        outcomes=np.empty(0, np.int64),
    )
    every = [empty, *parts]
    return Pairs(
        annotators=np.concatenate([part.annotators for part in every]),
        first=np.concatenate([part.first for part in every]),
        second=np.concatenate([part.second for part in every]),
        outcomes=np.concatenate([part.outcomes for part in every]),
    )
