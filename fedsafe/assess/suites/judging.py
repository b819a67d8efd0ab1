"""Judges the cases of suites: passed, failed, in error, or skipped because nothing of the kind is there."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fedsafe.assess.requirements import Requirement, Verdict, judge
from fedsafe.assess.suites.claims import headlines, objection
from fedsafe.assess.suites.suite import Case, Suite
from fedsafe.errors import ConfigError
from fedsafe.findings import Finding

Result = Literal["pass", "fail", "error", "skip"]
NOTHING_APPLIES = "something applies"
"""The case of a suite of which nothing else was judged."""
_BEST_FIRST = ("pass", "undecided", "fail", "unmeasured")


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """What became of a case.

    Attributes:
        suite: Name of the suite.
        case: The case.
        verdict: Of its requirement.
        result: "pass"; "fail" (also where it is undecided), "error" (not measured), or "skip" (nothing of the kind).
    """

    suite: str
    case: Case
    verdict: Verdict
    result: Result

    @property
    def blocks(self) -> bool:
        """Whether the model may not be released: a `must` that failed or is in error."""
        return self.case.requirement.severity == "must" and self.result in ("fail", "error")

    def to_json(self, round: int) -> dict[str, Any]:
        """A line of ``requirements.jsonl``, and what the suite adds."""
        return {
            **self.verdict.to_json(round),
            "blocks": self.blocks,
            "suite": self.suite,
            "case": self.case.name,
            "result": self.result,
            "because": self.case.because,
        }


def judge_suites(
    suites: Sequence[Suite],
    findings: Sequence[Finding],
    *,
    together: bool = False,
    population: Mapping[str, int] | None = None,
) -> list[CaseResult]:
    """Judges every case of the suites by the findings of their assessors.

    Skipping is no pass: a suite of which every case is skipped gets one more, which is an error.

    Args:
        suites: What is judged.
        findings: All that was found.
        together: Whether it is enough that one of the suites has a case that is not skipped, as where all are asked
            for.
        population: Unit of privacy to how many there are, where that is known.

    Returns:
        In the order of the suites and their cases.
    """
    failed = next((finding for finding in findings if finding.metric == "assess.completed"), None)
    results: list[CaseResult] = []
    for suite in suites:
        results += [_judge_case(suite, case, findings, failed, population or {}) for case in suite.cases]
    groups = [suites] if together else [[suite] for suite in suites]
    for group in groups:
        names = {suite.name for suite in group}
        own = [result for result in results if result.suite in names]
        if own and all(result.result == "skip" for result in own):
            results.append(_nothing(own[0]))
    return results


def verdicts_of(results: Iterable[CaseResult]) -> list[Verdict]:
    """The verdicts of results."""
    return [result.verdict for result in results]


def override(suites: Sequence[Suite], requirements: Sequence[Requirement]) -> tuple[Suite, ...]:
    """The suites with other thresholds.

    A requirement of the same metric, the same `where` and the same direction takes the place of a case's.

    Args:
        suites: Of which cases are replaced.
        requirements: That replace them.

    Raises:
        ConfigError: A requirement is in the place of no case.
    """
    unused = list(requirements)
    changed = []
    for suite in suites:
        cases = []
        for case in suite.cases:
            own = [rule for rule in requirements if _same(rule, case.requirement)]
            unused = [rule for rule in unused if rule not in own]
            cases.append(replace(case, requirement=own[-1], because="as the user requires") if own else case)
        changed.append(replace(suite, cases=tuple(cases)))
    if unused:
        wrong = unused[0]
        known = sorted({case.requirement.metric for suite in suites for case in suite.cases})
        raise ConfigError(
            f"the requirement on {wrong.metric} where {dict(wrong.where)} {wrong.op} is in the place of no case of "
            f"{', '.join(suite.name for suite in suites)}, which require of {', '.join(known)}; copy metric, where and "
            "op from the suite's table, or make a suite of your own"
        )
    return tuple(changed)


def _same(one: Requirement, other: Requirement) -> bool:
    same = one.metric == other.metric and dict(one.where) == dict(other.where)
    return same and one.op[0] == other.op[0]


def _judge_case(
    suite: Suite,
    case: Case,
    findings: Sequence[Finding],
    failed: Finding | None,
    population: Mapping[str, int],
) -> CaseResult:
    rule = case.requirement
    if case.any_case:
        findings = [_as_written(rule, finding) for finding in findings]
    if case.without:
        findings = [each for each in findings if not any(case.without in str(v) for v in each.where.values())]
    about = [finding for finding in findings if rule.selects(finding)]
    verdict = judge(rule, findings)
    if case.match == "best" and about:
        single = [judge(rule, [finding]) for finding in about]
        verdict = min(single, key=lambda each: _BEST_FIRST.index(each.verdict))
    elif case.match == "headline" and about:
        heads = headlines(about)
        verdict = judge(rule, heads)
        against = [objection(finding, case.largest_delta, population) for finding in heads]
        against = [
            reason
            for finding, reason in zip(heads, against, strict=True)
            if finding.value is not None and reason
        ]
        if against:
            verdict = replace(verdict, verdict="fail", reason="; ".join(against))
    result: Result = "pass"
    if verdict.verdict in ("fail", "undecided"):
        result = "fail"
    elif verdict.verdict == "unmeasured":
        unfit = _unfit(case, about, findings)
        result = "skip" if unfit and failed is None else "error"
        if unfit and failed is not None:
            verdict = replace(verdict, reason=str(failed.reason))
        elif unfit and not about:
            reason = f"nothing of the kind is here: {verdict.reason.partition(';')[0]}"
            verdict = replace(verdict, reason=reason)
    return CaseResult(suite=suite.name, case=case, verdict=verdict, result=result)


def _as_written(rule: Requirement, finding: Finding) -> Finding:
    """A finding whose texts are spelt as the rule's, where they differ in upper and lower case alone."""
    same = {
        key: value
        for key, value in rule.where.items()
        if isinstance(value, str) and str(finding.where.get(key)).casefold() == value.casefold()
    }
    return replace(finding, where={**finding.where, **same}) if same else finding


def _unfit(case: Case, about: Sequence[Finding], findings: Sequence[Finding]) -> bool:
    """Whether there is nothing of the kind to measure, and the case may be skipped then."""
    if case.absent != "skip":
        return False
    # One that was not measured at all names no slice.
    spoken = about or [
        finding for finding in findings if finding.metric == case.requirement.metric and not finding.where
    ]
    return all(finding.status == "not_applicable" for finding in spoken)


def _nothing(first: CaseResult) -> CaseResult:
    requirement = replace(first.case.requirement, severity="must")
    reason = "nothing that is required applies to this model and task, which is no pass"
    return CaseResult(
        suite=first.suite,
        case=Case(name=NOTHING_APPLIES, requirement=requirement),
        verdict=replace(first.verdict, requirement=requirement, reason=reason),
        result="error",
    )
