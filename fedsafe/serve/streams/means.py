"""Whether a mean stays within a tolerance of what it should be: bets on either side (Waudby-Smith and Ramdas, 2024)."""

from collections.abc import Mapping
from typing import Any, Final, Self

from fedsafe.errors import ConfigError
from fedsafe.serve.streams.wealth import Wealth

# Shares of the largest bet that can never lose more than everything.
_SHARES: Final = (0.1, 0.3, 0.6)


class MeanTest:
    """Tests values in [0, 1] whose mean, given the past, should be within a tolerance of an expected one.

    The expected mean may be another one for each value, such as the confidence of each answer.

    Args:
        tolerance: How far a mean may be off, at least 0 and below 1.
        alpha: Probability, at most, that it ever raises a false alarm.

    Raises:
        ConfigError: The tolerance is out of range.
    """

    def __init__(self, tolerance: float, alpha: float) -> None:
        if not 0.0 <= tolerance < 1.0:
            raise ConfigError(f"a tolerance is from 0 to below 1, not {tolerance!r}")
        self.tolerance, self.wealth = tolerance, Wealth(bets=2 * len(_SHARES), alpha=alpha)
        self.n, self.total, self.expected = 0, 0.0, 0.0

    def observe(self, value: float, expected: float, high: float | None = None) -> bool:
        """Take a value; whether this raises an alarm.

        Args:
            value: In [0, 1].
            expected: Its mean as it should be, in [0, 1], or the least that this may be.
            high: The most that it may be; `expected` where None.
        """
        top = expected if high is None else high
        self.n += 1
        self.total += value
        self.expected += expected
        above, below = top + self.tolerance, 1.0 - expected + self.tolerance
        up = (value - above) / above if above > 0.0 else 0.0
        down = (1.0 - value - below) / below if below > 0.0 else 0.0
        return self.wealth.step([1.0 + share * side for share in _SHARES for side in (up, down)])

    @property
    def mean(self) -> float | None:
        """Mean of all values; None before the first."""
        return self.total / self.n if self.n else None

    def to_json(self) -> dict[str, Any]:
        """Everything, to go on later."""
        return {**vars(self), "wealth": self.wealth.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        test = cls(float(values["tolerance"]), 0.5)
        test.wealth = Wealth.from_json(values["wealth"])
        test.n, test.total, test.expected = (
            int(values["n"]),
            float(values["total"]),
            float(values["expected"]),
        )
        return test
