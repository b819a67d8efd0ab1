"""Suites judge a run's model, or any module, as a pipeline does before a release."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from fedsafe.assess import Assessor, Requirement, Tier, ready_assessors
from fedsafe.assess.privacy.uploads import parameters_of
from fedsafe.assess.suites import CaseResult, Suite, assessors_of, judge_suites, override, verdicts_of
from fedsafe.findings import Finding
from fedsafe.params import fingerprint
from fedsafe.runs.assessing import Judged, Opened, judge_subject
from fedsafe.runs.audit import AUDIT
from fedsafe.store import RunFolder


@dataclass(frozen=True, kw_only=True)
class SuitesJudged(Judged):
    """What suites came to.

    Attributes:
        results: Of every case, in the order of the verdicts.
    """

    results: Sequence[CaseResult]

    @property
    def passed(self) -> bool:
        """Whether no `must` failed or was in error; what is skipped is neither."""
        return not any(result.blocks for result in self.results)

    def lines(self, round: int) -> list[dict[str, Any]]:
        """The results as lines of ``requirements.jsonl``."""
        return [result.to_json(round) for result in self.results]


@dataclass(frozen=True, kw_only=True)
class Suites:
    """Suites that are judged at once, each of their assessors run once.

    Attributes:
        suites: The suites.
        assessors: That they need.
        together: Whether it is enough that one of the suites has a case that is not skipped.
    """

    suites: tuple[Suite, ...]
    assessors: Sequence[Assessor]
    together: bool = False

    @classmethod
    def of(
        cls,
        suites: Sequence[Suite],
        requirements: Sequence[Requirement] | None = None,
        *,
        together: bool = False,
    ) -> Self:
        """Suites with their assessors.

        Args:
            suites: The suites.
            requirements: In the place of the suites' own, see `fedsafe.assess.suites.override`.
            together: See the attribute.

        Raises:
            ConfigError: An assessor is unknown, two suites want one with different options, or a requirement is in
                the place of none.
        """
        changed = tuple(suites) if requirements is None else override(suites, requirements)
        return cls(suites=changed, assessors=ready_assessors(assessors_of(changed)), together=together)

    @property
    def label(self) -> str:
        """Such as ``-bias-privacy``, for the name of a folder."""
        return "".join(f"-{re.sub(r'[^A-Za-z0-9_]+', '_', suite.name)}" for suite in self.suites)

    def judge(self, opened: Opened, tier: Tier = "full") -> SuitesJudged:
        """Run the assessors and judge the cases.

        What an audit beside the run found in its newest look up to the judged round counts as well.

        Args:
            opened: What is judged.
            tier: "cheap" or "full".
        """
        judged = judge_subject(opened, assessors=self.assessors, requirements=(), tier=tier)
        found = [finding for group in judged.findings.values() for finding in group]
        results = judge_suites(
            self.suites,
            [*found, *_audited(opened)],
            together=self.together,
            population=_population(opened),
        )
        return SuitesJudged(
            findings=judged.findings,
            verdicts=verdicts_of(results),
            seconds=judged.seconds,
            results=results,
        )


def model_digest(opened: Opened) -> str:
    """SHA-256 of the model's trained parameters, as the record of its run has it."""
    return fingerprint(parameters_of(opened.model))


def _population(opened: Opened) -> dict[str, int]:
    """Unit of privacy to how many there are, where the model's training is known."""
    training = opened.subject.training
    return {} if training is None else {"client": len(training), "record": max(1, len(training.held))}


def _audited(opened: Opened) -> list[Finding]:
    if opened.folder is None:
        return []
    lines = [
        line
        for line in RunFolder.open(opened.folder).read("findings.jsonl")
        if line.get("assessor") == AUDIT and line["round"] <= opened.subject.round
    ]
    newest = max((line["round"] for line in lines), default=0)
    return [Finding.from_json(line) for line in lines if line["round"] == newest]
