"""How accuracy falls under noise and under attack, with the attack's checks on itself."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.attacks import Box, fgsm, pgd, random_corners
from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.data import Examples
from fedsafe.findings import Context, Finding, Scope, not_measured, proportion

Correct = NDArray[np.bool_]

_NOISE = "robustness.noise_accuracy"
_ATTACK = "robustness.attacked_accuracy"

# float32 cannot place a corner better than this, in encoded units of order 1.
_ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard a tier tries.

    Attributes:
        examples: Examples to attack.
        steps: Gradient steps of a start.
        restarts: Starts.
    """

    examples: int
    steps: int
    restarts: int


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Accuracy under Gaussian noise, FGSM and PGD on the numeric features that a person can change.

    Attributes:
        scales: Standard deviations of the noise, in encoded units.
        radii: Radii of the attacks in the maximum norm, in encoded units.
        tolerance: Share of the examples on which an attack may be weaker than a simpler one, or than itself
            at a smaller radius, before it is called unreliable.
        cheap: Effort of the cheap tier.
        full: Effort of the full tier.
    """

    name: ClassVar[str] = "robustness"
    scales: tuple[float, ...] = (0.05, 0.1, 0.25)
    radii: tuple[float, ...] = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
    tolerance: float = 0.01
    cheap: Effort = Effort(examples=2000, steps=8, restarts=2)
    full: Effort = Effort(examples=5000, steps=20, restarts=4)

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Passes of the noise, the control, FGSM and PGD."""
        effort = self._effort(tier)
        n = min(effort.examples, len(subject.evaluation))
        climbs = len(self.radii) * (effort.steps * effort.restarts + 1) * n
        checks = len(self.radii) * 12 * n
        return Cost(
            description=f"noise at {len(self.scales)} scales, PGD at {len(self.radii)} radii, {n} examples",
            examples=n,
            forward=climbs + checks + len(self.scales) * n,
            backward=climbs,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        if not subject.perturbable().any():
            reason = "the schema has no numeric feature that a person can change"
            return [
                not_measured(metric, reason, status="not_applicable", **subject.provenance)
                for metric in (_NOISE, _ATTACK)
            ]
        effort = self._effort(tier)
        examples = subject.sample(effort.examples, rng)
        clean = subject.predict(examples.x) == examples.y
        return self._noise(subject, examples, clean, rng) + self._curve(subject, examples, clean, effort, rng)

    def _effort(self, tier: Tier) -> Effort:
        return self.cheap if tier == "cheap" else self.full

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
        self, subject: Subject, examples: Examples, clean: Correct, effort: Effort, rng: np.random.Generator
    ) -> list[Finding]:
        """The security curve: a robust example withstands all that was tried at this or a smaller radius."""
        findings: list[Finding] = []
        standing = {"fgsm": clean, "pgd": clean}
        for radius in sorted(self.radii):
            found = _attack(subject, examples, radius, effort, rng)
            faults = {name: _faults(subject, examples.x, x, radius) for name, x in found.items()}
            # Counted by the untouched model on the returned input, never by the attack's own word.
            holds = {name: clean & (subject.predict(x) == examples.y) for name, x in found.items()}
            missed = {
                "broken_at_smaller_radius": _share(holds["pgd"] & ~standing["pgd"]),
                "broken_by_fgsm": _share(holds["pgd"] & ~holds["fgsm"]),
                "broken_by_random_corners": _share(holds["pgd"] & ~holds["random"]),
            }
            weak = [check for check, share in missed.items() if share > self.tolerance]
            for name in standing:
                reasons = [f"{count} adversarials {rule}" for rule, count in faults[name].items() if count]
                if not reasons:
                    standing[name] = standing[name] & holds[name]
                if name == "pgd" and weak:
                    named = ", ".join(weak).replace("_", " ")
                    reasons.append(f"PGD missed over {self.tolerance:.0%} of the examples {named}")
                common: Context = {
                    "where": {"attack": name, "norm": "linf", "radius": radius},
                    "bound": "upper",
                    "anchors": {"clean": float(clean.mean())},
                    "diagnostics": {"violations": faults[name], **(missed if name == "pgd" else {})},
                    "detail": _describe(name, effort, subject),
                    "data": subject.evaluation_name,
                    "released": subject.released,
                }
                findings.append(_attacked(standing[name], reasons, common))
        return findings


def _attacked(standing: Correct, reasons: list[str], context: Context) -> Finding:
    n = len(standing)
    if reasons:
        reason = "; ".join(reasons)
        return not_measured(_ATTACK, reason, status="unreliable", n=n, unit="examples", **context)
    return proportion(_ATTACK, int(standing.sum()), n, method="clopper-pearson", **context)


def _share(flags: Correct) -> float:
    return float(flags.mean())


def _attack(
    subject: Subject, examples: Examples, radius: float, effort: Effort, rng: np.random.Generator
) -> dict[str, NDArray[np.float32]]:
    x, y = subject.tensor(examples.x), subject.tensor(examples.y)
    low, high = (subject.tensor(bound) for bound in subject.input_bounds())
    box = Box.around(x, radius, low, high, subject.tensor(subject.perturbable()))
    forward = subject.forward
    found = {
        "fgsm": fgsm(forward, x, y, box),
        "random": random_corners(forward, x, y, box, draws=4, rng=rng),
        "pgd": pgd(forward, x, y, box, steps=effort.steps, restarts=effort.restarts, rng=rng),
    }
    return {name: point.detach().cpu().numpy() for name, point in found.items()}


def _faults(
    subject: Subject, clean: NDArray[np.float32], found: NDArray[np.float32], radius: float
) -> dict[str, int]:
    """How many adversarials break each rule of the threat model; checked on what the attack returned."""
    low, high = subject.input_bounds()
    fixed = ~subject.perturbable()
    moved = np.abs(found.astype(np.float64) - clean)
    outside = (found < np.minimum(low, clean)) | (found > np.maximum(high, clean))
    return {
        "leave the radius": int((moved > radius + _ROUNDING).any(axis=1).sum()),
        "leave the public bounds": int(outside.any(axis=1).sum()),
        "change a fixed feature": int((moved[:, fixed] > 0).any(axis=1).sum()),
        "are not finite": int((~np.isfinite(found)).any(axis=1).sum()),
    }


def _describe(name: str, effort: Effort, subject: Subject) -> dict[str, Any]:
    schema = subject.task.schema
    moved = [n for n, free in zip(schema.feature_names, subject.perturbable(), strict=True) if free]
    tried = {"steps": effort.steps, "restarts": effort.restarts} if name == "pgd" else {"steps": 1}
    return {**tried, "perturbed": moved, "counted": "the worst of the clean input and all smaller radii"}
