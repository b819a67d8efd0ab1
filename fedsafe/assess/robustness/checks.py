"""Whether the attacks can be believed: what Carlini et al. (2019) ask of an evaluation, and the active test.

* more steps are never weaker than fewer, many never weaker than one, and gradients never weaker than their absence;
* where inputs may be anything within their public bounds, every example falls for which a counterexample is known: the
  values of some other record, which the model puts into another class; and where one is known, the gradient is not 0;
* planted adversarials are found (`fedsafe.assess.robustness.planted`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.robustness.attacking import CONTROL, whole_radius
from fedsafe.assess.robustness.attacks import ATTACKS, NEAREST, WHOLE, WITHOUT_GRADIENTS
from fedsafe.assess.robustness.curve import Curve, Flags, Target, gradient_attacks
from fedsafe.assess.robustness.planted import Planted, plant
from fedsafe.assess.robustness.search import ascend, margin

# Fewer planted adversarials say nothing, and so do fewer examples.
_FEWEST = 5
_OTHERS = 8


@dataclass(kw_only=True)
class Verdict:
    """What the checks say of one attack, at every radius of a norm.

    Attributes:
        reasons: Why it cannot be believed; none where it can.
        diagnostics: What was counted.
    """

    reasons: list[str] = field(default_factory=list)
    diagnostics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Unbounded:
    """What withstands where inputs may be anything within their public bounds.

    Attributes:
        stands: ``(rows,)`` what withstands all attacks.
        known: ``(rows,)`` for which another record's values are a counterexample.
        rows: Of the examples.
    """

    stands: Flags
    known: Flags
    rows: NDArray[np.int64]

    @property
    def missed(self) -> float:
        """Share of the examples that withstand although a counterexample is known."""
        return float((self.stands & self.known).mean()) if len(self.rows) else 0.0


def hold_to_each_other(
    target: Target, curve: Curve, names: Sequence[str], tolerance: float
) -> dict[str, Verdict]:
    """Runs each attack once more on a few examples, with fewer steps, and beside attacks without gradients.

    Args:
        target: What is attacked.
        curve: What is known by now.
        names: Of the attacks.
        tolerance: Share of the examples, beside two of them, that a stronger attack may miss.
    """
    verdicts = {name: Verdict() for name in names}
    rows = np.flatnonzero(target.clean)[: target.effort.checked]
    if len(rows) < _FEWEST:
        return verdicts
    at = curve.focus
    radius = curve.radii[at]

    def holds(name: str, budget: tuple[int, int] | None = None) -> Flags:
        points = target.attack(name, curve.norm, radius, rows, budget)
        return np.ones(len(rows), bool) if isinstance(points, str) else ~target.errs(points, rows)

    free = {name: holds(name) for name in names if name in WITHOUT_GRADIENTS}
    free[CONTROL] = curve.stands[CONTROL][at][rows]
    for name in gradient_attacks(names):
        if name == "fgsm" or name in WHOLE:
            continue
        steps, restarts = target.effort.budget(name)
        own, few = holds(name), holds(name, (max(1, steps // 3), restarts))
        missed = {"fewer_steps": own & ~few}
        if "fgsm" in curve.stands:
            missed["fgsm"] = own & ~curve.stands["fgsm"][at][rows]
        missed |= {other.replace(" ", "_"): own & ~stands for other, stands in free.items()}
        verdict = verdicts[name]
        for other, flags in missed.items():
            verdict.diagnostics[f"missed_beside_{other}"] = {
                "examples": len(rows),
                "missed": int(flags.sum()),
            }
            if flags.mean() > tolerance + 2 / len(rows):
                said = other.replace("_", " ")
                verdict.reasons.append(
                    f"{_label(name)} missed {flags.sum()} of {len(rows)} examples broken by {said}"
                )
    return verdicts


def unbounded(
    target: Target, norm: str, names: Sequence[str], verdicts: dict[str, Verdict], tolerance: float
) -> Unbounded:
    """Attacks a few examples where nothing but the public bounds and the fixed features holds.

    Args:
        target: What is attacked.
        norm: "linf" or "l2".
        names: Of the attacks to try.
        verdicts: Told of attacks that miss known counterexamples.
        tolerance: Share of the examples, beside two of them, that an attack may miss.
    """
    rows = np.flatnonzero(target.clean)[: target.effort.checked]
    known = _known(target, rows)
    stands = np.ones(len(rows), bool)
    for name in (*names, CONTROL):
        budget = (target.effort.draws, 1) if name == CONTROL else None
        points = target.attack(name, norm, whole_radius(target.subject, norm), rows, budget)
        if isinstance(points, str) or not len(rows):
            continue
        own = ~target.errs(points, rows)
        stands &= own
        if name not in verdicts:
            continue
        missed = own & known
        verdicts[name].diagnostics["missed_without_bound"] = {
            "examples": len(rows),
            "missed": int(missed.sum()),
        }
        if name == "fgsm":
            # One long step may miss what gradients show; it may not be believed where there is none to follow.
            blind = known & _flat(target, rows)
            if blind.mean() > tolerance + 2 / len(rows):
                verdicts[name].reasons.append(
                    f"{_label(name)} has no gradient to follow on {blind.sum()} of {len(rows)} examples, though values "
                    f"of other records are counterexamples"
                )
        elif missed.mean() > tolerance + 2 / len(rows):
            verdicts[name].reasons.append(
                f"{_label(name)} missed {missed.sum()} of {len(rows)} examples where inputs may be anything, though "
                f"values of other records are counterexamples"
            )
    return Unbounded(stands=stands, known=known, rows=rows)


def active_test(
    target: Target, curve: Curve, names: Sequence[str], verdicts: dict[str, Verdict], least: float
) -> None:
    """Plants adversarials, and tells the verdicts of attacks that do not find them.

    Args:
        target: What is attacked.
        curve: Whose radius is taken where attacks differ most.
        names: Of the attacks.
        verdicts: Told what was found.
        least: Share of the planted adversarials that an attack must find.
    """
    rows = np.flatnonzero(target.clean)[: target.effort.planted]
    tried = [name for name in names if name not in WHOLE]
    if not len(rows) or not tried:
        return
    budgets = {name: target.effort.budget(name) for name in tried} | {CONTROL: (target.effort.draws, 1)}
    planted = plant(
        target.quick,
        target.examples.take(rows),
        tried,
        curve.norm,
        curve.radii[curve.focus],
        budgets,
        target.rng,
    )
    for name in tried:
        _judge(verdicts[name], name, planted, least)


def _judge(verdict: Verdict, name: str, planted: Planted, least: float) -> None:
    found = planted.found[name]
    verdict.diagnostics["planted"] = {
        "planted": planted.tried,
        "found": found,
        "found_at_random": planted.found[CONTROL],
    }
    # Random search may miss what is there: it is tried for what gradients hide, and its share is only told.
    if name not in WITHOUT_GRADIENTS and planted.tried >= _FEWEST and found < least * planted.tried:
        verdict.reasons.append(f"{_label(name)} found {found} of {planted.tried} planted adversarials")


def _flat(target: Target, rows: NDArray[np.int64]) -> Flags:
    """Where no free value moves the margin, as far as the gradient says."""
    quick, examples = target.quick, target.examples.take(rows)
    x, y = quick.tensor(examples.x), quick.tensor(examples.y)
    gradient = ascend(quick.forward, x, y, margin).gradient.cpu().numpy()
    moved = (gradient != 0) & target.subject.perturbable()
    return np.asarray(~moved.reshape(len(rows), -1).any(axis=1))


def _known(target: Target, rows: NDArray[np.int64]) -> Flags:
    """Whether a record that the model puts into another class lends its free values to a counterexample."""
    x, free = target.examples.x, target.subject.perturbable()
    known = np.zeros(len(rows), bool)
    if not len(rows):
        return known
    predicted = target.subject.predict(x)
    for shift in range(_OTHERS):
        donors = np.empty(len(rows), np.int64)
        for place, row in enumerate(rows):
            others = np.flatnonzero(predicted != target.examples.y[row])
            donors[place] = others[(place + shift) % len(others)] if len(others) else row
        known |= target.errs(np.where(free, x[donors], x[rows]), rows)
    return known


def _label(name: str) -> str:
    return name.upper() if name in ATTACKS else name


def climbing(names: Sequence[str]) -> list[str]:
    """Attacks that are tried where nothing bounds them: not those that look for the nearest error."""
    return [name for name in names if name not in NEAREST | WHOLE]
