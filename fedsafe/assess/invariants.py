"""What must hold between findings, whoever made them: checked once all assessors have run.

On every example, what is certified at a size withstands each attack at that size and at any smaller one, what
withstands an attack is right without one, and what withstands it at a size does so at every smaller size. The groups of
an attribute hold every example once. A finding that breaks a rule is unreliable, whatever its value; the others say on
how many examples they were held to which.

No rule is about certificates of one method at two sizes: one that proves nothing at a small size, and something at a
larger one, is loose and not wrong. A smoothed classifier is not the model that was attacked, and is held to nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.findings import BRACKET, Evidence, Finding, is_sized, is_smoothed

Flags = NDArray[np.bool_]
Place = tuple[str, int]

_CLEAN = "performance.accuracy"
_OF_EVERYBODY = ("fairness.accuracy", "fairness.selection_rate")
_RULES = {
    "certified_below_attacked": "certified, and broken by an attack that is no larger",
    "certified_below_clean": "certified, and wrong as they are",
    "attacked_below_clean": "standing under attack, and wrong as they are",
    "falls_with_radius": "standing under attack, and broken by the same attack at a smaller radius",
    "groups_add_up": "in no group of the attribute, or in two",
}


@dataclass
class _Held:
    """What became of one finding."""

    examples: dict[str, int] = field(default_factory=dict)
    violations: dict[str, int] = field(default_factory=dict)

    def add(self, rule: str, examples: int, violations: int) -> None:
        if examples:
            self.examples[rule] = max(examples, self.examples.get(rule, 0))
            self.violations[rule] = max(violations, self.violations.get(rule, 0))


@dataclass(frozen=True)
class _Sized:
    """A share under perturbations, with its flags laid out over the evaluation set."""

    place: Place
    finding: Finding
    norm: str
    radius: float
    known: Flags
    holds: Flags

    @property
    def series(self) -> tuple[Any, ...]:
        """What it has in common with itself at another radius."""
        where = {key: entry for key, entry in self.finding.where.items() if key != "radius"}
        return self.finding.metric, frozenset(where.items())


def hold_to_each_other(findings: Mapping[str, Sequence[Finding]], examples: int) -> dict[str, list[Finding]]:
    """Holds the findings of an assessment to each other.

    Args:
        findings: By assessor, of one model and one evaluation set.
        examples: In the evaluation set.

    Returns:
        The same findings in the same order: those that break a rule are unreliable, with the rule and the count as the
        reason; those that were held to a rule have it in their diagnostics; certificates have the shares on the
        examples that they share with attacks, for `fedsafe.findings.brackets`.
    """
    held: dict[Place, _Held] = {}
    sized = _sized(findings, examples)
    certified = [one for one in sized if one.finding.bound == "lower"]
    attacked = [one for one in sized if one.finding.bound == "upper"]
    clean = _clean(findings, examples)
    brackets: dict[Place, dict[str, Any]] = {}
    for one in certified:
        for other in attacked:
            if other.norm == one.norm and other.radius <= one.radius:
                both = one.known & other.known
                _note(held, "certified_below_attacked", both, one.holds & ~other.holds, one, other)
        found = _bracket(one, attacked, clean)
        if found is not None:
            brackets[one.place] = found
    if clean is not None:
        for rule, group in (("certified_below_clean", certified), ("attacked_below_clean", attacked)):
            for one in group:
                _note(held, rule, one.known & clean[0], one.holds & ~clean[1], one)
    for one in attacked:
        for other in attacked:
            if one.series == other.series and other.radius < one.radius:
                _note(
                    held, "falls_with_radius", one.known & other.known, one.holds & ~other.holds, one, other
                )
    _groups(findings, examples, held)
    return {
        name: [
            _judged(finding, held.get((name, position)), brackets.get((name, position)))
            for position, finding in enumerate(group)
        ]
        for name, group in findings.items()
    }


def _sized(findings: Mapping[str, Sequence[Finding]], examples: int) -> list[_Sized]:
    found = []
    for name, group in findings.items():
        for position, finding in enumerate(group):
            line = {"metric": finding.metric, "where": finding.where, "bound": finding.bound}
            if finding.evidence is None or finding.value is None or not is_sized(line):
                continue
            if is_smoothed(finding.where):
                continue
            known, holds = _laid_out(finding.evidence, examples)
            radius = float(finding.where["radius"])
            found.append(_Sized((name, position), finding, str(finding.where["norm"]), radius, known, holds))
    return found


def _clean(findings: Mapping[str, Sequence[Finding]], examples: int) -> tuple[Flags, Flags] | None:
    for group in findings.values():
        for finding in group:
            if finding.metric == _CLEAN and not finding.where and finding.evidence is not None:
                return _laid_out(finding.evidence, examples)
    return None


def _laid_out(evidence: Evidence, examples: int) -> tuple[Flags, Flags]:
    """Which of all examples it knows, and for which it holds: ``(examples,)`` each."""
    known, holds = np.zeros(examples, dtype=bool), np.zeros(examples, dtype=bool)
    known[evidence.rows] = True
    holds[evidence.rows] = evidence.holds
    return known, holds


def _note(held: dict[Place, _Held], rule: str, both: Flags, broken: Flags, *about: _Sized) -> None:
    examples, violations = int(both.sum()), int(np.sum(both & broken))
    for one in about:
        held.setdefault(one.place, _Held()).add(rule, examples, violations)


def _bracket(
    one: _Sized, attacked: Sequence[_Sized], clean: tuple[Flags, Flags] | None
) -> dict[str, Any] | None:
    """Shares on the examples that a certificate has in common with every attack of its norm and radius."""
    same = [other for other in attacked if (other.norm, other.radius) == (one.norm, one.radius)]
    if not same:
        return None
    shared = one.known & np.all([other.known for other in same], axis=0)
    if clean is not None:
        shared = shared & clean[0]
    if not shared.any():
        return None
    standing = np.all([other.holds for other in same], axis=0)
    return {
        "examples": int(shared.sum()),
        "certified": float(one.holds[shared].mean()),
        "attacked": float(standing[shared].mean()),
        "clean": None if clean is None else float(clean[1][shared].mean()),
    }


def _groups(findings: Mapping[str, Sequence[Finding]], examples: int, held: dict[Place, _Held]) -> None:
    """Whether the groups of each attribute hold every example once."""
    parts: dict[tuple[str, str], list[tuple[Place, int]]] = {}
    for name, group in findings.items():
        for position, finding in enumerate(group):
            if finding.metric in _OF_EVERYBODY and set(finding.where) == {"attribute", "group"}:
                key = (finding.metric, str(finding.where["attribute"]))
                parts.setdefault(key, []).append(((name, position), finding.n or 0))
    for found in parts.values():
        off = abs(sum(n for _, n in found) - examples)
        for place, _ in found:
            held.setdefault(place, _Held()).add("groups_add_up", examples, off)


def _judged(finding: Finding, held: _Held | None, bracket: dict[str, Any] | None) -> Finding:
    if held is None:
        return finding
    checks = {
        rule: {"examples": examples, "violations": held.violations[rule]}
        for rule, examples in held.examples.items()
    }
    diagnostics: dict[str, Any] = {**finding.diagnostics, **checks}
    broken = [
        f"{count} of {held.examples[rule]} examples are {_RULES[rule]}"
        for rule, count in held.violations.items()
        if count
    ]
    if not broken or finding.value is None:
        if bracket is not None:
            diagnostics[BRACKET] = bracket
        return replace(finding, diagnostics=diagnostics)
    return replace(
        finding,
        status="unreliable",
        value=None,
        interval=None,
        interval_method=None,
        confidence=None,
        diagnostics=diagnostics,
        detail={**finding.detail, "reason": "; ".join(broken), "withdrawn_value": finding.value},
    )
