"""The adaptive regime: what a run may still spend, when each release is chosen after seeing earlier ones."""

import math
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from fedsafe.errors import BudgetSpent, CalibrationError, ConfigError, LedgerError
from fedsafe.privacy.accounting.accounted import Accounted
from fedsafe.privacy.accounting.releases import Adjacency, Release, counted
from fedsafe.privacy.accounting.renyi import renyi, renyi_curve, require_order


class RdpFilter:
    """A budget of Rényi divergence, at an order that was fixed before the run.

    Guarantees:
        Whatever was chosen after seeing whatever, all releases that were let through together have a divergence of at
        most ``budget`` at ``order`` (Feldman and Zrnic 2021, theorem 4.5; Lécuyer 2021), and so the filter's epsilon
        at ``delta``. That is the epsilon to show: less would be spent epsilon, which is no bound for a run that stops
        because of what it saw. Nothing is ever refunded.

    Args:
        order: Of the divergence, above 1.01.
        budget: Divergence that may be spent.
        delta: At which epsilon is shown.
        adjacency: What differs; releases under another one are refused.
        spent: Divergence spent before, when a run goes on.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(
        self,
        *,
        order: float,
        budget: float,
        delta: float,
        adjacency: Adjacency = "zero-out",
        spent: float = 0.0,
    ) -> None:
        require_order(order)
        if not 0.0 < budget < math.inf or not 0.0 < delta < 1.0 or not 0.0 <= spent <= budget:
            raise ConfigError(
                f"a filter with budget {budget!r}, of which {spent!r} is spent, at delta {delta!r} bounds nothing: "
                "give a positive budget, less spent than that, and 0 < delta < 1"
            )
        self.order = float(order)
        self.budget = float(budget)
        self.delta = float(delta)
        self.adjacency: Adjacency = adjacency
        self.spent = float(spent)

    @classmethod
    def for_target(
        cls,
        epsilon: float,
        delta: float,
        *,
        order: float | None = None,
        expected: Iterable[Release] = (),
        adjacency: Adjacency = "zero-out",
    ) -> "RdpFilter":
        """The filter whose epsilon is that target.

        Args:
            epsilon: What may be spent, all told.
            delta: Probability that the bound fails.
            order: Of the divergence; by default the best for ``expected``, a public guess made before the run. A wrong
                guess costs releases, never privacy.
            expected: About what the run may release, in proportion.
            adjacency: What differs.

        Raises:
            CalibrationError: That order leaves nothing to spend at this delta.
            ConfigError: Neither an order nor expected releases are given.
        """
        if order is None:
            order = _best_order(counted(expected), epsilon, delta)
        require_order(order)
        budget = epsilon - _conversion(order, delta)
        if budget <= 0.0:
            raise CalibrationError(
                f"a Rényi filter of order {order:g} has nothing to spend at epsilon {epsilon:g} and delta {delta:g}: "
                "raise epsilon, delta or the order"
            )
        return cls(order=order, budget=budget, delta=delta, adjacency=adjacency)

    @property
    def epsilon(self) -> float:
        """Of the whole budget, spent or not: what the run's claim says from its first release on."""
        return max(0.0, self.budget + _conversion(self.order, self.delta))

    @property
    def remaining(self) -> float:
        """Divergence that may still be spent."""
        return max(0.0, self.budget - self.spent)

    def cost(self, releases: Iterable[Release]) -> float:
        """Divergence of these at the filter's order; infinite without noise.

        Raises:
            ConfigError: They are under another adjacency.
        """
        parts = counted(releases)
        if any(part.adjacency != self.adjacency for part in parts):
            raise ConfigError(
                f"this filter is under {self.adjacency}: it cannot let {parts[0].adjacency} releases through"
            )
        if any(part.noise == 0.0 for part in parts):
            return math.inf
        return math.fsum(part.count * float(renyi(part, (self.order,))[0]) for part in parts)

    def allows(self, releases: Iterable[Release]) -> bool:
        """Whether they would fit."""
        return self._after(self.cost(releases)) <= self.budget

    def spend(self, releases: Iterable[Release]) -> float:
        """Charge for releases, before anything of them leaves.

        Returns:
            What is spent by now.

        Raises:
            BudgetSpent: They would overspend; nothing is charged, and cheaper ones may still fit.
        """
        cost = self.cost(releases)
        after = self._after(cost)
        if not after <= self.budget:  # a cost that is no number is never let through
            raise BudgetSpent(
                f"these releases cost {cost:.6g} of Rényi divergence at order {self.order:g}, and {self.remaining:.6g} "
                f"of {self.budget:.6g} is left: release less, with more noise, or stop here"
            )
        self.spent = after
        return after

    def accounted(self) -> Accounted:
        """For the claim."""
        return Accounted(
            epsilon=self.epsilon,
            delta=self.delta,
            adjacency=self.adjacency,
            accountant=f"Rényi filter of order {self.order:g}, dp-accounting {version('dp-accounting')}",
            reason="releases were chosen after seeing earlier ones, which a PLD does not cover",
        )

    def to_json(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        keys = ("order", "budget", "delta", "adjacency", "spent")
        return {key: getattr(self, key) for key in keys}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> "RdpFilter":
        """Read back what :meth:`to_json` gave.

        Raises:
            LedgerError: Something is missing, or more is spent than there was.
        """
        try:
            return cls(**state)
        except (TypeError, ConfigError) as error:
            raise LedgerError(f"the state of the Rényi filter cannot be read: {error}; restore it") from error

    def _after(self, cost: float) -> float:
        """Rounded up: a sum must not lose what was spent."""
        return self.spent if cost == 0.0 else math.nextafter(self.spent + cost, math.inf)


def _conversion(order: float, delta: float) -> float:
    """From divergence to epsilon (Canonne, Kamath and Steinke 2020, proposition 12)."""
    return math.log1p(-1.0 / order) - math.log(delta * order) / (order - 1.0)


def _best_order(expected: tuple[Release, ...], epsilon: float, delta: float) -> float:
    """That at which ``expected`` fits most often."""
    if not expected:
        raise ConfigError(
            "a Rényi filter needs an order, fixed before the run, or expected releases to choose it by"
        )
    curve = renyi_curve(expected)
    fits = {
        order: (epsilon - _conversion(order, delta)) / value
        for order, value in zip(curve.orders, curve.values, strict=True)
        if order > 1.01 and 0.0 < value < math.inf
    }
    return max(fits, key=lambda order: fits[order])
