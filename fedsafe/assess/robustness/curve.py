"""Security curves: which examples withstand which attack at which radius of a norm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.robustness.attacking import CONTROL, Inputs, faults, run_attack
from fedsafe.assess.robustness.attacks import NEAREST, WITHOUT_GRADIENTS
from fedsafe.assess.robustness.effort import Effort
from fedsafe.data import Examples

Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The nearest errors that an attack found.

    Attributes:
        points: ``(n, *inputs)``; the clean input where there is none.
        distances: ``(n,)`` Euclidean, in encoded units; infinite where none was found, and 0 for an example that the
            model gets wrong as it is.
        broken: Why they cannot be believed; "" where they can.
    """

    points: Inputs
    distances: NDArray[np.float64]
    broken: str


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is attacked.

    Attributes:
        subject: The untouched subject, which judges what an attack returns.
        quick: The same with a model that is quicker to attack.
        examples: What is attacked.
        clean: ``(n,)`` which of them the model gets right.
        effort: How hard.
        rng: The only source of randomness.
    """

    subject: Subject
    quick: Subject
    examples: Examples
    clean: Flags
    effort: Effort
    rng: np.random.Generator

    def attack(
        self,
        name: str,
        norm: str,
        radius: float,
        rows: NDArray[np.int64],
        budget: tuple[int, int] | None = None,
    ) -> Inputs | str:
        """What an attack makes of some of the examples, see `run_attack`."""
        steps, restarts = (self.effort.budget(name)) if budget is None else budget
        chosen = self.examples.take(rows)
        return run_attack(self.quick, chosen, name, norm, radius, steps, restarts, self.rng)

    def errs(self, points: Inputs, rows: NDArray[np.int64]) -> Flags:
        """Whether the untouched model errs on inputs made of these rows."""
        return np.asarray(self.subject.predict(points) != self.examples.y[rows])


@dataclass(kw_only=True)
class Curve:
    """What withstands at each radius; every array is ``(radii, n)`` and falls with the radius.

    Attributes:
        norm: "linf" or "l2".
        radii: In rising order.
        stands: What withstands each attack; for one that was tried only where all before it failed, what withstands it
            and all before it.
        worst: What withstands everything.
        ascents: What withstands all attacks that use gradients.
        points: ``(radii, n, *inputs)`` the adversarial that felled an example; else the clean input.
        broken: Reason by attack and radius, where an attack failed or left the threat model.
        failed: Attack and radius of those that failed.
        violations: Counts by rule, by attack and radius.
        missed: Shares of the examples that a simpler attempt felled and the attack did not, by attack and radius.
        felled: How many examples each attack was the first to fell, by attack and radius.
    """

    norm: str
    radii: tuple[float, ...]
    stands: dict[str, Flags] = field(default_factory=dict)
    worst: Flags
    ascents: Flags
    points: Inputs
    broken: dict[tuple[str, int], str] = field(default_factory=dict)
    failed: set[tuple[str, int]] = field(default_factory=set)
    violations: dict[tuple[str, int], Mapping[str, int]] = field(default_factory=dict)
    missed: dict[tuple[str, int], dict[str, float]] = field(default_factory=dict)
    felled: dict[tuple[str, int], int] = field(default_factory=dict)

    @classmethod
    def over(cls, target: Target, norm: str, radii: Sequence[float]) -> "Curve":
        """A curve before any attack."""
        rising = tuple(sorted(radii))
        flat = np.repeat(target.clean[None], len(rising), axis=0)
        points = np.repeat(target.examples.x[None], len(rising), axis=0)
        return cls(norm=norm, radii=rising, worst=flat, ascents=flat.copy(), points=points)

    @property
    def focus(self) -> int:
        """The radius at which about half of what was right withstands: where attacks differ most."""
        shares = self.worst.mean(axis=1)
        return int(np.abs(shares - self.worst[0].mean() / 2).argmin())

    def everywhere(self, target: Target, names: Sequence[str]) -> None:
        """Tries attacks, and a control, at every radius on every example that the model gets right."""
        rows = np.flatnonzero(target.clean)
        for name in (*names, CONTROL):
            self.stands[name] = self.worst[:, :] & False
        for at, radius in enumerate(self.radii):
            holds = {}
            for name in (*names, CONTROL):
                before = self.stands[name][at - 1] if at else target.clean
                self.stands[name][at] = before
                budget = (target.effort.draws, 1) if name == CONTROL else None
                points = target.attack(name, self.norm, radius, rows, budget)
                fell = self._judged(target, name, at, points, rows)
                if fell is None:
                    continue
                holds[name] = target.clean.copy()
                holds[name][rows[fell]] = False
                if not self._faulty(name, at):
                    self.stands[name][at] &= holds[name]
                    self._fell(name, at, rows[fell], points, fell)
                self.missed[name, at] = _missed(name, holds, before)
            for name in holds:
                if name not in ("fgsm", CONTROL):
                    self.missed[name, at]["broken_by_random_edges"] = _share(holds[name] & ~holds[CONTROL])

    def remaining(self, target: Target, name: str) -> None:
        """Tries an attack on what still stands, from the largest radius down.

        An example that withstands it at one radius is not tried at smaller ones. So each is tried hard once.
        """
        settled = np.zeros(len(target.clean), bool)
        for at in reversed(range(len(self.radii))):
            rows = np.flatnonzero(self.worst[at] & ~settled)
            points = target.attack(name, self.norm, self.radii[at], rows)
            fell = self._judged(target, name, at, points, rows)
            settled[rows] = True
            if fell is None or self._faulty(name, at):
                continue
            self._fell(name, at, rows[fell], points, fell)
            settled[rows[fell]] = False
        self.stands[name] = self.worst.copy()

    def nearest(self, name: str, found: Nearest) -> None:
        """Takes account of the nearest error of each example."""
        for at, radius in enumerate(self.radii):
            if found.broken:
                self.broken[name, at] = found.broken
                continue
            rows = np.flatnonzero(self.worst[at] & (found.distances <= radius))
            self._fell(name, at, rows, found.points[rows], np.ones(len(rows), bool))
        self.stands[name] = self.worst.copy()

    def _judged(
        self, target: Target, name: str, at: int, points: Inputs | str, rows: NDArray[np.int64]
    ) -> Flags | None:
        """Counted by the untouched model on the returned inputs, never by the attack's own word."""
        if isinstance(points, str):
            self.broken[name, at] = points
            self.failed.add((name, at))
            return None
        counts = faults(target.subject, target.examples.x[rows], points, self.norm, self.radii[at])
        self.violations[name, at] = counts
        if any(counts.values()):
            named = "; ".join(f"{count} adversarials {rule}" for rule, count in counts.items() if count)
            self.broken[name, at] = named
        return target.errs(points, rows) if len(rows) else np.zeros(0, bool)

    def _faulty(self, name: str, at: int) -> bool:
        return any(self.violations.get((name, at), {}).values())

    def _fell(self, name: str, at: int, rows: NDArray[np.int64], points: Inputs | str, fell: Flags) -> None:
        new = self.worst[at][rows]
        self.felled[name, at] = self.felled.get((name, at), 0) + int(new.sum())
        self.points[at][rows[new]] = np.asarray(points)[fell][new]
        self.worst[at:, rows] = False
        if name not in WITHOUT_GRADIENTS and name != CONTROL:
            self.ascents[at:, rows] = False


def _missed(name: str, holds: Mapping[str, Flags], before: Flags) -> dict[str, float]:
    """Shares of the examples that withstand the attack now, and fell to something simpler."""
    if name in ("fgsm", CONTROL):
        return {}
    missed = {"broken_at_smaller_radius": _share(holds[name] & ~before)}
    if "fgsm" in holds:
        missed["broken_by_fgsm"] = _share(holds[name] & ~holds["fgsm"])
    return missed


def _share(flags: Flags) -> float:
    return float(flags.mean())


def gradient_attacks(names: Sequence[str]) -> list[str]:
    """Those of the attacks that climb within a radius."""
    return [name for name in names if name not in WITHOUT_GRADIENTS | NEAREST | {CONTROL}]
