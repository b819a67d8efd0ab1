"""How differently groups of people are treated: rates for each group, and the largest gaps between groups."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.fairness.error_gaps import error_gaps
from fedsafe.assess.fairness.gaps import CELLS, Counts, Rate, count_cells, measure_gap, rate_counts
from fedsafe.data import Target
from fedsafe.findings import Finding, Scope, estimate, not_measured, proportion

_GAPS: dict[str, tuple[Rate, ...]] = {
    "demographic_parity_difference": ("selection_rate",),
    "equalised_odds_difference": ("true_positive_rate", "false_positive_rate"),
    "equal_opportunity_difference": ("true_positive_rate",),
    "accuracy_difference": ("accuracy",),
}
_NEEDS_POSITIVE = "the task has no positive class"


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """Group rates with Wilson intervals, and gaps with intervals that cover when there is no gap.

    Attributes:
        intersections: Pairs of attributes whose combinations are groups too, where the data has both.
        minimum: Positives, and negatives, that a group needs; a smaller one is listed as insufficient and
            left out of the gaps. Without a positive class: records.
    """

    name: ClassVar[str] = "fairness"
    intersections: tuple[tuple[str, str], ...] = (("sex", "race"),)
    minimum: int = 30

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """One forward pass over the evaluation set, in either tier."""
        if _unfit(subject, self.intersections):
            return Cost(description=f"nothing: {_unfit(subject, self.intersections)}")
        n = len(subject.evaluation)
        groups = ", ".join(map(_label, _attributes(subject, self.intersections)))
        return Cost(description=f"group rates by {groups} on {n} examples", examples=n, forward=n)

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        attributes = _attributes(subject, self.intersections)
        reason = _unfit(subject, self.intersections)
        if reason:
            return [
                not_measured(f"fairness.{gap}", reason, status="not_applicable", **subject.provenance)
                for gap in _GAPS
            ]
        resamples = 2000 if tier == "cheap" else 10_000
        if subject.task.target is not None:
            return self._errors(subject, subject.task.target, attributes, rng, resamples)
        examples = subject.evaluation
        predicted = subject.predict(examples.x)
        table = count_cells(examples.y, predicted, examples.groups, binary=subject.binary)
        findings: list[Finding] = []
        for attribute in attributes:
            by_group = table.groupby(level=list(attribute)).sum()
            names = [_label(key) for key in by_group.index]
            cells = by_group.to_numpy(dtype=np.int64)
            eligible = self._eligible(cells, subject.binary)
            findings += self._rates(subject, _label(attribute), names, cells, eligible)
            findings += self._gaps(subject, _label(attribute), names, cells, eligible, rng, resamples)
        return findings

    def _errors(
        self,
        subject: Subject,
        target: Target,
        attributes: list[tuple[str, ...]],
        rng: np.random.Generator,
        resamples: int,
    ) -> list[Finding]:
        """Errors by group, of a model that predicts a number."""
        examples = subject.evaluation
        errors = np.abs(subject.values(examples.x) - target.decode(examples.y))
        findings: list[Finding] = []
        for attribute in attributes:
            groups = examples.groups[attribute[0]]
            for name in attribute[1:]:
                groups = np.strings.add(np.strings.add(groups, " & "), examples.groups[name])
            findings += error_gaps(
                errors,
                examples,
                _label(attribute),
                groups,
                minimum=self.minimum,
                unit=target.unit,
                resamples=resamples,
                rng=rng,
                context=subject.provenance,
            )
        return findings

    def _eligible(self, cells: Counts, binary: bool) -> NDArray[np.bool_]:
        if not binary:
            return np.asarray(cells.sum(axis=1) >= self.minimum)
        negatives, positives = cells[:, :2].sum(axis=1), cells[:, 2:].sum(axis=1)
        return np.asarray(np.minimum(negatives, positives) >= self.minimum)

    def _rates(
        self, subject: Subject, attribute: str, names: list[str], cells: Counts, eligible: NDArray[np.bool_]
    ) -> list[Finding]:
        findings = []
        rates: tuple[Rate, ...] = tuple(CELLS) if subject.binary else ("accuracy",)
        for name, row, enough in zip(names, cells, eligible, strict=True):
            for rate in rates:
                k, n = (int(part) for part in rate_counts(row, rate))
                context: Scope = {"where": {"attribute": attribute, "group": name}, **subject.provenance}
                if enough:
                    findings.append(proportion(f"fairness.{rate}", k, n, **context))
                    continue
                needed = "positives and negatives" if subject.binary else "records"
                findings.append(
                    not_measured(
                        f"fairness.{rate}",
                        f"the group has fewer than {self.minimum} {needed}",
                        status="insufficient",
                        n=n,
                        unit="examples",
                        detail={"k": k, "positives": int(row[2:].sum()), "negatives": int(row[:2].sum())},
                        **context,
                    )
                )
        return findings

    def _gaps(
        self,
        subject: Subject,
        attribute: str,
        names: list[str],
        cells: Counts,
        eligible: NDArray[np.bool_],
        rng: np.random.Generator,
        resamples: int,
    ) -> list[Finding]:
        used = [name for name, enough in zip(names, eligible, strict=True) if enough]
        left_out = [name for name in names if name not in used]
        n = int(cells[eligible].sum())
        findings = []
        for gap, rates in _GAPS.items():
            metric = f"fairness.{gap}"
            detail: dict[str, Any] = {"groups": used, "left_out": left_out, "minimum": self.minimum}
            context: Scope = {"where": {"attribute": attribute}, **subject.provenance}
            if not subject.binary and rates != ("accuracy",):
                findings.append(
                    not_measured(metric, _NEEDS_POSITIVE, status="not_applicable", detail=detail, **context)
                )
            elif len(used) < 2:
                findings.append(
                    not_measured(
                        metric,
                        f"{len(used)} of {len(names)} groups are large enough, a gap needs 2",
                        status="insufficient",
                        n=n,
                        unit="examples",
                        detail=detail,
                        **context,
                    )
                )
            else:
                measured = measure_gap(cells[eligible], rates, rng, resamples)
                detail["extremes"] = {"low": used[measured.lowest], "high": used[measured.highest]}
                findings.append(
                    estimate(
                        metric,
                        measured.value,
                        interval=measured.interval,
                        method="newcombe, simultaneous over pairs by stratified bootstrap",
                        n=n,
                        unit="examples",
                        resolution=measured.resolution,
                        anchors={"null_gap": measured.null_mean, "null_gap_95": measured.null_95},
                        detail=detail,
                        **context,
                    )
                )
        return findings


def _unfit(subject: Subject, intersections: tuple[tuple[str, str], ...]) -> str:
    """Why there are no groups to compare; "" where there are."""
    if subject.task.kind == "next_token":
        return "the positions of one record are not independent trials, as the rates of a group need"
    return "" if _attributes(subject, intersections) else "the evaluation set names no group"


def _attributes(subject: Subject, intersections: tuple[tuple[str, str], ...]) -> list[tuple[str, ...]]:
    groups = subject.evaluation.groups
    pairs = [pair for pair in intersections if set(pair) <= set(groups)]
    return [*((name,) for name in groups), *pairs]


def _label(parts: str | tuple[str, ...]) -> str:
    return parts if isinstance(parts, str) else " & ".join(parts)
