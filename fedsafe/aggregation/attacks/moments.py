"""Attacks from the mean and the deviation of the honest rows: small enough to hide, all in one direction."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.attacks.base import ALL_HONEST, Rows, repeated, require_strength


def alie_deviations(replies: int, adversaries: int) -> float:
    """z, how many deviations adversaries can be off and still have a majority nearer than they (Baruch et al., 2019).

    With ``s = floor(n / 2 + 1) - f`` honest supporters needed, z is the normal quantile of ``(n - f - s) / (n - f)``.
    With few adversaries it is negative. Where the share is 0 or 1 (a majority of adversaries), it is taken half an
    honest reply inside, so that z is finite.

    Args:
        replies: n, of all clients.
        adversaries: f, less than n.
    """
    honest = replies - adversaries
    supporters = math.floor(replies / 2 + 1) - adversaries
    share = (honest - supporters) / honest
    return NormalDist().inv_cdf(min(max(share, 0.5 / honest), 1.0 - 0.5 / honest))


@final
@dataclass(frozen=True, kw_only=True)
class Alie:
    """A little is enough: the honest mean, less z deviations of each coordinate (Baruch et al., 2019).

    Args:
        deviations: z; by default the authors' :func:`alie_deviations` of the round's replies.
    """

    deviations: float | None = None
    name: ClassVar[str] = "alie"
    sees: ClassVar[str] = ALL_HONEST

    def __post_init__(self) -> None:
        """Refuse a z that is no number."""
        if self.deviations is not None:
            require_strength(self.name, "deviations", self.deviations, low=-math.inf)

    def __call__(self, honest: Rows, adversaries: int, own: Rows, rng: np.random.Generator) -> Rows:
        """The same row of each: ``mean - z deviation``, of a population as in the authors' code."""
        z = self.deviations
        if z is None:
            z = alie_deviations(len(honest) + adversaries, adversaries)
        return repeated(honest.mean(axis=0) - z * deviation(honest), adversaries)


@final
@dataclass(frozen=True, kw_only=True)
class InnerProductManipulation:
    """The honest mean times ``-scale`` (Xie et al., 2020, who call the factor epsilon).

    A small factor hides among the honest rows from rules that look at distances; a large one turns an average around:
    at ``h / f`` of h honest replies and f others it stands still.

    Args:
        scale: Above 0; by default 0.1, with which the authors defeat Krum.
    """

    scale: float = 0.1
    name: ClassVar[str] = "ipm"
    sees: ClassVar[str] = ALL_HONEST

    def __post_init__(self) -> None:
        """Refuse a factor that manipulates nothing."""
        require_strength(self.name, "scale", self.scale)

    def __call__(self, honest: Rows, adversaries: int, own: Rows, rng: np.random.Generator) -> Rows:
        """The same row of each."""
        return repeated(-self.scale * honest.mean(axis=0), adversaries)


def deviation(honest: Rows) -> NDArray[np.float64]:
    """``(parameters,)`` standard deviation of each coordinate, as of a population."""
    found: NDArray[np.float64] = honest.std(axis=0)
    return found
