"""What robust rules over rows share: how many adversaries they allow for, and what is done to the rows before."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Updates
from fedsafe.aggregation.mixing import build_mixing
from fedsafe.aggregation.options import require_number
from fedsafe.aggregation.rows import RowRule
from fedsafe.errors import ConfigError
from fedsafe.rng import Stream

# Of the replies, where a rule is not told how many may be adversaries'.
_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class RobustRule(RowRule, ABC):
    """Estimates the centre of the honest rows; every client counts alike.

    Args:
        adversaries: f, how many of a round's replies may be adversaries', at least 0; or else
        share: the share of them, in [0, 0.5): of n replies ``floor(share * n)``. By default a tenth.
        before: What is done to the rows first: ``"nearest_neighbour_mixing"``, ``"bucketing"``, or
            ``{ name = "bucketing", size = 2 }``.

    Guarantees:
        f is never more than ``(n - 1) // 2`` of n rows: where a round has too few replies for the number that was asked
        for, the rule allows for as many as any rule can.
    """

    adversaries: int | None = None
    share: float | None = None
    before: str | Mapping[str, Any] | None = None

    # Whether the rule itself asks for f.
    counts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options out of range, and those that nothing would use."""
        rule, adversaries = f"server.aggregator ({self.name})", self.adversaries
        if self.share is not None:
            require_number(self.name, "share", self.share, below=0.5)
        if adversaries is not None and (
            not isinstance(adversaries, int) or isinstance(adversaries, bool) or adversaries < 0
        ):
            raise ConfigError(f"{rule}: adversaries = {adversaries!r}; it is a whole number of at least 0")
        if self.share is not None and adversaries is not None:
            raise ConfigError(f"{rule}: adversaries and share say the same; leave one out")
        mixing = None if self.before is None else build_mixing(self.name, self.before)
        told = "share" if self.share is not None else "adversaries" if adversaries is not None else None
        if told and not self.counts and not (mixing and mixing.counts):
            raise ConfigError(
                f"{rule} does not ask how many are adversaries: leave {told} out, or set before = "
                '"nearest_neighbour_mixing", which does'
            )

    @abstractmethod
    def estimate(self, rows: NDArray[np.float64], adversaries: int) -> NDArray[np.float64]:
        """The centre ``(parameters,)``.

        Args:
            rows: ``(n, parameters)`` finite rows, n at least 1.
            adversaries: f, at most ``(n - 1) // 2``.
        """

    @final
    def tolerated(self, replies: int) -> int:
        """f, of so many replies."""
        if self.adversaries is not None:
            asked = self.adversaries
        else:
            # The product of a decimal share can fall a hair short of the whole number that was meant.
            asked = math.floor((_SHARE if self.share is None else self.share) * replies + 1e-9)
        return min(asked, (replies - 1) // 2)

    @final
    def combine(self, updates: Updates) -> NDArray[np.float64]:
        """The centre of the replies, where nothing has to be drawn before."""
        return self.combine_drawing(updates, None)

    @final
    def combine_drawing(self, updates: Updates, draws: Stream | None) -> NDArray[np.float64]:
        """The centre of the replies, mixed before if that was asked for."""
        rows, adversaries = updates.rows, self.tolerated(len(updates.rows))
        if self.before is not None:
            rows = build_mixing(self.name, self.before)(rows, adversaries, draws)
        return self.estimate(rows, min(adversaries, (len(rows) - 1) // 2))
