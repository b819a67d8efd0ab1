"""What a client sends under distributed differential privacy: whole numbers, with a share of the noise.

Source: Kairouz, Liu and Steinke (2021) for discrete Gaussian shares, Agarwal, Kairouz and Liu (2021) for Skellam ones.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import CalibrationError, ConfigError
from fedsafe.privacy.mechanisms.discrete_gaussian import discrete_gaussian
from fedsafe.privacy.mechanisms.grid import Grid
from fedsafe.privacy.mechanisms.modular import finest_bits, wrap
from fedsafe.privacy.mechanisms.rotation import rotate, rotated_length
from fedsafe.privacy.mechanisms.rounding import round_at_random, rounded_norm, rounded_sum
from fedsafe.privacy.mechanisms.skellam import skellam
from fedsafe.rng import Stream

Law = Literal["discrete gaussian", "skellam"]
LAWS: tuple[Law, ...] = ("discrete gaussian", "skellam")

# Sums of shares as wide as this are discrete Gaussian but for one part in 10^17.
_LEAST_SHARE = 2
# Leaves room for what rounding adds, below what the samplers can draw.
_MOST_SHARE = {"discrete gaussian": 2.0**22, "skellam": 2.0**15}
_MOST_BITS = 40


@dataclass(frozen=True, kw_only=True)
class DistributedMechanism:
    """Clip, rotate, round, add a share of noise, reduce modulo a power of two.

    The noise of a round is what the honest survivors add together. It is a multiple of the bound on the norm of a
    *rounded* update, which is a little above the clip.

    Args:
        clip: Bound on one update's norm, all tensors together.
        noise: Noise multiplier: deviation of the shares of all honest survivors, over the bound on a rounded update.
        bits: The grid is ``2^-bits``.
        modulus: Bits of the sum.
        minimum: Clients that must survive.
        corrupt: Clients, of those, whose shares the adversary may know.
        law: ``"discrete gaussian"`` or ``"skellam"``.
        rotated: Whether updates are spread by a public rotation: flat ones need fewer bits.

    Raises:
        ConfigError: A number is out of range.
    """

    clip: float
    noise: float
    bits: int
    modulus: int
    minimum: int
    corrupt: int = 0
    law: Law = "discrete gaussian"
    rotated: bool = True

    def __post_init__(self) -> None:
        """Refuse what no noise would be left of."""
        if self.law not in LAWS:
            raise ConfigError(
                f"law = {self.law!r} of distributed noise: it is {' or '.join(map(repr, LAWS))}"
            )
        if not 2 <= self.modulus <= 62:
            raise ConfigError(f"modulus = {self.modulus!r} of distributed noise: it is from 2 to 62 bits")
        if not 0 <= self.corrupt < self.minimum:
            raise ConfigError(
                f"corrupt = {self.corrupt!r} of minimum = {self.minimum!r} clients leaves no honest one: raise minimum"
            )

    @property
    def honest(self) -> int:
        """Clients whose shares are counted on."""
        return self.minimum - self.corrupt

    def on_finest_grid(self, clients: int) -> "DistributedMechanism":
        """The same on the finest grid that the modulus and the samplers hold.

        Args:
            clients: The most that can be summed.
        """
        fits = finest_bits(
            self.modulus, clip=self.clip, clients=clients, noise=self.noise, honest=self.honest
        )
        share = self.noise * self.clip / math.sqrt(self.honest)
        drawn = math.floor(math.log2(_MOST_SHARE[self.law] / share)) if share else _MOST_BITS
        return replace(self, bits=min(_MOST_BITS, fits, drawn))

    def length(self, parameters: int) -> int:
        """Values that a client sends for so many parameters."""
        return rotated_length(parameters) if self.rotated else parameters

    def bound(self, parameters: int) -> float:
        """On the Euclidean norm of a rounded update, in units of the grid."""
        return rounded_norm(math.ldexp(self.clip, self.bits), self.length(parameters))

    def sum_bound(self, parameters: int) -> float:
        """On the sum of its absolute values, in units of the grid."""
        return rounded_sum(self.bound(parameters), self.length(parameters))

    def share(self, parameters: int) -> int:
        """Deviation of one client's noise in units of the grid: a whole number, rounded up; 0 without noise.

        Raises:
            CalibrationError: The grid is too coarse for the noise.
        """
        if self.noise == 0.0:
            return 0
        share = self.noise * self.bound(parameters) / math.sqrt(self.honest)
        if share < _LEAST_SHARE:
            raise CalibrationError(
                f"a share of noise of {share:.2g} units of a grid of 2^-{self.bits} is less than {_LEAST_SHARE}: "
                f"raise modulus = {self.modulus}, or the noise"
            )
        return math.ceil(share)

    def sent(self, clipped: NDArray[np.float64], stream: Stream) -> Grid:
        """``(length,)`` what one client sends, modulo ``2^modulus``.

        Args:
            clipped: ``(parameters,)`` its update, of a norm of at most ``clip``.
            stream: Of its own.
        """
        parameters = len(clipped)
        spread = rotate(clipped) if self.rotated else clipped
        whole = round_at_random(np.ldexp(spread, self.bits), self.bound(parameters), stream)
        share = self.share(parameters)
        if share and self.law == "skellam":
            whole = whole + skellam(stream, len(whole), share)
        elif share:
            whole = whole + discrete_gaussian(stream, len(whole), share)
        return wrap(whole, self.modulus)
