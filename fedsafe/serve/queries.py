"""Callers who ask for the same record again and again with small changes, as one does who copies or probes a model.

Attacks that only see answers, and copies by walking along a decision boundary, need many inputs that are close to each
other; records of different people are not (Chen, Carlini and Wagner, 2020; Juuti et al., 2019). For each caller the
newest inputs are kept as short random projections, never as they are. How often two unrelated records come that close
is measured on the public reference, and an alarm is raised at a count that a window of unrelated records reaches with
a stated probability at most.
"""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fedsafe.errors import ConfigError
from fedsafe.rng import public_generator
from fedsafe.serve.detectors.base import Floats
from fedsafe.serve.detectors.distances import squared_distances

_WIDTH = 16
_CLOSE = 1e-3  # share of unrelated pairs that count as close, at most
_SAMPLE = 1000


@dataclass
class _Window:
    sketches: Floats
    norms: Floats
    filled: int = 0
    at: int = 0


class QueryPatterns:
    """Counts near-duplicates among the newest queries of each caller; memory is bounded.

    Args:
        reference: ``(n, *inputs)`` public records of different people, at least 50.
        window: Queries of a caller that are remembered.
        chance: Probability at most that a query of a caller who asks for unrelated records raises an alarm.
        callers: That are remembered; whoever was silent for longest is forgotten.
        seed: Of the projections.

    Raises:
        ConfigError: Too few records, or a number out of range.
    """

    def __init__(
        self,
        reference: NDArray[np.generic],
        *,
        window: int = 256,
        chance: float = 1e-6,
        callers: int = 1024,
        seed: int = 0,
    ) -> None:
        flat = np.asarray(reference, np.float32).reshape(len(reference), -1)
        if len(flat) < 50 or not 8 <= window <= 65536 or not 0.0 < chance < 1.0 or callers < 1:
            raise ConfigError(
                f"query patterns need 50 public records, a window from 8 to 65536, a chance between 0 and 1 and a "
                f"caller: got {len(flat)}, {window}, {chance}, {callers}"
            )
        rng = public_generator(seed, "query patterns")
        self._directions = np.asarray(
            rng.standard_normal((flat.shape[1], _WIDTH)) / np.sqrt(_WIDTH), np.float32
        )
        self._window, self._most = window, callers
        self._callers: OrderedDict[str, _Window] = OrderedDict()
        rows = rng.permutation(len(flat))[: 2 * _SAMPLE]
        one, other = np.array_split(flat[rows] @ self._directions, 2)
        apart = squared_distances(one, other)
        # Half the distance that few of the unrelated pairs are within.
        self.close = max(float(np.quantile(apart, _CLOSE)) / 4.0, 1e-4 * float(np.median(apart)), 1e-12)
        # Common kinds of records are close to more others than rare ones are: the average alone would accuse them.
        often = ((apart <= self.close).sum(axis=1) + 1.0) / (len(other) + 1.0)
        limits = np.arange(1, window + 1)
        exceeded = stats.binom.sf(limits[:, None] - 1, window, often[None, :]).mean(axis=1)
        self.limit = int(limits[exceeded <= chance][0]) if (exceeded <= chance).any() else window + 1
        """Close queries in the window from which on there is an alarm."""

    def __len__(self) -> int:
        """Callers that are remembered."""
        return len(self._callers)

    def counts(self, x: NDArray[np.generic], caller: str) -> NDArray[np.int64]:
        """Remember queries, and count for each the close ones before it.

        Args:
            x: ``(n, *inputs)`` in the order in which they were asked.
            caller: Who asks.

        Returns:
            ``(n,)`` counts within the window.
        """
        sketches = np.asarray(x, np.float32).reshape(len(x), -1) @ self._directions
        own = self._callers.get(caller)
        if own is None:
            own = self._callers[caller] = _Window(
                np.zeros((self._window, _WIDTH), np.float32), np.zeros(self._window, np.float32)
            )
            if len(self._callers) > self._most:
                self._callers.popitem(last=False)
        self._callers.move_to_end(caller)
        found = np.zeros(len(sketches), np.int64)
        for start in range(0, len(sketches), self._window):
            part = sketches[start : start + self._window]
            found[start : start + len(part)] = self._count(own, part)
        return found

    def _count(self, own: _Window, part: Floats) -> NDArray[np.int64]:
        count = np.zeros(len(part), np.int64)
        if own.filled:
            kept, norms = own.sketches[: own.filled], own.norms[: own.filled]
            count += (squared_distances(part, kept, norms) <= self.close).sum(axis=1)
        if len(part) > 1:
            near = squared_distances(part, part) <= self.close
            count += np.tril(near, -1).sum(axis=1)
        place = (own.at + np.arange(len(part))) % self._window
        own.sketches[place], own.norms[place] = part, np.square(part).sum(axis=1)
        own.at = int((own.at + len(part)) % self._window)
        own.filled = min(self._window, own.filled + len(part))
        return count

    def alarms(self, x: NDArray[np.generic], caller: str) -> NDArray[np.bool_]:
        """``(n,)`` whether a query's count reaches the limit; see `counts`."""
        return self.counts(x, caller) >= self.limit
