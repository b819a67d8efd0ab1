"""When clients are there: public models, functions of a seed and of virtual time alone.

Nothing here reads a record or the noise key. Every draw is `fedsafe.rng.public_generator`'s, so that a killed run meets
the same clients again, and whoever knows the seed may know them too.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import ConfigError
from fedsafe.rng import public_generator

Floats = NDArray[np.float64]


class Schedule(Protocol):
    """When clients are there."""

    @property
    def timed(self) -> bool:
        """Whether it depends on the time at all."""
        ...

    @property
    def span(self) -> float:
        """Seconds after which it repeats itself or ends: an average over these is one over all times."""
        ...

    def share(self, seconds: float, until: Floats, seed: int) -> Floats:
        """``(clients,)`` probabilities that a client is there at a time and stays until it is done.

        Args:
            seconds: The virtual time at which clients are asked.
            until: ``(clients,)`` when each would be done.
            seed: Of the run.
        """
        ...


@dataclass(frozen=True)
class Always:
    """Everybody is always there."""

    timed = False
    span = 0.0

    def share(self, seconds: float, until: Floats, seed: int) -> Floats:
        """Ones."""
        return np.ones(len(until))


@dataclass(frozen=True, kw_only=True)
class Diurnal:
    """There with a probability that follows the time of day: a sinusoid, for each client with a phase of its own.

    A client that is there when it is asked stays until it is done.

    Args:
        low: Least probability.
        high: Greatest probability.
        period: Seconds of a day.
        spread: Over which part of a day the clients' phases are spread evenly at random: 1 is round the globe, 0 is
            one time zone.
    """

    low: float
    high: float
    period: float
    spread: float = 1.0

    timed = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.low <= self.high <= 1.0:
            raise ConfigError(
                f"a client is there with a probability from low = {self.low:g} to high = {self.high:g}: let "
                "0 <= low <= high <= 1"
            )

    @property
    def span(self) -> float:
        """A day."""
        return self.period

    def share(self, seconds: float, until: Floats, seed: int) -> Floats:
        """``low + (high - low) (1 + cos(2 pi (seconds / period - phase))) / 2``."""
        phases = self.spread * public_generator(seed, "availability: phases").random(len(until))
        wave = np.cos(2.0 * np.pi * (seconds / self.period - phases))
        return self.low + (self.high - self.low) * 0.5 * (1.0 + wave)
