"""Testing by betting: a gambler whose fortune cannot grow, on average, while nothing has changed.

Each of several bets multiplies its stake by a factor whose mean is at most 1 under the null hypothesis, given the past.
So does their mixture, and Ville's inequality (1939) bounds the probability that the fortune ever reaches 1 / alpha by
alpha. At every step a share of the fortune that shrinks like 1 / n is moved between the bets (the fixed share of
Herbster and Warmuth, 1998, as in the jumpers of Vovk et al., 2021): one of the bets keeps its stake, so a change that
comes late finds a fortune that has shrunk by about log n and no more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log
from typing import Any, Self

_SMALLEST = 1e-300


@dataclass
class Wealth:
    """The fortune of one test, restarted after each alarm.

    The k-th alarm of a test needs a fortune of pi^2 k^2 / (6 alpha): over all restarts the probability of any false
    alarm is at most alpha, since 6 / (pi^2 k^2) sums to 1.

    Attributes:
        bets: How many bets there are besides the one that keeps its stake.
        alpha: Of this test, over all its restarts.
        log_wealth: Logarithm of the fortune since the last restart.
        highest: Its largest value since then.
        stakes: ``(1 + bets,)`` shares of the fortune; the first is the one that is kept.
        steps: Since the last restart.
        alarms: So far.
    """

    bets: int
    alpha: float
    log_wealth: float = 0.0
    highest: float = 0.0
    stakes: list[float] = field(default_factory=list)
    steps: int = 0
    alarms: int = 0

    def __post_init__(self) -> None:
        if not self.stakes:
            self.stakes = self._prior()

    @property
    def threshold(self) -> float:
        """Logarithm of the fortune at which the next alarm is raised."""
        return log((self.alarms + 1) ** 2 * 1.6449340668482264 / self.alpha)

    def step(self, factors: Sequence[float]) -> bool:
        """Bet once.

        Args:
            factors: ``(bets,)`` what each bet's stake is multiplied by; at least 0, and at most 1 on average under the
                null hypothesis.

        Returns:
            Whether this raises an alarm; the test then starts again.
        """
        self.steps += 1
        moved = 1.0 / (self.steps + 1.0)
        stakes, prior = self.stakes, 0.5 / self.bets
        total = stakes[0]
        for at, factor in enumerate(factors, start=1):
            stakes[at] *= factor
            total += stakes[at]
        self.log_wealth += log(total if total > _SMALLEST else _SMALLEST)
        keep = (1.0 - moved) / (total if total > _SMALLEST else _SMALLEST)
        stakes[0] = stakes[0] * keep + 0.5 * moved
        for at in range(1, len(stakes)):
            stakes[at] = stakes[at] * keep + prior * moved
        if self.log_wealth > self.highest:
            self.highest = self.log_wealth
        if self.log_wealth < self.threshold:
            return False
        self.alarms += 1
        self.log_wealth, self.highest, self.stakes, self.steps = 0.0, 0.0, self._prior(), 0
        return True

    @property
    def p_value(self) -> float:
        """Anytime-valid p-value since the last restart: 1 over the largest fortune."""
        return min(1.0, exp(-max(0.0, min(700.0, self.highest))))

    def to_json(self) -> dict[str, Any]:
        """Everything, to go on later."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(**values)

    def _prior(self) -> list[float]:
        return [0.5, *[0.5 / self.bets] * self.bets]
