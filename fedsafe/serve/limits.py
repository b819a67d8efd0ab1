"""What a service takes at most: bytes, instances, instances of a caller in a second, and instances that wait."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from fedsafe.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a service.

    Attributes:
        body: Bytes of a request.
        batch: Instances of a request.
        explained: Instances of a request for explanations, each of which takes many forward passes.
        rate: Instances that a caller may ask for in a second, on average; a second's worth may come at once. A KiB of a
            body counts as an instance at least, and an explained instance as many as it takes passes.
        queue: Instances that wait for the model: once there are so many, what comes on top is refused at once, so that
            those who wait are answered in time. Where several callers wait, each has an equal part of it.
        held: Bytes of the bodies that are being received or read, of all requests together; one caller's at most half.
        seconds: That the body of a request may take to arrive.

    Raises:
        ConfigError: One is not positive.
    """

    body: int = 1 << 20
    batch: int = 256
    explained: int = 8
    rate: float = 5000.0
    queue: int = 256
    held: int = 1 << 26
    seconds: float = 10.0

    def __post_init__(self) -> None:
        for name in ("body", "batch", "explained", "rate", "queue", "held", "seconds"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"the limit {name} = {value!r}: give a positive number")
        if self.batch > self.rate or self.body > self.held:
            raise ConfigError(
                f"a batch of {self.batch} and a body of {self.body} bytes could never be answered with a rate of "
                f"{self.rate:g} and {self.held} bytes in all: lower --batch or --body, or raise the others"
            )


class Rates:
    """A token bucket for each caller.

    Args:
        rate: Tokens in a second; as many are there at first.
        clock: Seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, caller: str, cost: int) -> float:
        """Takes tokens of a caller.

        Args:
            caller: One of the names of the key file: their number is bounded.
            cost: How many.

        Returns:
            0 where they were there, and otherwise the seconds until they will be: nothing is taken then.
        """
        now = self._clock()
        left, seen = self._left.get(caller, (self._rate, now))
        left = min(self._rate, left + (now - seen) * self._rate)
        if left < cost:
            self._left[caller] = (left, now)
            return (cost - left) / self._rate
        self._left[caller] = (left - cost, now)
        return 0.0
