"""Measures clients: training on chosen records, in units of the clip that was claimed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsafe.params import Vector
from fedsafe.verify.declared import DeclaredClaim
from fedsafe.verify.node import Node, Trained
from fedsafe.verify.records import Records

Values = NDArray[np.float64]

# So many clips long, in inputs, are records that must be clipped.
_LONG = 20.0
# The model's outputs may move by so much while a client trains, where it is to stay as it was.
_STILL = 0.05


@dataclass(kw_only=True)
class Desk:
    """Clients under test.

    Args:
        node: What is tested.
        claim: What it claims.
        runs: How often a measurement is repeated.
        rng: Of everything that is chosen here.
    """

    node: Node
    claim: DeclaredClaim
    runs: int
    rng: np.random.Generator
    _next: int = 1

    @property
    def few(self) -> int:
        """Repetitions of a measurement of something large."""
        return max(5, self.runs // 8)

    @property
    def records(self) -> int:
        """Of each client."""
        return self.claim.population

    @property
    def first(self) -> slice:
        """Where the weights are that multiply a record."""
        layout, start = self.node.layout, 0
        for shape, size in zip(layout.shapes, layout.sizes, strict=True):
            if len(shape) >= 2:
                return slice(start, start + size)
            start += size
        return slice(0, layout.total)

    @property
    def first_shape(self) -> tuple[int, ...]:
        """Of the weights that multiply a record."""
        return next((shape for shape in self.node.layout.shapes if len(shape) >= 2), ())

    @property
    def deviation(self) -> float:
        """Claimed standard deviation of the noise on the sum of a round's steps, in clips."""
        return self.claim.noise * math.sqrt(self.claim.steps)

    @property
    def length(self) -> float:
        """Norm of a record that must be clipped."""
        return _LONG * max(1.0, self.claim.clip)

    @property
    def learning_rate(self) -> float:
        """One at which the model hardly moves, where it can be chosen."""
        claim = self.claim
        if not self.node.steerable:
            return claim.learning_rate or 1.0
        noise = claim.noise * math.sqrt(self.node.layout.total) / claim.expected
        return _STILL / (self.length * claim.clip * claim.steps * (1.0 + noise))

    def clients(self, count: int) -> list[int]:
        """Clients that were not asked before."""
        fresh = list(range(self._next, self._next + count))
        self._next += count
        return fresh

    def model(self, *, still: bool) -> Vector:
        """The app's initial model; ``still`` with first weights so small that no long record decides anything."""
        model = self.node.initial.copy()
        if still:
            model[self.first] /= np.float32(self.length)
        # Another model each time: noise may be a function of it.
        return (model + self.rng.normal(0.0, 1e-4, model.shape)).astype(np.float32)

    def pattern(self) -> NDArray[np.float32]:
        """``inputs`` of norm one, every value as large as any other."""
        signs = self.rng.choice([-1.0, 1.0], self.node.inputs)
        return (signs / math.sqrt(signs.size)).astype(np.float32)

    def blank(self, records: int | None = None) -> Records:
        """Records of zeros, which move none of the first weights."""
        count = self.records if records is None else records
        return Records(x=np.zeros((count, *self.node.inputs), np.float32), y=np.zeros(count, np.int64))

    def same(self, length: float, label: int, pattern: NDArray[np.float32] | None = None) -> Records:
        """All records the same, and long."""
        chosen = self.pattern() if pattern is None else pattern
        x = np.broadcast_to(chosen * np.float32(length), (self.records, *self.node.inputs))
        return Records(x=np.ascontiguousarray(x), y=np.full(self.records, label, np.int64))

    def train(
        self, records: Records, count: int, *, still: bool = True, model: Vector | None = None, round: int = 1
    ) -> list[Trained]:
        """Fresh clients train on records."""
        sent = self.model(still=still) if model is None else model
        return self.node.train(self.clients(count), round, sent, records, self.learning_rate)

    def sums(self, trained: Sequence[Trained]) -> tuple[Values, str]:
        """``(clients, parameters)`` sums of the steps' clipped gradients and noise in clips, or what went wrong."""
        lost = [one.error for one in trained if one.change is None]
        if lost:
            return np.empty((0, self.node.layout.total)), f"no model: {lost[0]}"
        unit = self.learning_rate * self.claim.clip / self.claim.expected
        rows = np.stack([-one.change / unit for one in trained if one.change is not None])
        return rows, "" if np.isfinite(rows).all() else "a model with values that are not finite"
