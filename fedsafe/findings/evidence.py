"""Example by example, what a share counts; never part of a record."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import ConfigError


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """For which examples a finding's property holds.

    Attributes:
        rows: ``(n,)`` indices into the evaluation set, each once.
        holds: ``(n,)`` whether it holds for each: correct, still correct under attack, certified.

    Raises:
        ConfigError: The two do not fit together, or a row comes twice.
    """

    rows: NDArray[np.int64]
    holds: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.rows.shape != self.holds.shape or self.rows.ndim != 1:
            raise ConfigError(
                f"evidence has {self.holds.shape} flags for {self.rows.shape} rows; give one flag for each row"
            )
        if len(np.unique(self.rows)) != len(self.rows):
            raise ConfigError("evidence names a row twice; give each example once")

    def on(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Flags of these rows, all of which it has."""
        order = np.argsort(self.rows)
        return np.asarray(self.holds[order][np.searchsorted(self.rows[order], rows)])

    def shared(self, other: "Evidence") -> NDArray[np.int64]:
        """The rows that both know, in increasing order."""
        return np.intersect1d(self.rows, other.rows, assume_unique=True)
