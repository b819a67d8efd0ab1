"""How accuracy falls under noise and under attack, with the attacks' checks on themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.robustness.attacking import quick
from fedsafe.assess.robustness.attacks import ATTACKS, NEAREST
from fedsafe.assess.robustness.categorical import mutable_groups
from fedsafe.assess.robustness.checks import active_test, climbing, hold_to_each_other, unbounded
from fedsafe.assess.robustness.curve import Curve, Nearest, Target, gradient_attacks
from fedsafe.assess.robustness.effort import CHEAP, FULL, Effort
from fedsafe.assess.robustness.flips import flip_findings
from fedsafe.assess.robustness.nearest import find_nearest, median_distance
from fedsafe.assess.robustness.planning import passes
from fedsafe.assess.robustness.reporting import ATTACKED, Reporter
from fedsafe.errors import ConfigError
from fedsafe.extensions import resolve, unknown_option
from fedsafe.findings import Finding, Scope, not_measured, proportion

_NOISE = "robustness.noise_accuracy"


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Accuracy under noise, under attacks on the numeric features that a person can change, and with lies in others.

    Attributes:
        scales: Standard deviations of the noise, in encoded units.
        radii: Radii of the attacks in the maximum norm, in encoded units.
        l2_radii: Radii in the Euclidean norm; where None, some for images and none for tables.
        attacks: Names, import paths or entry points of attacks, see `fedsafe.assess.robustness.attacks`. Each is tried
            on every example, so that its finding is its own.
        full_attacks: More of them, for the full tier, from cheap to dear. Each is tried on what withstood all before
            it, and its finding is what withstands it and all of these.
        flips: Numbers of categorical columns of a table that an attacker changes.
        tolerance: Share of the examples on which an attack may be weaker than a simpler one, or than itself
            at a smaller radius or with fewer steps, before it is called unreliable. FGSM is the simple one.
        planted: Share of the planted adversarials that an attack must find, in the full tier.
        cheap: Effort of the cheap tier; what a table leaves out stays as it is.
        full: Effort of the full tier, likewise.

    Raises:
        ConfigError: An attack cannot be found, or what it needs is not installed.
    """

    name: ClassVar[str] = "robustness"
    scales: tuple[float, ...] = (0.05, 0.1, 0.25)
    radii: tuple[float, ...] = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
    l2_radii: tuple[float, ...] | None = None
    attacks: tuple[str, ...] = ("fgsm", "pgd")
    full_attacks: tuple[str, ...] = ("apgd-ce", "apgd-t", "cw-l2", "square")
    flips: tuple[int, ...] = (1, 2, 3)
    tolerance: float = 0.01
    planted: float = 0.8
    cheap: Effort | Mapping[str, Any] = CHEAP
    full: Effort | Mapping[str, Any] = FULL

    def __post_init__(self) -> None:
        for name in (*self.attacks, *self.full_attacks):
            resolve("attack", name, ATTACKS)
        for key in ("cheap", "full"):
            table = getattr(self, key)
            wrong = unknown_option(Effort, table) if isinstance(table, Mapping) else ""
            if wrong:
                raise ConfigError(f"robustness.{key}: {wrong}")

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Passes of the noise, the attacks and their checks, as if no example fell before its time."""
        if _unfit(subject):
            return Cost(description=f"nothing: {_unfit(subject)}")
        n, groups = self._size(subject, tier), mutable_groups(subject)
        flipped = self._effort(tier).flipped(groups, n)
        forward, backward = (len(self.scales) + 1) * n, 0
        forward += flipped * (2 + max(self.flips, default=0) * (sum(map(len, groups)) + 1))
        named, curves = set(), self._curves(subject)
        for norm, radii in curves:
            alone, later = self._attacks(tier, norm)
            named |= {*alone, *later}
            outputs = subject.task.signature.outputs[0]
            more, back = passes(self._effort(tier), alone, later, len(radii), n, outputs)
            forward, backward = forward + more, backward + back
        regions = sum(len(radii) for _, radii in curves)
        listed = ", ".join(name for name in (*self.attacks, *self.full_attacks) if name in named)
        return Cost(
            description=f"{len(self.scales)} noises, {listed or 'no attack'} at {regions} radii, {n} examples",
            examples=n,
            forward=forward,
            backward=backward,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        reason = _unfit(subject)
        if reason:
            return [
                not_measured(metric, reason, status="not_applicable", **subject.provenance)
                for metric in (_NOISE, ATTACKED)
            ]
        effort = self._effort(tier)
        rows = subject.shared_rows(self._size(subject, tier))
        examples = subject.evaluation.take(rows)
        target = Target(
            subject=subject,
            quick=quick(subject, examples.x[:16]),
            examples=examples,
            clean=subject.predict(examples.x) == examples.y,
            effort=effort,
            rng=rng,
        )
        findings: list[Finding] = []
        if subject.perturbable().any():
            findings += self._noise(target)
            nearest = {name: find_nearest(target, name) for name in self._nearest(tier)}
            for norm, radii in self._curves(subject):
                findings += self._curve(target, rows, norm, radii, tier, nearest)
            findings += [median_distance(target, name, found) for name, found in nearest.items()]
        flipped = np.arange(effort.flipped(mutable_groups(subject), len(rows)))
        return findings + flip_findings(subject, examples.take(flipped), rows[flipped], self.flips)

    def _effort(self, tier: Tier) -> Effort:
        chosen, default = (self.cheap, CHEAP) if tier == "cheap" else (self.full, FULL)
        return chosen if isinstance(chosen, Effort) else replace(default, **chosen)

    def _size(self, subject: Subject, tier: Tier) -> int:
        return self._effort(tier).size(subject.task.schema.shape, len(subject.evaluation))

    def _curves(self, subject: Subject) -> list[tuple[str, tuple[float, ...]]]:
        l2 = self.l2_radii
        if l2 is None:
            l2 = (0.5, 1.0, 2.0) if len(subject.task.schema.shape) > 1 else ()
        curves = (("linf", self.radii), ("l2", l2))
        return [(norm, radii) for norm, radii in curves if radii and subject.perturbable().any()]

    def _nearest(self, tier: Tier) -> list[str]:
        names = (*self.attacks, *(self.full_attacks if tier == "full" else ()))
        return [name for name in dict.fromkeys(names) if name in NEAREST]

    def _attacks(self, tier: Tier, norm: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Those that are tried on every example, and those that are tried on what stands."""
        alone = tuple(name for name in self.attacks if name not in NEAREST)
        more = (name for name in self.full_attacks if tier == "full" and name not in alone)
        later = dict.fromkeys((*more, *self._nearest(tier)))
        return alone, tuple(name for name in later if norm == "l2" or name not in NEAREST)

    def _noise(self, target: Target) -> list[Finding]:
        subject, x = target.subject, target.examples.x
        low, high = subject.input_bounds()
        findings = []
        for scale in self.scales:
            noise = scale * target.rng.standard_normal(x.shape, dtype=np.float32)
            noisy = np.where(subject.perturbable(), np.clip(x + noise, low, high), x)
            correct = subject.predict(noisy) == target.examples.y
            where: Scope = {"where": {"noise": "gaussian", "scale": scale}, **subject.provenance}
            anchors = {"clean": float(target.clean.mean())}
            findings.append(proportion(_NOISE, int(correct.sum()), len(x), anchors=anchors, **where))
        return findings

    def _curve(
        self,
        target: Target,
        rows: NDArray[np.int64],
        norm: str,
        radii: tuple[float, ...],
        tier: Tier,
        nearest: dict[str, Nearest],
    ) -> list[Finding]:
        """The security curve: a robust example withstands all that was tried at this or a smaller radius."""
        alone, later = self._attacks(tier, norm)
        curve = Curve.over(target, norm, radii)
        curve.everywhere(target, alone)
        for name in later:
            if name in NEAREST:
                curve.nearest(name, nearest[name])
            else:
                curve.remaining(target, name)
        names = (*alone, *later)
        verdicts = hold_to_each_other(target, curve, names, self.tolerance)
        # Attacks that look for the nearest error, and the dear ones, add nothing where nearly everything falls.
        free = unbounded(target, norm, climbing(gradient_attacks(alone)), verdicts, self.tolerance)
        if target.effort.planted:
            active_test(target, curve, names, verdicts, self.planted)
        return Reporter(
            target=target,
            rows=rows,
            curve=curve,
            alone=alone,
            later=later,
            verdicts=verdicts,
            unbounded=free,
            tolerance=self.tolerance,
            pictures=tier == "full",
        ).findings()


def _unfit(subject: Subject) -> str:
    """Why there is nothing to attack; "" where there is."""
    if subject.task.schema.vocabulary is not None:
        return "the inputs are tokens: there is no small change of one"
    if subject.task.kind not in ("binary", "multiclass"):
        return f"accuracy under attack needs one class to predict, and the task is {subject.task.kind}"
    if not subject.perturbable().any() and not mutable_groups(subject):
        return "the schema has no feature that a person can change"
    return ""
