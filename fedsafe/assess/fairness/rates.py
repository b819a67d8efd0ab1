"""Findings on rates: of every group, and the gaps between groups."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.fairness.cells import CELLS, NOT_STATED, Counts, Rate, rate_counts, too_few
from fedsafe.assess.fairness.gaps import Form, Gap, between_group_variance, measure_gap
from fedsafe.assess.fairness.sampling import GroupSample
from fedsafe.findings import Finding, Provenance, Scope, estimate, not_measured, proportion

_ODDS: tuple[Rate, ...] = ("true_positive_rate", "false_positive_rate")
GAPS: dict[str, tuple[tuple[Rate, ...], Form]] = {
    "demographic_parity_difference": (("selection_rate",), "difference"),
    "demographic_parity_ratio": (("selection_rate",), "ratio"),
    "equalised_odds_difference": (_ODDS, "difference"),
    "equalised_odds_ratio": (_ODDS, "ratio"),
    "average_odds_difference": (_ODDS, "mean"),
    "equal_opportunity_difference": (("true_positive_rate",), "difference"),
    "predictive_parity_difference": (("positive_predictive_value",), "difference"),
    "accuracy_difference": (("accuracy",), "difference"),
}
"""Gap to the rates that it compares, and how."""

_METHODS: dict[Form, str] = {
    "difference": "newcombe, simultaneous over pairs by stratified bootstrap",
    "mean": "newcombe, simultaneous over pairs and rates by stratified bootstrap",
    "ratio": "zou-donner on the logarithm, simultaneous over pairs by stratified bootstrap",
}
_VARIANCE = "fairness.between_group_variance"


@dataclass(frozen=True, kw_only=True)
class GroupRates:
    """The groups of one attribute with their counts.

    Attributes:
        attribute: What the groups differ in.
        names: Of the groups.
        cells: ``(groups, 4)``, see `count_cells`.
        minimum: Positives, and negatives, that a group needs; without a positive class: records.
        binary: Whether class 1 is positive.
        context: Fields of every finding.
    """

    attribute: str
    names: list[str]
    cells: Counts
    minimum: int
    binary: bool
    context: Provenance

    @property
    def unfit(self) -> dict[str, str]:
        """Of every group why it is not compared, "" where it is."""
        found = {}
        for name, row in zip(self.names, self.cells, strict=True):
            sizes = (row[:2].sum(), row[2:].sum()) if self.binary else (row.sum(),)
            needed = "positives and negatives" if self.binary else "records"
            found[name] = (
                "" if min(sizes) >= self.minimum else f"the group has fewer than {self.minimum} {needed}"
            )
            if name == NOT_STATED:
                found[name] = f"the group of these {int(row.sum())} records is not stated"
        return found

    @property
    def _known(self) -> tuple[Rate, ...]:
        return tuple(CELLS) if self.binary else ("accuracy",)

    def measure(self, rng: np.random.Generator, resamples: int) -> list[Finding]:
        """Rates, gaps, and the variance of each rate over the groups."""
        findings = self._rates()
        samples: dict[bytes, GroupSample] = {}
        for gap, (rates, form) in GAPS.items():
            findings.append(self._gap(gap, rates, form, samples, rng, resamples))
        return findings + self._variances(samples, rng, resamples)

    def _rates(self) -> list[Finding]:
        findings = []
        unfit = self.unfit
        for name, row in zip(self.names, self.cells, strict=True):
            for rate in self._known:
                k, n = (int(part) for part in rate_counts(row, rate))
                context: Scope = {"where": {"attribute": self.attribute, "group": name}, **self.context}
                reason = unfit[name]
                if not reason and n < self.minimum:
                    reason = f"fewer than {self.minimum} records of the group are predicted positive"
                if not reason:
                    findings.append(proportion(f"fairness.{rate}", k, n, **context))
                    continue
                findings.append(
                    not_measured(
                        f"fairness.{rate}",
                        reason,
                        status="insufficient",
                        n=n,
                        unit="examples",
                        detail={"k": k, "positives": int(row[2:].sum()), "negatives": int(row[:2].sum())},
                        **context,
                    )
                )
        return findings

    def _enough(self, rates: tuple[Rate, ...]) -> NDArray[np.bool_]:
        """``(groups,)`` which groups a gap compares."""
        fit = np.array([not reason for reason in self.unfit.values()])
        trials = np.stack([rate_counts(self.cells, rate)[1] for rate in rates])
        return np.asarray(fit & (trials.min(axis=0) >= self.minimum))

    def _sample(
        self,
        enough: NDArray[np.bool_],
        samples: dict[bytes, GroupSample],
        rng: np.random.Generator,
        resamples: int,
    ) -> GroupSample:
        key = enough.tobytes()
        if key not in samples:
            samples[key] = GroupSample(self.cells[enough], rng, resamples)
        return samples[key]

    def _gap(
        self,
        gap: str,
        rates: tuple[Rate, ...],
        form: Form,
        samples: dict[bytes, GroupSample],
        rng: np.random.Generator,
        resamples: int,
    ) -> Finding:
        metric, context = f"fairness.{gap}", Scope(where={"attribute": self.attribute}, **self.context)
        enough = self._enough(rates)
        used = [name for name, fits in zip(self.names, enough, strict=True) if fits]
        left_out = [name for name in self.names if name not in used]
        detail: dict[str, Any] = {"groups": used, "left_out": left_out, "minimum": self.minimum}
        if not self.binary and rates != ("accuracy",):
            reason = "the task has no positive class"
            return not_measured(metric, reason, status="not_applicable", detail=detail, **context)
        n = int(self.cells[enough].sum())
        reason, measured = too_few(len(used), left_out, self.attribute), None
        if len(used) >= 2:
            measured = measure_gap(self._sample(enough, samples, rng, resamples), rates, form)
            reason = "a rate is 0 in every group: there is no ratio"
        if measured is None:
            return not_measured(
                metric, reason, status="insufficient", n=n, unit="examples", detail=detail, **context
            )
        return self._finding(metric, measured, form, used, n, detail, context)

    @staticmethod
    def _finding(
        metric: str, gap: Gap, form: Form, used: list[str], n: int, detail: dict[str, Any], context: Scope
    ) -> Finding:
        detail |= {
            "extremes": {"low": used[gap.lowest], "high": used[gap.highest]},
            "debiased": gap.debiased,
            "p_value": gap.p_value,
        }
        return estimate(
            metric,
            gap.value,
            interval=gap.interval,
            method=_METHODS[form],
            n=n,
            unit="examples",
            resolution=gap.resolution,
            # Which side of the null a gap of chance lies on depends on the form: 5 % are further out.
            anchors={"null_gap": gap.null_mean, "null_gap_95": gap.null_95},
            detail=detail,
            **context,
        )

    def _variances(
        self, samples: dict[bytes, GroupSample], rng: np.random.Generator, resamples: int
    ) -> list[Finding]:
        findings = []
        for rate in self._known:
            enough = self._enough((rate,))
            context: Scope = {"where": {"attribute": self.attribute, "rate": rate}, **self.context}
            n, used = (
                int(self.cells[enough].sum()),
                [name for name, fits in zip(self.names, enough, strict=True) if fits],
            )
            if len(used) < 2:
                left_out = [name for name in self.names if name not in used]
                reason = too_few(len(used), left_out, self.attribute)
                findings.append(
                    not_measured(_VARIANCE, reason, status="insufficient", n=n, unit="examples", **context)
                )
                continue
            value, interval = between_group_variance(self._sample(enough, samples, rng, resamples), rate)
            findings.append(
                estimate(
                    _VARIANCE,
                    value,
                    interval=interval,
                    method="double-corrected stratified bootstrap",
                    n=n,
                    unit="examples",
                    anchors={"alike": 0.0},
                    detail={"groups": used},
                    **context,
                )
            )
        return findings
