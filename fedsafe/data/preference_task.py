"""A task of preferences: pairs of items, each judged by a person, cut so that the items it is judged on are new.

A pair is an ordinary record, so everything that trains, counts and judges records does so with pairs: ``x`` is
``(n, 2, ...)``, the features of the first and of the second shown; the label is 1 where the first is preferred.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.dataset import Examples, Source, Task
from fedsafe.data.inputs import ArraySchema
from fedsafe.data.preferences import CLASSES, CLASSES_WITH_TIES, Indices, Preferences
from fedsafe.data.rated_pairs import Pairs, Ratings, pairs_of_ratings
from fedsafe.errors import ConfigError, DataError

EVALUATION_FRACTION = 0.25
MOST = 128
LEAST = (10, 0)
_TRACE = 1 << 64


@dataclass(frozen=True, kw_only=True)
class Items:
    """What is compared.

    Args:
        features: ``(items, ...)`` float32: of each, a vector or a trajectory ``(steps, features)``.
        names: ``(items,)`` text or name of each; empty if there is none.
        lengths: ``(items,)`` characters of each; empty if unknown.
        blocks: ``(items,)`` names of what is held out together, such as a prompt with all its answers; empty for each
            item by itself.
        low: Smallest value of a feature: public, and what is smaller counts as it.
        high: Largest value.

    Raises:
        DataError: If lengths disagree, or there are no items.
    """

    features: NDArray[np.float32]
    names: tuple[str, ...] = ()
    lengths: NDArray[np.float64] | None = None
    blocks: tuple[str, ...] = ()
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.features.ndim < 2 or not len(self.features):
            raise DataError(f"Items need features of shape (items, ...): got {self.features.shape}.")
        for what, values in (("names", self.names), ("lengths", self.lengths), ("blocks", self.blocks)):
            if values is not None and len(values) not in (0, len(self.features)):
                raise DataError(
                    f"{len(self.features)} items came with {len(values)} {what}: give one for each."
                )

    def held_out(self, fraction: float, seed: int) -> NDArray[np.bool_]:
        """``(items,)`` which are kept for evaluation.

        Each block falls to a side by a hash of the seed and its name, so that no other item moves it.
        """
        blocks = self.blocks or self.names or tuple(map(str, range(len(self.features))))
        side = {block: _fraction_of(f"{seed} {block}") < fraction for block in set(blocks)}
        return np.array([side[block] for block in blocks], np.bool_)


def preference_task(
    name: str,
    items: Items,
    judged: Pairs | Ratings,
    *,
    source: Source,
    groups: Mapping[str, Mapping[str, str]] | None = None,
    ties: bool = False,
    most: int | None = MOST,
    least: tuple[int, int] = LEAST,
    evaluation_fraction: float = EVALUATION_FRACTION,
    evaluation_public: bool = False,
    seed: int = 0,
) -> Task:
    """A task of which the clients are people and the records are pairs that they judged.

    Items are held out, not pairs: a training pair has no held-out item, an evaluation pair no other, and a pair with
    one of each is left out. Evaluation pairs are of the people who train, about items that nobody trained on.

    Args:
        name: Short name of the task.
        items: What is compared.
        judged: Pairs, or ratings that pairs are made of (:func:`fedsafe.data.rated_pairs.pairs_of_ratings`).
        source: Where the judgements come from.
        groups: Group column to who is in which group, e.g. ``{"gender": {"annotator 7": "Woman"}}``.
        ties: Whether pairs of which neither is preferred are kept, as a third class.
        most: At most so many pairs of a person on each side, where pairs are made of ratings.
        least: Training and evaluation pairs that a person needs to be a client (who has none of the latter is not
            judged); how many a person has counts as public, as the number of records of every client does.
        evaluation_fraction: Part of the items held out, in (0, 1).
        evaluation_public: Whether the judgements are public; texts of items are kept only then.
        seed: Decides which items are held out, and the order in which a rated pair is shown.

    Returns:
        A task with ``holders["annotator"]`` and :class:`fedsafe.data.preferences.Preferences`; binary, or with ties
        of the three classes second, first, tie.

    Raises:
        ConfigError: If ``evaluation_fraction`` is outside (0, 1).
        DataError: If a number names no item, a person has no group, or nobody has enough pairs.
    """
    if not 0.0 < evaluation_fraction < 1.0:
        raise ConfigError(
            f"task.evaluation_fraction = {evaluation_fraction!r} is not a number in (0, 1): use 0.25, for example."
        )
    apart = items.held_out(evaluation_fraction, seed)
    _check_items(judged, len(apart))
    if isinstance(judged, Ratings):
        pairs, ratings = pairs_of_ratings(judged, apart, ties=ties, most=most, seed=seed), judged
    else:
        pairs, ratings = judged if ties else judged.take(np.flatnonzero(judged.outcomes != 2)), None
    sides = apart[pairs.first].astype(int) + apart[pairs.second]
    train, evaluation = (pairs.take(np.flatnonzero(sides == side)) for side in (0, 2))
    clients = _clients(train, evaluation, least)
    if not clients:
        raise DataError(
            f"Nobody in {name!r} has {least[0]} training pairs and {least[1]} pairs of held-out items: use a smaller "
            f"`least`, or another `evaluation_fraction` than {evaluation_fraction:g}."
        )
    train, evaluation = (
        part.take(np.flatnonzero(np.isin(part.annotators, clients))) for part in (train, evaluation)
    )
    columns = {column: _group_of(column, of, clients) for column, of in (groups or {}).items()}
    privacy = "public" if evaluation_public else "private: each figure computed on them is a release"
    return Task(
        name=name,
        kind="multiclass" if ties else "binary",
        classes=CLASSES_WITH_TIES if ties else CLASSES,
        schema=ArraySchema(
            shape=(2, *items.features.shape[1:]), lowest=float(items.low), highest=float(items.high)
        ),
        train=_examples(train, items, columns),
        evaluation=_examples(evaluation, items, columns),
        evaluation_name=(
            f"pairs of the same people about the {evaluation_fraction:.0%} of the items that were held out with seed "
            f"{seed} ({privacy})"
        ),
        source=source,
        evaluation_public=evaluation_public,
        preferences=_preferences(evaluation, ratings, items, apart, clients, names=evaluation_public),
    )


def _fraction_of(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / _TRACE


def _check_items(judged: Pairs | Ratings, count: int) -> None:
    columns = (
        {"items": judged.items}
        if isinstance(judged, Ratings)
        else {"first": judged.first, "second": judged.second}
    )
    for what, numbers in columns.items():
        wrong = np.flatnonzero((numbers < 0) | (numbers >= count))
        if len(wrong):
            raise DataError(
                f"Row {wrong[0]} (counted from 0) of {what} names item {numbers[wrong[0]]}, but there are {count}."
            )


def _clients(train: Pairs, evaluation: Pairs, least: tuple[int, int]) -> list[str]:
    """Who has enough pairs, in the order of their names; everybody has one training pair."""
    enough = []
    for part, wanted in zip((train, evaluation), (max(least[0], 1), least[1]), strict=True):
        names, count = np.unique(part.annotators, return_counts=True)
        if wanted:
            enough.append({str(name) for name in names[count >= wanted]})
    return sorted(set.intersection(*enough))


def _group_of(column: str, of: Mapping[str, str], clients: list[str]) -> Mapping[str, str]:
    absent = [name for name in clients if name not in of]
    if absent:
        raise DataError(f"The annotator {absent[0]!r} has no group {column!r}: give everyone one.")
    return of


def _examples(pairs: Pairs, items: Items, groups: Mapping[str, Mapping[str, str]]) -> Examples:
    features = np.clip(np.asarray(items.features, np.float32), items.low, items.high)
    return Examples(
        x=np.stack([features[pairs.first], features[pairs.second]], axis=1),
        y=pairs.outcomes,
        groups={column: np.array([of[name] for name in pairs.annotators]) for column, of in groups.items()},
        holders={"annotator": pairs.annotators},
    )


def _preferences(
    pairs: Pairs,
    ratings: Ratings | None,
    items: Items,
    apart: NDArray[np.bool_],
    clients: list[str],
    *,
    names: bool,
) -> Preferences:
    """About the held-out items, which are numbered anew."""
    held = np.flatnonzero(apart)
    number = np.full(len(apart), -1, np.int64)
    number[held] = np.arange(len(held))
    found = Preferences(
        annotators=pairs.annotators,
        first=number[pairs.first],
        second=number[pairs.second],
        items=tuple(items.names[item] for item in held) if names and items.names else (),
        lengths=np.empty(0) if items.lengths is None else items.lengths[held],
        features=np.clip(items.features[held], items.low, items.high),
        annotator_names=tuple(clients),
    )
    if ratings is None:
        return found
    kept: Indices = np.flatnonzero(apart[ratings.items] & np.isin(ratings.annotators, clients))
    return replace(
        found,
        raters=np.searchsorted(np.array(clients), ratings.annotators[kept]),
        rated=number[ratings.items[kept]],
        ratings=ratings.values[kept],
    )
