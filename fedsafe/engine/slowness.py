"""How slow each client is: one factor for the whole run, a function of the seed."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedsafe.engine.schedules import Floats
from fedsafe.rng import public_generator


class Slowness(Protocol):
    """How many times as long as at normal speed each client takes."""

    def factors(self, clients: int, seed: int) -> Floats:
        """``(clients,)`` factors, the same for the whole run."""
        ...


@dataclass(frozen=True)
class EqualSpeed:
    """Everybody is as fast."""

    def factors(self, clients: int, seed: int) -> Floats:
        """Ones."""
        return np.ones(clients)


@dataclass(frozen=True)
class LognormalSpeed:
    """``exp(sigma z)``: half of the clients are faster than normal, half slower.

    Args:
        sigma: Standard deviation of the logarithm.
    """

    sigma: float

    def factors(self, clients: int, seed: int) -> Floats:
        """Log-normal draws of median 1."""
        normal = public_generator(seed, "availability: speed").standard_normal(clients)
        factors: Floats = np.exp(self.sigma * normal)
        return factors


@dataclass(frozen=True)
class ParetoSpeed:
    """``(1 - u)^(-1/alpha)``: nobody is faster than normal, and few are very much slower.

    Args:
        alpha: Shape; the smaller, the heavier the tail.
    """

    alpha: float

    def factors(self, clients: int, seed: int) -> Floats:
        """Pareto draws of least value 1."""
        uniform = public_generator(seed, "availability: speed").random(clients)
        factors: Floats = (1.0 - uniform) ** (-1.0 / self.alpha)
        return factors
