"""The rate of a decision in each group of people: tested against the known rate, and shown in windows."""

from collections.abc import Mapping
from math import pi
from typing import Any, Final, Self

from fedsafe.serve.streams.means import MeanTest
from fedsafe.serve.streams.sequences import EmpiricalBernstein

_KEPT: Final = 24


class GroupRate:
    """One group.

    Intervals of windows hold together for all windows and times with probability 1 - alpha: the k-th window has
    6 alpha / (pi^2 k^2).

    Args:
        expected: The group's rate among known records.
        tolerance: How far it may be off: also the sampling error of the known rate is in it.
        alpha: Probability, at most, that the test ever raises a false alarm.
        window: Decisions of the group in a window.
    """

    def __init__(self, expected: float, tolerance: float, alpha: float, window: int) -> None:
        self.expected, self.alpha, self.window = expected, alpha, window
        self.test = MeanTest(tolerance, alpha)
        self.number = 1
        self.current = self._sequence()
        self.closed: list[dict[str, Any]] = []

    def observe(self, value: float) -> bool:
        """Take a decision, 1 where it is the one that is counted; whether this raises an alarm."""
        self.current.observe(value)
        alarm = self.test.observe(value, self.expected)
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
            "expected": self.expected,
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
        group = cls(float(values["expected"]), 0.0, float(values["alpha"]), int(values["window"]))
        group.test = MeanTest.from_json(values["test"])
        group.number, group.closed = int(values["number"]), list(values["closed"])
        group.current = EmpiricalBernstein.from_json(values["current"])
        return group

    def _sequence(self) -> EmpiricalBernstein:
        return EmpiricalBernstein(alpha=6.0 * self.alpha / (pi**2 * self.number**2))
