"""Distributed differential privacy: each client adds a share of the noise, and only the sum is ever seen.

What counts is the noise of the *surviving honest* clients: shares of those that drop out are missing, and shares of
those that collude with the adversary are known to it. Nothing is gained from sampling: the server, whom this protects
from, picks the cohort. Everything is in units of the grid, on which updates and noise are whole numbers.

Both laws have published Rényi divergences; dp-accounting has neither.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from fedsafe.errors import CalibrationError
from fedsafe.privacy.accounting.renyi import RenyiCurve

Law = Literal["discrete gaussian", "skellam"]

# Whole numbers, as the Skellam bound is proven for no others.
_ORDERS = (*range(2, 65), *range(68, 129, 4), *range(144, 257, 16), 512, 1024, 2048, 4096, 16384, 65536)


def discrete_gaussian_rdp(
    order: float, *, l2: float, l1: float, share: float, shares: int, dimension: int
) -> float:
    """Rényi divergence of a sum of discrete Gaussian shares (Kairouz et al., 2021, theorem 1 and proposition 14).

    With ``tau = 10 sum_(k<n) exp(-2 pi^2 s^2 k / (k+1))`` and norms over ``sqrt(n) s``, the least of
    ``a/2 l2^2 + tau d``, ``a/2 (l2^2 + 2 l1 tau + tau^2 d)`` and ``a/2 (l2 + sqrt(d) tau)^2``.

    Args:
        order: a, above 1.
        l2: Bound on the Euclidean norm of what changes.
        l1: Bound on its sum of absolute values.
        share: s, the deviation of one share; at least 1/2.
        shares: n, how many are added.
        dimension: d, the number of values.
    """
    exponent = 2.0 * (math.pi * share) ** 2
    tau = 10.0 * math.fsum(math.exp(-exponent * k / (k + 1)) for k in range(1, shares))
    total = math.sqrt(shares) * share
    euclidean, absolute = l2 / total, l1 / total
    return min(
        order / 2.0 * euclidean**2 + tau * dimension,
        order / 2.0 * (euclidean**2 + 2.0 * absolute * tau + tau**2 * dimension),
        order / 2.0 * (euclidean + math.sqrt(dimension) * tau) ** 2,
    )


def skellam_rdp(order: int, *, l2: float, l1: float, variance: float) -> float:
    """Rényi divergence of the symmetric Skellam mechanism (Agarwal et al., 2021, theorem 3.5).

    ``a l2^2 / (2 v) + min(((2a - 1) l2^2 + 6 l1) / (4 v^2), 3 l1 / (2 v))``. A sum of shares is Skellam too, so this is
    the divergence of any number of them with the sum of their variances.

    Args:
        order: a, a whole number above 1.
        l2: Bound on the Euclidean norm of what changes.
        l1: Bound on its sum of absolute values.
        variance: v, of the noise in all.
    """
    square = l2**2
    correction = min(((2 * order - 1) * square + 6.0 * l1) / (4.0 * variance**2), 3.0 * l1 / (2.0 * variance))
    return order * square / (2.0 * variance) + correction


@dataclass(frozen=True, kw_only=True)
class DistributedNoise:
    """What the rounds of a plan release under secure aggregation.

    Args:
        law: Of the shares.
        share: Standard deviation of one client's share.
        honest: Clients that neither drop out nor collude, at least: those that the minimum of a round leaves.
        l2: Bound on the Euclidean norm of one client's update after rounding.
        l1: Bound on its sum of absolute values.
        dimension: Values in an update, with what pads them.
        rounds: Rounds that one client takes part in.
    """

    law: Law
    share: float
    honest: int
    l2: float
    l1: float
    dimension: int
    rounds: int

    def rdp(self, order: int) -> float:
        """Of all rounds together; an update against none (zero-out)."""
        if self.law == "skellam":
            once = skellam_rdp(order, l2=self.l2, l1=self.l1, variance=self.honest * self.share**2)
        else:
            once = discrete_gaussian_rdp(
                order,
                l2=self.l2,
                l1=self.l1,
                share=self.share,
                shares=self.honest,
                dimension=self.dimension,
            )
        return self.rounds * once

    def replaced(self) -> "DistributedNoise":
        """The same where neighbours replace an update by another one: everything that changes is twice as large."""
        return replace(self, l2=2.0 * self.l2, l1=2.0 * self.l1)

    def alone(self) -> "DistributedNoise":
        """What a server sees that breaks secure aggregation: each update with its own share, against any other."""
        return replace(self.replaced(), honest=1)


def distributed_epsilon(noise: DistributedNoise, delta: float) -> float:
    """Upper bound on epsilon against a server that sees sums alone, and picks the cohorts.

    Args:
        noise: What is released; see :meth:`DistributedNoise.alone` for the figure without secure aggregation.
        delta: Probability that the bound fails.
    """
    if noise.rounds == 0:
        return 0.0
    return RenyiCurve(
        orders=tuple(map(float, _ORDERS)), values=tuple(noise.rdp(order) for order in _ORDERS)
    ).epsilon(delta)


def calibrate_distributed(
    target: float, delta: float, make: Callable[[float], DistributedNoise], *, most: float = 1e5
) -> float:
    """A noise multiplier whose epsilon does not exceed ``target``, and is within 0.1 % of the least that does so.

    Args:
        target: Epsilon of all rounds.
        delta: Probability that the bound fails.
        make: The releases for a noise multiplier; more noise costs less. It refuses, by a CalibrationError, noise that
            its grid is too coarse for.
        most: The largest multiplier that is tried.

    Raises:
        CalibrationError: None meets the target.
    """
    refused: CalibrationError | None = None

    def exceeds(multiplier: float) -> bool:
        nonlocal refused
        try:
            noise = make(multiplier)
        except CalibrationError as error:
            refused = error
            return True
        refused = None
        return distributed_epsilon(noise, delta) > target

    low, high = 0.0, 1.0
    while exceeds(high):
        low, high = high, 2.0 * high
        if high > most:
            raise refused or CalibrationError(
                f"no noise multiplier up to {most:g} reaches epsilon {target:g} with distributed noise; raise epsilon "
                "or delta, or plan fewer rounds"
            )
    while high - low > 1e-3 * high:
        middle = (low + high) / 2.0
        if exceeds(middle):
            low = middle
        else:
            high = middle
    return high
