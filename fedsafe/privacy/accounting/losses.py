"""The privacy loss distribution of one release, all points of its grid at once.

dp-accounting makes the same distribution point by point, which takes most of the time of an epsilon; the tests hold
this to its figures. The discretisation that makes it an upper bound ("connect the dots", Doroshenko et al. 2022) and
everything after it are dp-accounting's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedsafe.privacy.accounting.releases import SampledGaussian

Values = NDArray[np.float64]
_Direction = Literal["remove", "add", "replace"]

# Mass of each tail that counts as an infinite loss, exp(-50)/2: as dp-accounting has it.
_LOG_TAIL = -50.0
# Places at which the loss of a mixture is tabled before it is inverted.
_TABLE = 20_001


class TooWideError(Exception):
    """The grid of losses has too many points to hold."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two distributions whose divergence no neighbouring data sets exceed, of one release with noise ``noise``.

    Upper is N(-s) for "remove" and "replace", mixed over the shifts s; lower is N(s) for "add" and "replace". The other
    one is N(0). Sampled once they dominate (Zhu, Dong and Wang 2022); with more than one shift they do for groups
    (Choquette-Choo, Ganesh, Steinke and Thakurta 2023, corollary 4.7).

    Args:
        noise: Standard deviation, over what one element moves.
        weights: ``(shifts,)`` probability that 0, 1, ... elements take part.
        direction: Which of the two is mixed.
    """

    noise: float
    weights: tuple[float, ...]
    direction: _Direction

    @property
    def largest(self) -> int:
        """The largest shift."""
        return len(self.weights) - 1

    def loss(self, x: Values) -> Values:
        """Log of upper over lower, falling in ``x``."""
        upper = 0.0 if self.direction == "add" else self._log_ratio(-x)
        lower = 0.0 if self.direction == "remove" else self._log_ratio(x)
        return np.asarray(upper - lower)

    def _log_ratio(self, x: Values) -> Values:
        """Log of the mixture of N(s) over N(0)."""
        shifts = np.arange(self.largest + 1, dtype=float)
        with np.errstate(divide="ignore"):
            weights = np.log(self.weights)
        exponents = weights + np.multiply.outer(x, shifts / self.noise**2) - shifts**2 / (2.0 * self.noise**2)
        top = exponents.max(axis=-1)
        return np.asarray(top + np.log(np.exp(exponents - top[..., None]).sum(axis=-1)))

    def deviation(self) -> float:
        """Standard deviation of the loss of one release, about."""
        x = np.linspace(-6.0 * self.noise - self.largest, 6.0 * self.noise + self.largest, 1001)
        shifts = 0.0 if self.direction == "add" else np.arange(self.largest + 1, dtype=float)
        weights = 1.0 if self.direction == "add" else np.array(self.weights)
        density = (
            (np.exp(-0.5 * (np.add.outer(x, shifts) / self.noise) ** 2) * weights)
            .reshape(x.size, -1)
            .sum(axis=1)
        )
        loss = self.loss(x)
        mean = float((loss * density).sum() / density.sum())
        return math.sqrt(float(((loss - mean) ** 2 * density).sum() / density.sum()))

    def bounds(self) -> tuple[float, float]:
        """Between which losses all but the tails lie."""
        from scipy.special import ndtri_exp

        tail = -self.noise * float(ndtri_exp(_LOG_TAIL - math.log(2.0)))
        left = -tail - (0.0 if self.direction == "add" else self.largest)
        right = tail + (self.largest if self.direction == "add" else 0.0)
        ends = self.loss(np.array([right, left]))
        return float(ends[0]), float(ends[1])

    def inverse(self, losses: Values) -> Values:
        """Up to which ``x`` the loss is at least that much; infinite where it always or never is."""
        if self.largest == 1:
            return _INVERSES[self.direction](losses, self.weights[1], self.noise)
        # Interpolated in a table, then one step of Newton's method. A divergence is largest at the exact place, so
        # that what is left of the error there counts squared.
        reach = 12.0 * self.noise + self.largest
        table = np.linspace(reach, -reach, _TABLE)
        values = np.maximum.accumulate(self.loss(table))
        place, spacing = np.interp(losses, values, table), 2.0 * reach / (_TABLE - 1)
        ahead, behind = self.loss(place + spacing / 8.0), self.loss(place - spacing / 8.0)
        slope = np.minimum((ahead - behind) / (spacing / 4.0), -1e-9)
        place += np.clip((losses - self.loss(place)) / slope, -spacing, spacing)
        return np.where(losses > values[-1], -np.inf, np.where(losses < values[0], np.inf, place))

    def deltas(self, epsilons: Values) -> Values:
        """Hockey-stick divergence at each epsilon."""
        from scipy.special import log_ndtr, ndtr

        x, shifts = self.inverse(epsilons)[:, None], np.arange(self.largest + 1, dtype=float)
        if self.direction == "add":
            upper = ndtr(x[:, 0] / self.noise)
        else:
            upper = ndtr((x + shifts) / self.noise) @ np.array(self.weights)
        if self.direction == "remove":
            lower = log_ndtr(x[:, 0] / self.noise)
        else:
            with np.errstate(divide="ignore"):
                lower = np.logaddexp.reduce(
                    np.log(self.weights) + log_ndtr((x - shifts) / self.noise), axis=1
                )
        return np.asarray(np.clip(upper - np.exp(epsilons + lower), 0.0, 1.0))


def _unsampled(losses: Values, rate: float) -> Values:
    """log(1 + (exp(loss) - 1) / rate), minus infinity where there is none."""
    with np.errstate(all="ignore"):
        large = losses - math.log(rate) + np.log1p(-(1.0 - rate) * np.exp(-losses))
        small = np.log1p(np.maximum(np.expm1(np.minimum(losses, 0.0)) / rate, -1.0))
    return np.where(losses > 0.0, large, small)


def _inverse_remove(losses: Values, rate: float, noise: float) -> Values:
    return -0.5 - noise**2 * _unsampled(losses, rate)


def _inverse_add(losses: Values, rate: float, noise: float) -> Values:
    return 0.5 + noise**2 * _unsampled(-losses, rate)


def _inverse_replace(losses: Values, rate: float, noise: float) -> Values:
    """From sinh(u) = -a sinh(loss/2) with x = noise^2 (u - loss/2), a = exp(1/(2 noise^2)) (1 - rate)/rate."""
    half = np.abs(losses) / 2.0
    with np.errstate(divide="ignore"):
        log_sinh = half + np.log(-np.expm1(-2.0 * half)) - math.log(2.0)
        scaled = log_sinh + 0.5 / noise**2 + math.log1p(-rate) - math.log(rate)
    arsinh = np.logaddexp(0.5 * np.logaddexp(0.0, 2.0 * scaled), scaled)
    return np.asarray(-np.sign(losses) * noise**2 * (arsinh + half))


_INVERSES: dict[str, Callable[[Values, float, float], Values]] = {
    "remove": _inverse_remove,
    "add": _inverse_add,
    "replace": _inverse_replace,
}


def one_way(release: SampledGaussian, group: int = 1) -> Pair:
    """The pair of one release that has the widest losses."""
    return pairs(release, group)[0]


def pairs(release: SampledGaussian, group: int = 1) -> list[Pair]:
    """What one release may look like, in either direction.

    Args:
        release: Its count does not matter.
        group: How many elements change together, each of which is sampled by itself; 1 under replace-one.
    """
    rate = release.rate
    weights = tuple(math.comb(group, k) * rate**k * (1.0 - rate) ** (group - k) for k in range(group + 1))
    directions: tuple[_Direction, ...] = (
        ("replace",) if release.adjacency == "replace-one" else ("remove", "add")
    )
    return [Pair(noise=release.noise, weights=weights, direction=direction) for direction in directions]


@lru_cache(maxsize=16)
def release_losses(release: SampledGaussian, interval: float, group: int, most: int) -> Any:
    """dp-accounting's ``PrivacyLossDistribution`` of one release.

    Args:
        release: Its count does not matter.
        interval: Of the discretisation.
        group: How many elements change together, each of which is sampled by itself; 1 under replace-one.
        most: Points of the grid.

    Raises:
        TooWideError: There would be more points.
    """
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

    return PrivacyLossDistribution(*(_discretised(pair, interval, most) for pair in pairs(release, group)))


def _discretised(pair: Pair, interval: float, most: int) -> Any:
    from dp_accounting.pld.pld_pmf import DensePLDPmf

    return DensePLDPmf(interval, *on_grid(pair, interval, most), True)


def on_grid(pair: Pair, interval: float, most: int) -> tuple[int, Values, float]:
    """Masses on a grid, such that the divergence is exact on it and above the truth between ("connect the dots").

    Source: Doroshenko et al. (2022), algorithm 1.

    Args:
        pair: Of one release.
        interval: Of the grid.
        most: Points of the grid.

    Returns:
        The first loss in intervals, the masses, and that of an infinite loss.

    Raises:
        TooWideError: There would be more points.
    """
    low, high = pair.bounds()
    first, last = math.floor(low / interval), math.ceil(high / interval)
    if last - first >= most:
        raise TooWideError(f"losses from {low:.3g} to {high:.3g} have {last - first} points")
    grid = np.arange(first, last + 1, dtype=np.float64) * interval
    deltas = np.minimum.accumulate(pair.deltas(grid))
    falls = np.diff(deltas)
    inner = (falls[1:] - math.exp(interval) * falls[:-1]) / math.expm1(interval)
    masses = np.concatenate(
        ([1.0 - deltas[0] + falls[0] / math.expm1(interval)], inner, [falls[-1] / math.expm1(-interval)])
    )
    return first, np.maximum(masses, 0.0), float(deltas[-1])
