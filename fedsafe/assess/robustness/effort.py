"""How hard a tier tries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType

Budget = tuple[int, int]
"""Steps, or queries, and restarts."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard a tier tries.

    Attributes:
        examples: Examples to attack, at most.
        values: Input values to attack, at most, those of an image counted five times; 64 examples in any case.
        steps: Gradient steps of a start, where `own` says nothing.
        restarts: Starts, where `own` says nothing.
        own: Steps and starts of single attacks, by name.
        draws: Random points on the edge that the control tries.
        checked: Examples on which the attacks are held to each other.
        planted: Examples for each of which an adversarial is planted; none where 0.
    """

    examples: int
    values: int = 1 << 18
    steps: int
    restarts: int
    own: Mapping[str, Budget] = field(default_factory=lambda: MappingProxyType({}))
    draws: int = 4
    checked: int = 64
    planted: int = 0

    def budget(self, name: str) -> Budget:
        """Steps and restarts of an attack."""
        return (1, 1) if name == "fgsm" else self.own.get(name, (self.steps, self.restarts))

    def size(self, shape: tuple[int, ...], available: int) -> int:
        """Examples to attack, of those that there are."""
        # A pixel passes through many more multiplications than a column.
        values = prod(shape) * (5 if len(shape) > 1 else 1)
        return min(self.examples, max(64, self.values // values), available)

    def flipped(self, groups: Sequence[Sequence[int]], examples: int) -> int:
        """Examples of which categories are flipped: each is tried with all categories of all columns."""
        categories = max(1, sum(map(len, groups)))
        return min(examples, max(64, self.values // (4 * categories)))


CHEAP = Effort(examples=2000, steps=6, restarts=1, draws=2, checked=16)
FULL = Effort(
    examples=5000,
    values=1 << 20,
    steps=20,
    restarts=4,
    own=MappingProxyType(
        {
            "apgd-ce": (40, 2),
            "apgd-dlr": (40, 2),
            "apgd-t": (20, 1),
            "square": (150, 1),
            "cw-l2": (30, 4),
            "autoattack": (0, 1),
        }
    ),
    planted=8,
)
