"""Brackets: what is proven below, what was found above, and nothing averaged between."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedsafe.findings.registry import METRICS

BRACKET = "bracket"
"""Key of a certificate's diagnostics: the shares on the examples that it has in common with attacks."""

_CLEAN = "performance.accuracy"


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """One bracket.

    Attributes:
        kind: "accuracy": [certified, attacked] and the clean accuracy above both, on every perturbation of a size;
            "epsilon": [audited, accounted].
        where: What it is about: norm and radius, or unit and canaries.
        low: The lower end; None where nothing is proven, which is not 0.
        high: The upper end; None where nothing was found.
        clean: Clean accuracy on the same examples, where that is known; None for an epsilon.
        n: Examples that both ends share; None where they are from different samples, or one end is missing.
        by: Who gave the ends: certificates, then attacks.
    """

    kind: str
    where: Mapping[str, Any]
    low: float | None
    high: float | None
    clean: float | None = None
    n: int | None = None
    by: tuple[str, ...] = ()

    @property
    def holds(self) -> bool | None:
        """Whether low <= high <= clean; None where they are from different samples, which chance may put in any order.

        For an epsilon a crossing is a statistical alarm, and no broken rule.
        """
        if self.kind == "accuracy" and self.n is None and self.low is not None:
            return None
        ends = [end for end in (self.low, self.high, self.clean) if end is not None]
        return ends == sorted(ends)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "by": list(self.by), "where": dict(self.where), "holds": self.holds}


def brackets(findings: Iterable[Mapping[str, Any]]) -> list[Bracket]:
    """The brackets of one assessment, accuracies by norm and radius first.

    Of several certificates at a size the best counts, of several attacks the worst for the model. Where a certificate
    and the attacks shared examples, the shares on those are shown, which the rule low <= high <= clean is about.
    A smoothed classifier is another one than the model that was attacked, and has no bracket with it.

    Args:
        findings: Lines of ``findings.jsonl``, or findings as JSON, of one assessment.
    """
    lines = [line for line in findings if line.get("value") is not None]
    sizes: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for line in lines:
        where = line.get("where") or {}
        if is_sized(line) and not is_smoothed(where):
            sizes.setdefault((str(where["norm"]), float(where["radius"])), []).append(line)
    clean = next(
        (line["value"] for line in lines if line["metric"] == _CLEAN and not line.get("where")), None
    )
    found = [_accuracy(norm, radius, sizes[norm, radius], clean) for norm, radius in sorted(sizes)]
    return [*found, *_epsilons(lines)]


def is_sized(line: Mapping[str, Any]) -> bool:
    """Whether a finding is a share that holds, or may hold, under all perturbations of one size."""
    where, metric = line.get("where") or {}, METRICS.get(str(line["metric"]))
    share = metric is not None and metric.unit == "share"
    return share and line.get("bound") in ("lower", "upper") and "norm" in where and "radius" in where


def is_smoothed(where: Mapping[str, Any]) -> bool:
    """Whether a finding is about a smoothed classifier in place of the model itself."""
    return "smooth" in str(where.get("method", ""))


def _accuracy(norm: str, radius: float, lines: list[Mapping[str, Any]], clean: float | None) -> Bracket:
    proven = [line for line in lines if line["bound"] == "lower"]
    found = [line for line in lines if line["bound"] == "upper"]
    best = max(proven, key=lambda line: line["value"], default=None)
    worst = min(found, key=lambda line: (line["value"], line["where"].get("attack") != "worst"), default=None)
    where = {"norm": norm, "radius": radius}
    by = tuple(
        str((line.get("where") or {}).get(key, line["metric"]))
        for line, key in ((best, "method"), (worst, "attack"))
        if line is not None
    )
    shared = None if best is None else (best.get("diagnostics") or {}).get(BRACKET)
    if shared:
        return Bracket(
            kind="accuracy",
            where=where,
            low=shared["certified"],
            high=shared["attacked"],
            clean=shared["clean"],
            n=shared["examples"],
            by=by,
        )
    return Bracket(
        kind="accuracy",
        where=where,
        low=None if best is None else best["value"],
        high=None if worst is None else worst["value"],
        clean=clean if worst is None else (worst.get("anchors") or {}).get("clean", clean),
        by=by,
    )


def _epsilons(lines: list[Mapping[str, Any]]) -> list[Bracket]:
    ends: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for line in lines:
        if line["metric"] in ("privacy.audited_epsilon", "privacy.accounted_epsilon"):
            where = tuple(sorted((str(key), str(entry)) for key, entry in (line.get("where") or {}).items()))
            ends.setdefault(where, {})[str(line["metric"])] = float(line["value"])
    return [
        Bracket(
            kind="epsilon",
            where=dict(where),
            low=found["privacy.audited_epsilon"],
            high=found.get("privacy.accounted_epsilon"),
            by=("audit", "accountant"),
        )
        for where, found in ends.items()
        if "privacy.audited_epsilon" in found
    ]
