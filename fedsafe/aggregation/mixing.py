"""What is done to the rows of a round before a robust rule: neighbours are mixed, or buckets averaged.

Both make honest rows more alike, which robust rules need where clients hold unlike data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.distances import shortened, squared_distances
from fedsafe.errors import ConfigError, EngineError
from fedsafe.extensions import unknown_option
from fedsafe.rng import Stream

Rows = NDArray[np.float64]


class Mixing(Protocol):
    """Turns the rows of a round into other rows."""

    name: ClassVar[str]
    # Whether it asks how many rows are adversaries'.
    counts: ClassVar[bool]

    def __call__(self, rows: Rows, adversaries: int, draws: Stream | None) -> Rows:
        """Other rows.

        Args:
            rows: ``(n, parameters)``, n at least 1.
            adversaries: How many of them are taken to be adversaries'.
            draws: What adversaries cannot foresee.
        """
        ...


@final
@dataclass(frozen=True)
class NearestNeighbourMixing:
    """Each row becomes the mean of the ``n - f`` rows nearest to it, itself among them (Allouah et al., 2023).

    Guarantees:
        A row of a client that is honest becomes a mean of which at most f parts of n - f come from adversaries, and
        these no farther from it than its ``n - f``-th nearest honest row.
    """

    name: ClassVar[str] = "nearest_neighbour_mixing"
    counts: ClassVar[bool] = True

    def __call__(self, rows: Rows, adversaries: int, draws: Stream | None) -> Rows:
        """``(n, parameters)`` means; of equally near rows those of lower client numbers."""
        kept = len(rows) - adversaries
        nearest = np.argsort(squared_distances(rows), axis=1, kind="stable")[:, :kept]
        chosen = np.zeros((len(rows), len(rows)))
        np.put_along_axis(chosen, nearest, 1.0 / kept, axis=1)
        mixed: Rows = chosen @ shortened(rows)
        return mixed


@final
@dataclass(frozen=True)
class Bucketing:
    """The rows are shuffled, and every ``size`` of them averaged (Karimireddy et al., 2022); the last may be fewer.

    Args:
        size: s, rows in a bucket, at least 1. The authors use 2.

    Guarantees:
        f adversaries reach at most f of the ``ceil(n / s)`` buckets: a rule that withstands a minority withstands fewer
        than ``n / (2 s)`` adversaries.
    """

    size: int = 2
    name: ClassVar[str] = "bucketing"
    counts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse a size that is no whole number from 1."""
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1:
            raise ConfigError(
                f"bucketing: size = {self.size!r}; it is a whole number of at least 1, such as 2"
            )

    def __call__(self, rows: Rows, adversaries: int, draws: Stream | None) -> Rows:
        """``(ceil(n / size), parameters)`` means.

        Raises:
            EngineError: There is nothing to draw the order from.
        """
        if draws is None:
            raise EngineError(
                "bucketing shuffles the rows, and was given no stream: call finish, not combine"
            )
        order = np.argsort(draws.words(len(rows)), kind="stable")
        starts = np.arange(0, len(rows), self.size)
        sizes = np.diff(np.append(starts, len(rows)))
        means: Rows = np.add.reduceat(shortened(rows)[order], starts, axis=0) / sizes[:, None]
        return means


MIXINGS: dict[str, type[Mixing]] = {mixing.name: mixing for mixing in (NearestNeighbourMixing, Bucketing)}


def build_mixing(rule: str, spec: str | Mapping[str, Any]) -> Mixing:
    """What the option ``before`` of a robust rule names.

    Args:
        rule: The rule, for messages.
        spec: A name, or a table of a ``name`` and options.

    Raises:
        ConfigError: Nothing has that name, or an option is unknown or out of range.
    """
    where = f"server.aggregator ({rule}): before = {spec!r}"
    options = {} if isinstance(spec, str) else {key: value for key, value in spec.items() if key != "name"}
    name = spec if isinstance(spec, str) else spec.get("name")
    if name not in MIXINGS:
        raise ConfigError(f'{where}; it is {" or ".join(MIXINGS)}, such as before = "{next(iter(MIXINGS))}"')
    wrong = unknown_option(MIXINGS[name], options)
    if wrong:
        raise ConfigError(f"{where}: {wrong}")
    return MIXINGS[name](**options)
