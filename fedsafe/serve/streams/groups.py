"""The rate of a decision in each group of people: tested against the known rate, and shown in windows."""

from collections.abc import Mapping
from math import pi
from typing import Any, Final, Self

from fedsafe.findings import clopper_pearson
from fedsafe.serve.streams.means import MeanTest
from fedsafe.serve.streams.sequences import EmpiricalBernstein

_KEPT: Final = 24


class GroupRate:
    """One group.

    Its rate before the stream is known from so many records only: the stream is held to the ends of an exact
    confidence interval of that rate (Clopper and Pearson, 1934), which has half of alpha. The test against these ends
    has the other half, so that both together raise a false alarm with probability alpha at most, whatever the rate is.

    Intervals of windows hold together for all windows and times with probability 1 - alpha: the k-th window has
    6 alpha / (pi^2 k^2).

    Args:
        positive: Known records of the group whose decision is the one that is counted.
        known: Known records of the group.
        tolerance: How far the stream's rate may be from that of the population of the known records.
        alpha: Probability, at most, that the test ever raises a false alarm.
        window: Decisions of the group in a window.
    """

    def __init__(self, positive: int, known: int, tolerance: float, alpha: float, window: int) -> None:
        self.positive, self.known, self.alpha, self.window = positive, known, alpha, window
        self.low, self.high = clopper_pearson(positive, known, 1.0 - alpha / 2.0)
        self.test = MeanTest(tolerance, alpha / 2.0)
        self.number = 1
        self.current = self._sequence()
        self.closed: list[dict[str, Any]] = []

    @property
    def expected(self) -> float:
        """The rate among known records."""
        return self.positive / self.known

    def observe(self, value: float) -> bool:
        """Take a decision, 1 where it is the one that is counted; whether this raises an alarm."""
        self.current.observe(value)
        alarm = self.test.observe(value, self.low, self.high)
        if self.current.n >= self.window:
            self.closed = [*self.closed[1 - _KEPT :], self.shown()]
            self.number += 1
            self.current = self._sequence()
        return alarm

    def shown(self) -> dict[str, Any]:
        """The current window."""
        low, high = self.current.interval
        return {
            "window": self.number,
            "n": self.current.n,
            "rate": self.current.mean,
            "low": low,
            "high": high,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, to go on later."""
        return {
            "positive": self.positive,
            "known": self.known,
            "alpha": self.alpha,
            "window": self.window,
            "number": self.number,
            "test": self.test.to_json(),
            "current": self.current.to_json(),
            "closed": self.closed,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        positive, known, window = (int(values[name]) for name in ("positive", "known", "window"))
        group = cls(positive, known, 0.0, float(values["alpha"]), window)
        group.test = MeanTest.from_json(values["test"])
        group.number, group.closed = int(values["number"]), list(values["closed"])
        group.current = EmpiricalBernstein.from_json(values["current"])
        return group

    def _sequence(self) -> EmpiricalBernstein:
        return EmpiricalBernstein(alpha=6.0 * self.alpha / (pi**2 * self.number**2))
