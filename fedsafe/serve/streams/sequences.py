"""Confidence sequences: intervals of a mean that hold at all times together."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, log1p, sqrt
from typing import Any, Self


@dataclass
class EmpiricalBernstein:
    """The predictable plug-in empirical Bernstein sequence (Waudby-Smith and Ramdas, 2024, theorem 2).

    For values in [0, 1] with a common mean given the past, the intervals of all times hold together with probability
    1 - alpha.

    Attributes:
        alpha: Probability, at most, that any of them misses.
        n: Values so far.
    """

    alpha: float
    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    bets: float = 0.0
    weighted: float = 0.0
    spent: float = 0.0

    def observe(self, value: float) -> None:
        """Take a value in [0, 1]."""
        time = self.n + 1
        mean = (0.5 + self.total) / time
        variance = (0.25 + self.squares) / time
        bet = min(0.5, sqrt(2.0 * log(2.0 / self.alpha) / (variance * time * log1p(time))))
        self.n, self.total = time, self.total + value
        self.bets += bet
        self.weighted += bet * value
        # 4 (x - mean)^2 times psi_E = (-log(1 - bet) - bet) / 4.
        self.spent += (value - mean) ** 2 * (-log1p(-bet) - bet)
        self.squares += (value - (0.5 + self.total) / (time + 1)) ** 2

    @property
    def mean(self) -> float | None:
        """Mean so far."""
        return self.total / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """The interval now."""
        if not self.n:
            return 0.0, 1.0
        centre = self.weighted / self.bets
        reach = (log(2.0 / self.alpha) + self.spent) / self.bets
        return max(0.0, centre - reach), min(1.0, centre + reach)

    def to_json(self) -> dict[str, Any]:
        """Everything, to go on later."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(**values)
