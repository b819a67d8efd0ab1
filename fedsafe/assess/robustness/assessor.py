"""How accuracy falls under noise and under attack, with the attack's checks on itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.robustness.attacking import CONTROL, attack_all, faults
from fedsafe.assess.robustness.attacks import ATTACKS
from fedsafe.data import Examples
from fedsafe.extensions import resolve
from fedsafe.findings import Context, Finding, Scope, not_measured, proportion

Correct = NDArray[np.bool_]

_NOISE = "robustness.noise_accuracy"
_ATTACK = "robustness.attacked_accuracy"

_MOST_NAMES = 50


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard a tier tries.

    Attributes:
        examples: Examples to attack, at most.
        values: Input values to attack, at most, those of an image counted twice; 200 examples in any case.
        steps: Gradient steps of a start.
        restarts: Starts.
    """

    examples: int
    values: int = 1 << 18
    steps: int
    restarts: int


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Accuracy under Gaussian noise and under attacks on the numeric features that a person can change.

    Attributes:
        scales: Standard deviations of the noise, in encoded units.
        radii: Radii of the attacks in the maximum norm, in encoded units.
        l2_radii: Radii in the Euclidean norm; where None, some for images and none for tables.
        attacks: Names, import paths or entry points of attacks, see `fedsafe.assess.robustness.attacks.Attack`.
        tolerance: Share of the examples on which an attack may be weaker than a simpler one, or than itself
            at a smaller radius, before it is called unreliable. FGSM is the simple one.
        cheap: Effort of the cheap tier.
        full: Effort of the full tier.

    Raises:
        ConfigError: An attack cannot be found.
    """

    name: ClassVar[str] = "robustness"
    scales: tuple[float, ...] = (0.05, 0.1, 0.25)
    radii: tuple[float, ...] = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
    l2_radii: tuple[float, ...] | None = None
    attacks: tuple[str, ...] = ("fgsm", "pgd")
    tolerance: float = 0.01
    cheap: Effort = Effort(examples=2000, steps=6, restarts=2)
    full: Effort = Effort(examples=5000, values=1 << 21, steps=20, restarts=4)

    def __post_init__(self) -> None:
        for name in self.attacks:
            resolve("attack", name, ATTACKS)

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Passes of the noise, the control, FGSM and PGD."""
        if _unfit(subject):
            return Cost(description=f"nothing: {_unfit(subject)}")
        effort, n = self._effort(tier), self._size(subject, tier)
        regions = len(self.radii) + len(self._l2(subject))
        climbs = regions * (effort.steps * effort.restarts + 1) * n * max(1, len(self.attacks) - 1)
        checks = regions * 12 * n
        return Cost(
            description=f"{len(self.scales)} noises, {', '.join(self.attacks)} at {regions} radii, {n} examples",
            examples=n,
            forward=climbs + checks + len(self.scales) * n,
            backward=climbs,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        reason = _unfit(subject)
        if reason:
            return [
                not_measured(metric, reason, status="not_applicable", **subject.provenance)
                for metric in (_NOISE, _ATTACK)
            ]
        effort = self._effort(tier)
        examples = subject.sample(self._size(subject, tier), rng)
        clean = subject.predict(examples.x) == examples.y
        findings = self._noise(subject, examples, clean, rng)
        for norm, radii in (("linf", self.radii), ("l2", self._l2(subject))):
            findings += self._curve(subject, examples, clean, norm, radii, effort, rng)
        return findings

    def _effort(self, tier: Tier) -> Effort:
        return self.cheap if tier == "cheap" else self.full

    def _size(self, subject: Subject, tier: Tier) -> int:
        effort, shape = self._effort(tier), subject.task.schema.shape
        # A pixel passes through many more multiplications than a column.
        values = prod(shape) * (2 if len(shape) > 1 else 1)
        size = min(effort.examples, max(200, effort.values // values))
        return min(size, len(subject.evaluation))

    def _l2(self, subject: Subject) -> tuple[float, ...]:
        if self.l2_radii is not None:
            return self.l2_radii
        return (0.5, 1.0, 2.0) if len(subject.task.schema.shape) > 1 else ()

    def _noise(
        self, subject: Subject, examples: Examples, clean: Correct, rng: np.random.Generator
    ) -> list[Finding]:
        low, high = subject.input_bounds()
        findings = []
        for scale in self.scales:
            noise = scale * rng.standard_normal(examples.x.shape, dtype=np.float32)
            noisy = np.where(subject.perturbable(), np.clip(examples.x + noise, low, high), examples.x)
            correct = subject.predict(noisy) == examples.y
            where: Scope = {"where": {"noise": "gaussian", "scale": scale}, **subject.provenance}
            anchors = {"clean": float(clean.mean())}
            findings.append(proportion(_NOISE, int(correct.sum()), len(clean), anchors=anchors, **where))
        return findings

    def _curve(
        self,
        subject: Subject,
        examples: Examples,
        clean: Correct,
        norm: str,
        radii: tuple[float, ...],
        effort: Effort,
        rng: np.random.Generator,
    ) -> list[Finding]:
        """The security curve: a robust example withstands all that was tried at this or a smaller radius."""
        findings: list[Finding] = []
        standing = dict.fromkeys(self.attacks, clean)
        for radius in sorted(radii):
            found = attack_all(
                subject, examples, self.attacks, norm, radius, effort.steps, effort.restarts, rng
            )
            # Counted by the untouched model on the returned input, never by the attack's own word.
            holds = {
                name: clean & (subject.predict(x) == examples.y)
                for name, x in found.items()
                if not isinstance(x, str)
            }
            for name in self.attacks:
                common: Context = {
                    "where": {"attack": name, "norm": norm, "radius": radius},
                    "bound": "upper",
                    "anchors": {"clean": float(clean.mean())},
                    "detail": _describe(name, effort, subject),
                    "data": subject.evaluation_name,
                    "released": subject.released,
                }
                x = found[name]
                if isinstance(x, str):
                    findings.append(not_measured(_ATTACK, x, status="failed", **common))
                    continue
                broken = faults(subject, examples.x, x, norm, radius)
                missed = {} if name == "fgsm" else _missed(name, holds, standing)
                reasons = [f"{count} adversarials {rule}" for rule, count in broken.items() if count]
                if not reasons:
                    standing[name] = standing[name] & holds[name]
                weak = [check for check, share in missed.items() if share > self.tolerance]
                if weak:
                    named = ", ".join(weak).replace("_", " ")
                    label = name.upper() if name in ATTACKS else name
                    reasons.append(f"{label} missed over {self.tolerance:.0%} of the examples {named}")
                common["diagnostics"] = {"violations": broken, **missed}
                findings.append(_attacked(standing[name], reasons, common))
        return findings


def _unfit(subject: Subject) -> str:
    """Why there is nothing to attack; "" where there is."""
    if subject.task.schema.vocabulary is not None:
        return "the inputs are tokens: there is no small change of one"
    if subject.task.kind not in ("binary", "multiclass"):
        return f"accuracy under attack needs one class to predict, and the task is {subject.task.kind}"
    if not subject.perturbable().any():
        return "the schema has no numeric feature that a person can change"
    return ""


def _missed(name: str, holds: Mapping[str, Correct], standing: Mapping[str, Correct]) -> dict[str, float]:
    """Shares of the examples that stand the attack now, and fell to something simpler."""
    missed = {"broken_at_smaller_radius": _share(holds[name] & ~standing[name])}
    if "fgsm" in holds:
        missed["broken_by_fgsm"] = _share(holds[name] & ~holds["fgsm"])
    return {**missed, "broken_by_random_edges": _share(holds[name] & ~holds[CONTROL])}


def _attacked(standing: Correct, reasons: list[str], context: Context) -> Finding:
    n = len(standing)
    if reasons:
        reason = "; ".join(reasons)
        return not_measured(_ATTACK, reason, status="unreliable", n=n, unit="examples", **context)
    return proportion(_ATTACK, int(standing.sum()), n, method="clopper-pearson", **context)


def _share(flags: Correct) -> float:
    return float(flags.mean())


def _describe(name: str, effort: Effort, subject: Subject) -> dict[str, Any]:
    schema, free = subject.task.schema, subject.perturbable().ravel()
    moved: list[str] | str = f"{free.sum()} of {free.size} features"
    if free.sum() <= _MOST_NAMES:
        moved = [n for n, moves in zip(schema.feature_names, free, strict=True) if moves]
    tried = {"steps": 1} if name == "fgsm" else {"steps": effort.steps, "restarts": effort.restarts}
    return {**tried, "perturbed": moved, "counted": "the worst of the clean input and all smaller radii"}
