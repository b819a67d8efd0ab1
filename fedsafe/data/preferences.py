"""What is known about the pairs that a model of preferences is judged on: who judged, what, and who rated the same."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import DataError

Names = NDArray[np.str_]
Indices = NDArray[np.int64]
SECOND, FIRST, TIE = "second", "first", "tie"
CLASSES = (SECOND, FIRST)  # label 1: the first that was shown is preferred
CLASSES_WITH_TIES = (SECOND, FIRST, TIE)


def _no_indices() -> Indices:
    return np.empty(0, np.int64)


def _no_numbers() -> NDArray[np.float64]:
    return np.empty(0)


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """The evaluation pairs of a task, row by row as ``task.evaluation`` has them, and the items that they are of.

    Args:
        annotators: ``(n,)`` names: who judged each pair.
        first: ``(n,)`` numbers of the items that were shown first.
        second: ``(n,)`` numbers of those shown second.
        items: Text or name of each item; empty where there is none that may be kept.
        lengths: ``(items,)`` characters of each item; empty where unknown.
        raters: ``(r,)`` positions in ``annotator_names``: who rated, where people rated single items. Every judgement
            of an item above, so that a person's pairs can be foretold from the others' ratings; empty for pairs.
        rated: ``(r,)`` numbers of the items that were rated.
        ratings: ``(r,)`` what they got; the higher, the more preferred.
        annotator_names: What ``raters`` counts.
        features: ``(items, ...)`` float32 features of each item; empty where unknown.

    Raises:
        DataError: If lengths disagree, an item or a rater is not in its list, or a number is not finite.
    """

    annotators: Names
    first: Indices
    second: Indices
    items: tuple[str, ...] = ()
    lengths: NDArray[np.float64] = field(default_factory=_no_numbers)
    raters: Indices = field(default_factory=_no_indices)
    rated: Indices = field(default_factory=_no_indices)
    ratings: NDArray[np.float64] = field(default_factory=_no_numbers)
    annotator_names: tuple[str, ...] = ()
    features: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def __post_init__(self) -> None:
        for name, kind in _TYPES.items():
            object.__setattr__(self, name, _array(getattr(self, name), kind, name))
        object.__setattr__(self, "features", np.ascontiguousarray(self.features, np.float32))
        for name in ("items", "annotator_names"):
            object.__setattr__(self, name, tuple(map(str, getattr(self, name))))
        _same_length(self, ("annotators", "first", "second"))
        _same_length(self, ("raters", "rated", "ratings"))
        for name in ("lengths", "ratings", "features"):
            if not np.isfinite(getattr(self, name)).all():
                raise DataError(f"Preferences' {name} hold a number that is not finite: remove it.")
        known = {
            name: len(getattr(self, name))
            for name in ("items", "lengths", "features")
            if len(getattr(self, name))
        }
        if len(set(known.values())) > 1:
            said = ", ".join(f"{count} {name}" for name, count in known.items())
            raise DataError(f"Preferences describe different numbers of items: {said}.")
        items = next(iter(known.values()), None)
        for name in ("first", "second", "rated"):
            _within(getattr(self, name), items, f"Preferences' {name}", "items")
        _within(self.raters, len(self.annotator_names), "Preferences' raters", "annotator_names")
        same = np.flatnonzero(self.first == self.second)
        if len(same):
            raise DataError(
                f"Pair {same[0]} (counted from 0) compares item {self.first[same[0]]} with itself: remove it."
            )

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.annotators)

    @property
    def item_count(self) -> int:
        """Number of items: those that are described, or else up to the last that is named."""
        described = max(len(self.items), len(self.lengths), len(self.features))
        named = [int(numbers.max()) + 1 for numbers in (self.first, self.second, self.rated) if len(numbers)]
        return described or max(named, default=0)

    def take(self, indices: Indices) -> Self:
        """The pairs at ``indices``, in that order; items and ratings stay as they are."""
        return replace(
            self,
            annotators=self.annotators[indices],
            first=self.first[indices],
            second=self.second[indices],
        )


_TYPES: dict[str, Any] = {
    "annotators": np.str_, "first": np.int64, "second": np.int64, "lengths": np.float64,
    "raters": np.int64, "rated": np.int64, "ratings": np.float64,
}  # fmt: skip


def _array(value: Any, kind: Any, name: str) -> NDArray[Any]:
    found = np.asarray(value)
    if found.ndim != 1 or (kind is np.int64 and len(found) and not np.issubdtype(found.dtype, np.integer)):
        wanted = "whole numbers, one for each" if kind is np.int64 else "one for each"
        raise DataError(
            f"Preferences' {name} came as {found.dtype} of shape {found.shape}: it needs {wanted}."
        )
    return np.ascontiguousarray(found, dtype=kind)


def _same_length(of: Preferences, names: tuple[str, ...]) -> None:
    lengths = {name: len(getattr(of, name)) for name in names}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise DataError(f"Preferences need one of each for every row: got {said}.")


def _within(numbers: Indices, count: int | None, what: str, of: str) -> None:
    wrong = np.flatnonzero((numbers < 0) | (numbers >= (np.inf if count is None else count)))
    if len(wrong):
        raise DataError(
            f"{what}, row {wrong[0]} (counted from 0), names number {numbers[wrong[0]]}; {of} are numbered from 0 to "
            f"{'...' if count is None else count - 1}."
        )
