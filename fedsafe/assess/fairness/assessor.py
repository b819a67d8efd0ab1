"""How differently groups of people are treated: rates for each group, and the largest gaps between groups."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.fairness.calibration import ERROR_GAP, LARGE_GAP, calibration_by_group
from fedsafe.assess.fairness.cells import NOT_STATED, count_cells, join_groups
from fedsafe.assess.fairness.costs import costs_by_group
from fedsafe.assess.fairness.error_gaps import error_gaps
from fedsafe.assess.fairness.flips import flip_passes, flip_rates, protected_columns
from fedsafe.assess.fairness.rates import GAPS, GroupRates
from fedsafe.assess.fairness.reference import check_reference, with_reference
from fedsafe.assess.scores import decide
from fedsafe.data import Target
from fedsafe.errors import ConfigError
from fedsafe.findings import Finding, Provenance, not_measured

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """Group rates with Wilson intervals, and gaps with intervals that cover when there is no gap.

    Attributes:
        intersections: Attributes whose combinations are groups too, where the data has all of them.
        minimum: Positives, and negatives, that a group needs; a smaller one is listed as insufficient and
            left out of the gaps. Without a positive class: records.
        reference: A model to compare with, such as that of a run without privacy: what each group pays for the
            difference. A run folder, a ``.safetensors`` file or an import path, see `with_reference`; "" for none.
        protected: Columns whose value is changed to see whether the decision changes; the categorical group columns
            that are features where empty.
        cheap: Examples whose columns are changed in the cheap tier, at most.
        full: Examples of the full tier, at most.

    Raises:
        ConfigError: The minimum is below 2, an intersection has one attribute, or the reference is not there.
    """

    name: ClassVar[str] = "fairness"
    intersections: tuple[tuple[str, ...], ...] = (("sex", "race"),)
    minimum: int = 30
    reference: str = ""
    protected: tuple[str, ...] = ()
    cheap: int = 1000
    full: int = 10_000

    def __post_init__(self) -> None:
        if self.minimum < 2:
            raise ConfigError(f"a group of {self.minimum} records has no interval: set minimum to 2 or more")
        given: Any = self.intersections
        for names in given:
            if isinstance(names, str) or len(set(names)) < 2:
                raise ConfigError(
                    f"the intersection {names!r} needs two different group columns or more, such as ['sex', 'race']"
                )
        if self.reference:
            check_reference(self.reference)

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """A forward pass over the evaluation set, one of the reference, and one for each value of a changed column."""
        reason = _unfit(subject)
        passes = self._passes(subject)
        if subject.task.kind == "next_token" or (reason and not passes):
            return Cost(description=f"nothing: {reason}")
        n, changed = len(subject.evaluation), min(len(subject.evaluation), self._size(tier))
        own = 0 if reason else n * (2 if self.reference else 1)
        groups = ", ".join(map(_label, _attributes(subject, self.intersections))) or "no group"
        return Cost(
            description=f"group rates by {groups} on {n} examples, counterfactual flips on {changed}",
            examples=n,
            forward=own + changed * passes,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        reason = _unfit(subject)
        if subject.task.kind == "next_token":
            return _nothing(subject, reason)
        found = _nothing(subject, reason) if reason else self._by_group(subject, rng, tier)
        return found + flip_rates(subject, self.protected, self._size(tier))

    def _by_group(self, subject: Subject, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        resamples = 1000 if tier == "cheap" else 10_000
        attributes = _attributes(subject, self.intersections)
        if subject.task.target is not None:
            return self._errors(subject, subject.task.target, attributes, rng, resamples)
        y, logits = subject.evaluation.y, subject.logits(subject.evaluation.x)
        predicted = decide(logits)
        right = (predicted == y).astype(np.float64)
        other = None
        if self.reference:
            other = decide(with_reference(subject, self.reference).logits(subject.evaluation.x)) == y
        findings: list[Finding] = []
        for attribute in attributes:
            groups, label = join_groups(subject.evaluation.groups, attribute), _label(attribute)
            names, cells = count_cells(y, predicted, groups, binary=subject.binary)
            rates = GroupRates(
                attribute=label,
                names=names,
                cells=cells,
                minimum=self.minimum,
                binary=subject.binary,
                context=subject.provenance,
            )
            findings += rates.measure(rng, resamples)
            findings += calibration_by_group(
                *_events(subject, logits, right),
                groups,
                rates.unfit,
                label,
                event=subject.task.classes[1] if subject.binary else "the predicted class is right",
                shows_bins=tier == "full",
                resamples=resamples // 4,
                rng=rng,
                context=subject.provenance,
            )
            if other is not None:
                findings += costs_by_group(
                    right,
                    other.astype(np.float64),
                    groups,
                    rates.unfit,
                    label,
                    name=self.reference,
                    resamples=resamples,
                    rng=rng,
                    context=self._beside(subject),
                )
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
        truth = target.decode(examples.y)
        errors = np.abs(subject.values(examples.x) - truth)
        other = None
        if self.reference:
            other = np.abs(with_reference(subject, self.reference).values(examples.x) - truth)
        findings: list[Finding] = []
        for attribute in attributes:
            groups, label = join_groups(examples.groups, attribute), _label(attribute)
            findings += error_gaps(
                errors,
                examples,
                label,
                groups,
                minimum=self.minimum,
                unit=target.unit,
                resamples=resamples,
                rng=rng,
                context=subject.provenance,
            )
            if other is not None:
                findings += costs_by_group(
                    errors,
                    other,
                    groups,
                    self._few(groups),
                    label,
                    name=self.reference,
                    number=True,
                    resamples=resamples,
                    rng=rng,
                    context=self._beside(subject),
                )
        return findings

    def _beside(self, subject: Subject) -> Provenance:
        """Of findings that tell of the reference, too: its training is not the run's."""
        own = subject.provenance
        said = f"figures of the reference {self.reference!r}, which the run's claims do not cover"
        return {**own, "released": said if own["released"] is None else f"{own['released']}; {said}"}

    def _few(self, groups: NDArray[np.str_]) -> Mapping[str, str]:
        """Of every group why its errors are not compared, "" where they are."""
        found = {}
        for group, n in zip(*np.unique(groups, return_counts=True), strict=True):
            found[str(group)] = (
                "" if n >= self.minimum else f"the group has fewer than {self.minimum} records"
            )
            if group == NOT_STATED:
                found[str(group)] = f"the group of these {n} records is not stated"
        return found

    def _size(self, tier: Tier) -> int:
        return self.cheap if tier == "cheap" else self.full

    def _passes(self, subject: Subject) -> int:
        schema = subject.task.schema
        return flip_passes(schema, protected_columns(schema, self.protected))


def _events(subject: Subject, logits: Array, right: Array) -> tuple[Array, Array]:
    """The probability of class 1 and whether it is the class; of several classes, of the predicted one."""
    if subject.binary:
        return np.asarray(special.expit(logits[:, 0])), (subject.evaluation.y == 1).astype(np.float64)
    return np.asarray(special.softmax(logits, axis=1).max(axis=1)), right


def _nothing(subject: Subject, reason: str) -> list[Finding]:
    gaps = [f"fairness.{gap}" for gap in GAPS] + [ERROR_GAP, LARGE_GAP]
    if subject.task.kind == "regression":
        gaps = ["fairness.absolute_error_difference"]
    return [not_measured(gap, reason, status="not_applicable", **subject.provenance) for gap in gaps]


def _unfit(subject: Subject) -> str:
    """Why there are no groups to compare; "" where there are."""
    if subject.task.kind == "next_token":
        return "the positions of one record are not independent trials, as the rates of a group need"
    return "" if subject.evaluation.groups else "the evaluation set names no group"


def _attributes(subject: Subject, intersections: tuple[tuple[str, ...], ...]) -> list[tuple[str, ...]]:
    groups = subject.evaluation.groups
    several = [tuple(names) for names in intersections if set(names) <= set(groups)]
    return [*((name,) for name in groups), *several]


def _label(parts: tuple[str, ...]) -> str:
    return " & ".join(parts)
