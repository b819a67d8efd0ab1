"""Findings of security curves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.robustness.attacks import ATTACKS, remark
from fedsafe.assess.robustness.checks import Unbounded, Verdict
from fedsafe.assess.robustness.curve import Curve, Flags, Target, gradient_attacks
from fedsafe.findings import (
    Bound,
    Evidence,
    Finding,
    Scope,
    clopper_pearson,
    not_measured,
    picture,
    proportion,
)

ATTACKED = "robustness.attacked_accuracy"
UNBOUNDED = "robustness.unbounded_accuracy"
WORST = "worst"

_MOST_NAMES = 50
_MOST_PICTURED = 6
_LARGEST_PICTURE = 64
_ALONE = "the worst of the clean input and all smaller radii"
_TOGETHER = "the worst of the clean input, all smaller radii and the attacks before this one"


class _Common(Scope, total=False):
    """What all findings here have; the evidence is given beside it."""

    bound: Bound
    anchors: Mapping[str, float | None]
    diagnostics: Mapping[str, Any]
    detail: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Reporter:
    """Makes findings of one curve.

    Attributes:
        target: What was attacked.
        rows: ``(n,)`` where the examples are in the evaluation set.
        curve: What withstood.
        alone: Attacks that were tried on every example.
        later: Attacks that were tried on what stood.
        verdicts: Of the checks, by attack.
        unbounded: What withstood without a radius.
        tolerance: Share of the examples that attacks may miss.
        pictures: Whether to draw some.
    """

    target: Target
    rows: NDArray[np.int64]
    curve: Curve
    alone: tuple[str, ...]
    later: tuple[str, ...]
    verdicts: Mapping[str, Verdict]
    unbounded: Unbounded
    tolerance: float
    pictures: bool

    def findings(self) -> list[Finding]:
        """One for each attack and radius, one of the worst case for each radius, and one without a radius."""
        radii = range(len(self.curve.radii))
        found = [self._single(name, at) for at in radii for name in (*self.alone, *self.later)]
        return [*found, *map(self._worst, radii), self._without_bound()]

    def _single(self, name: str, at: int) -> Finding:
        verdict, key = self.verdicts[name], (name, at)
        common = self._common(
            name, at, {**self._described(name), "counted": _ALONE if name in self.alone else _TOGETHER}
        )
        missed = self.curve.missed.get(key, {})
        violations = self.curve.violations.get(key)
        common["diagnostics"] = {
            **({} if violations is None else {"violations": violations}),
            **missed,
            # The checks were made at this radius, and speak for all.
            **(verdict.diagnostics if at == self.curve.focus else {}),
        }
        if key in self.curve.failed:
            return not_measured(ATTACKED, self.curve.broken[key], status="failed", **common)
        reasons = [self.curve.broken[key]] if key in self.curve.broken else []
        weak = [check for check, share in missed.items() if share > self.tolerance]
        if weak:
            named = ", ".join(weak).replace("_", " ")
            reasons.append(f"{_label(name)} missed over {self.tolerance:.0%} of the examples {named}")
        return self._share(self.curve.stands[name][at], [*reasons, *verdict.reasons], common)

    def _worst(self, at: int) -> Finding:
        names = (*self.alone, *self.later)
        detail: dict[str, Any] = {
            "attacks": list(names),
            "table": [self._row(name, at) for name in names],
            "counted": "the worst of the clean input, all attacks and all smaller radii",
        }
        if at == self.curve.focus and self.pictures:
            drawn = self._drawn(at)
            if drawn:
                detail["pictures"] = drawn
        common, stands = self._common(WORST, at, detail), self.curve.worst[at]
        hidden = float((self.curve.ascents[at] & ~stands).mean())
        common["diagnostics"] = {
            "found_without_gradients_alone": hidden,
            "missed_without_bound": self.unbounded.missed,
        }
        reasons = []
        if hidden > self.tolerance and stands.mean() > self.tolerance:
            reasons.append(
                f"attacks without gradients broke {hidden:.1%} of the examples that no gradient broke: the model hides "
                f"its gradients, and a better attack may break more"
            )
        if self.unbounded.missed > self.tolerance + 2 / max(1, len(self.unbounded.rows)):
            reasons.append(
                f"where inputs may be anything, {self.unbounded.missed:.1%} of the examples withstood, though values "
                f"of other records are counterexamples"
            )
        climbs = gradient_attacks([name for name in names if name != "fgsm"])
        if climbs and all(self.verdicts[name].reasons for name in climbs):
            reasons.append("no attack that climbs gradients passed its checks")
        return self._share(stands, reasons, common)

    def _without_bound(self) -> Finding:
        stands = self.unbounded.stands & ~self.unbounded.known
        count = len(stands)
        common: _Common = {
            "where": {"norm": self.curve.norm},
            "bound": "upper",
            "anchors": {"known_counterexamples": float(self.unbounded.known.mean()) if count else None},
            "diagnostics": {"missed_without_bound": self.unbounded.missed},
            "detail": {"curve": self._points(), "counted": "examples that are right as they are"},
            **self.target.subject.provenance,
        }
        if not count:
            reason = "the model gets no example right"
            return not_measured(UNBOUNDED, reason, status="insufficient", n=0, unit="examples", **common)
        if self.unbounded.missed > self.tolerance + 2 / count:
            reason = f"the attacks missed {self.unbounded.missed:.1%} of the examples, whose counterexamples are known"
            return not_measured(UNBOUNDED, reason, status="unreliable", n=count, unit="examples", **common)
        return proportion(UNBOUNDED, int(stands.sum()), count, method="clopper-pearson", **common)

    def _points(self) -> list[dict[str, float]]:
        n = len(self.target.clean)
        counts = [(0.0, int(self.target.clean.sum()))]
        counts += [(radius, int(self.curve.worst[at].sum())) for at, radius in enumerate(self.curve.radii)]
        ends = [clopper_pearson(count, n) for _, count in counts]
        return [
            {"radius": radius, "accuracy": count / n, "low": low, "high": high}
            for (radius, count), (low, high) in zip(counts, ends, strict=True)
        ]

    def _row(self, name: str, at: int) -> dict[str, Any]:
        steps, restarts = self.target.effort.budget(name)
        return {
            "attack": name,
            "steps": steps,
            "restarts": restarts,
            "accuracy": float(self.curve.stands[name][at].mean()),
            "alone": name in self.alone,
            "felled": self.curve.felled.get((name, at), 0),
        }

    def _drawn(self, at: int) -> list[list[dict[str, Any]]]:
        """Clean, change and adversarial of a few examples that fell."""
        subject, examples = self.target.subject, self.target.examples
        shape = examples.x.shape[1:]
        if len(shape) != 3 or max(shape[1:]) > _LARGEST_PICTURE or not subject.shows_records:
            return []
        fell = np.flatnonzero(self.target.clean & ~self.curve.worst[at])[:_MOST_PICTURED]
        classes = subject.task.classes
        low, high = (
            float(bound.min() if side else bound.max())
            for side, bound in zip((1, 0), subject.input_bounds(), strict=True)
        )
        if not len(fell):
            return []
        read = subject.predict(self.curve.points[self._when(at, fell), fell])
        drawn = []
        for row, predicted in zip(fell, read, strict=True):
            clean, point = examples.x[row], self.curve.points[self._when(at, np.array([row]))[0], row]
            drawn.append(
                [
                    picture(f"{classes[examples.y[row]]}, as it is", clean, low=low, high=high),
                    picture("change", point - clean, scale="signed"),
                    picture(f"taken for {classes[predicted]}", point, low=low, high=high),
                ]
            )
        return drawn

    def _when(self, at: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The radius at which each row fell first, which is at most this one."""
        return np.asarray((~self.curve.worst[: at + 1][:, rows]).argmax(axis=0))

    def _common(self, name: str, at: int, detail: Mapping[str, Any]) -> _Common:
        return {
            "where": {"attack": name, "norm": self.curve.norm, "radius": self.curve.radii[at]},
            "bound": "upper",
            "anchors": {"clean": float(self.target.clean.mean())},
            "diagnostics": {},
            "detail": detail,
            **self.target.subject.provenance,
        }

    def _share(self, stands: Flags, reasons: list[str], common: _Common) -> Finding:
        n = len(stands)
        if reasons:
            return not_measured(
                ATTACKED, "; ".join(reasons), status="unreliable", n=n, unit="examples", **common
            )
        evidence = Evidence(rows=self.rows, holds=stands.copy())
        return proportion(
            ATTACKED, int(stands.sum()), n, method="clopper-pearson", evidence=evidence, **common
        )

    def _described(self, name: str) -> dict[str, Any]:
        steps, restarts = self.target.effort.budget(name)
        tried = {"steps": 1} if name == "fgsm" else {"steps": steps, "restarts": restarts}
        said = remark(name, self.target.subject.task.signature.outputs[0])
        return {**tried, **({"remark": said} if said else {}), "perturbed": _moved(self.target.subject)}


def _moved(subject: Subject) -> list[str] | str:
    schema, free = subject.task.schema, subject.perturbable().ravel()
    if free.sum() <= _MOST_NAMES:
        return [name for name, moves in zip(schema.feature_names, free, strict=True) if moves]
    return f"{free.sum()} of {free.size} features"


def _label(name: str) -> str:
    return name.upper() if name in ATTACKS else name
