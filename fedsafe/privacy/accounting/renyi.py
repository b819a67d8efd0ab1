"""Rényi differential privacy: looser than a loss distribution, but it never overflows, and it makes a filter.

Values at each order are dp-accounting's, except where an element is replaced in a Poisson sample, which it lacks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import ConfigError
from fedsafe.privacy.accounting.losses import one_way
from fedsafe.privacy.accounting.releases import FixedSizeGaussian, Release, SampledGaussian, counted

Values = NDArray[np.float64]

# What the logarithm of a moment may have lost by rounding, in one release; it would matter for tiny rates alone.
_ROUNDING = 1e-14
# The integral over a replaced element is as wide as the order, and low orders serve where it would be costly.
_MOST_REPLACED = 128.0
# Orders close to one, for releases that cost very much.
_LOW_ORDERS = (1.02, 1.05, 1.25)


@dataclass(frozen=True, kw_only=True)
class RenyiCurve:
    """The best of a set of orders.

    Args:
        orders: ``(n,)``, each above one.
        values: ``(n,)`` Rényi divergence at each, never below the truth.
    """

    orders: tuple[float, ...]
    values: tuple[float, ...]

    def epsilon(self, delta: float) -> float:
        """By the conversion of Canonne, Kamath and Steinke (2020), proposition 12."""
        return self._best(delta)[0]

    def order(self, delta: float) -> float:
        """Which order that epsilon comes from."""
        return self._best(delta)[1]

    def delta(self, epsilon: float) -> float:
        """The same, the other way round."""
        from dp_accounting.rdp.rdp_privacy_accountant import compute_delta

        return float(compute_delta(self.orders, self.values, epsilon)[0])

    def name(self, delta: float) -> str:
        """With the order."""
        return f"RDP, dp-accounting {version('dp-accounting')}, order {self.order(delta):g}"

    def _best(self, delta: float) -> tuple[float, float]:
        from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

        epsilon, order = compute_epsilon(self.orders, self.values, delta)
        return float(epsilon), float(order)


def rdp_epsilon(release: Release, delta: float, also: tuple[Release, ...] = ()) -> float:
    """Epsilon by RDP alone: what :func:`epsilon` falls back to, and a contrast to it.

    Args:
        release: What is released.
        delta: Probability that the bound fails.
        also: What the same protected element takes part in besides, under the same adjacency.
    """
    releases = counted((release, *also))
    if not releases:
        return 0.0
    if any(part.noise == 0.0 for part in releases):
        return math.inf
    return renyi_curve(releases).epsilon(delta)


def legacy_rdp_epsilon(release: SampledGaussian, delta: float) -> float:
    """What papers before 2021 print: the conversion of Mironov (2017), proposition 3, at Opacus's orders.

    It is larger than :func:`rdp_epsilon` for the same release: a label beside an old table, never a claim.
    """
    orders = (*(1.0 + step / 10.0 for step in range(1, 100)), *map(float, range(12, 64)))
    values = release.count * renyi(replace(release, count=1), orders)
    bounds = values - math.log(delta) / (np.array(orders) - 1.0)
    return float(bounds.min())


def renyi_curve(releases: Sequence[Release], orders: tuple[float, ...] | None = None) -> RenyiCurve:
    """Rényi divergences add up under composition, adaptive or not (Mironov 2017, proposition 1).

    Args:
        releases: None without noise.
        orders: Default: those of dp-accounting and a few close to one.
    """
    from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS

    orders = orders or (*_LOW_ORDERS, *map(float, DEFAULT_RDP_ORDERS))
    total = np.zeros(len(orders))
    for release in releases:
        total += release.count * renyi(replace(release, count=1), orders)
    return RenyiCurve(orders=orders, values=tuple(map(float, total)))


@lru_cache(maxsize=4096)
def renyi(release: Release, orders: tuple[float, ...]) -> Values:
    """``(orders,)`` divergence of one release; its count does not matter."""
    alphas = np.array(orders)
    if isinstance(release, SampledGaussian) and release.adjacency == "replace-one":
        if release.rate == 1.0:
            return np.asarray(2.0 * alphas / release.noise**2)
        return _replaced(release, alphas)
    # Rounding can lose what a tiny rate costs, and a divergence of zero would be no bound.
    return np.maximum(_of_dp_accounting(release, orders), 0.0) + _ROUNDING / (alphas - 1.0)


def _of_dp_accounting(release: Release, orders: tuple[float, ...]) -> Values:
    from dp_accounting import dp_event
    from dp_accounting.privacy_accountant import NeighboringRelation
    from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant

    event: Any
    if isinstance(release, FixedSizeGaussian):
        # dp-accounting takes the noise over what the sum moves, which is twice the clip.
        event = dp_event.SampledWithoutReplacementDpEvent(
            release.population, release.size, dp_event.GaussianDpEvent(release.noise / 2.0)
        )
        relation = NeighboringRelation.REPLACE_ONE
    else:
        event = dp_event.PoissonSampledDpEvent(release.rate, dp_event.GaussianDpEvent(release.noise))
        relation = NeighboringRelation.REPLACE_SPECIAL
    accountant = RdpAccountant(list(orders), relation)
    accountant.compose(event)
    return np.asarray(accountant.rdp, dtype=float)


def _replaced(release: SampledGaussian, alphas: Values) -> Values:
    """Divergence of the pair that dominates a replaced element in a Poisson sample, by the trapezoidal rule.

    The pair is (1-q) N(0) + q N(-1) against (1-q) N(0) + q N(1), which dominates the release in every hockey-stick
    divergence (Zhu, Dong and Wang 2022; Lebeda et al. 2025), and so in every Rényi divergence. The integrand is
    analytic within pi noise^2 of the real line, so that the rule is exact to rounding at the steps taken.
    """
    pair, noise = one_way(release), release.noise
    step = min(noise / 6.0, noise**2 / 2.0)
    found = np.full_like(alphas, math.inf)
    for at in np.flatnonzero(alphas <= _MOST_REPLACED):
        alpha = float(alphas[at])
        x = np.arange(-2.0 * alpha - 1.0 - 12.0 * noise, 1.0 + 12.0 * noise, step)
        parts = np.log(pair.weights) - 0.5 * (np.subtract.outer(x, (0.0, 1.0)) / noise) ** 2
        lower = np.logaddexp(parts[:, 0], parts[:, 1]) - math.log(noise * math.sqrt(2.0 * math.pi))
        exponents = alpha * pair.loss(x) + lower
        top = float(exponents.max())
        moment = top + math.log(float(np.exp(exponents - top).sum()) * step)
        found[at] = (max(moment, 0.0) + _ROUNDING) / (alpha - 1.0)
    return found


def require_order(order: float) -> None:
    """Refuse an order that gives no bound.

    Raises:
        ConfigError: It is not above 1.01, where the conversion to epsilon is stable.
    """
    if not 1.01 < order < math.inf:
        raise ConfigError(f"a Rényi filter of order {order!r} gives no epsilon: choose an order above 1.01")
