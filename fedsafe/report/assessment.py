"""One assessment apart from the rounds of a run: a page of its own, and the brackets of a scorecard as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsafe.findings import Bracket, brackets
from fedsafe.report import formats
from fedsafe.report.areas import areas
from fedsafe.report.cells import finding_cell, is_of_group, scorecard
from fedsafe.report.page import page
from fedsafe.report.tables import group_tables

_UNTRIED = {"accuracy": "no attack measured", "epsilon": "nothing is accounted"}


@dataclass(frozen=True, kw_only=True)
class BracketRow:
    """A bracket as text.

    Attributes:
        what: Norm and radius, or unit and canaries, in words.
        low: What is proven at least, or "nothing is proven".
        high: What was found at most, or that nothing was measured.
        clean: Clean accuracy; "" for an epsilon.
        note: On how many examples, and by what.
        status: "pass" where the ends are in order, "fail" where they cross, "undecided" where they are from different
            samples and need not be in order, or one is missing.
    """

    what: str
    low: str
    high: str
    clean: str
    note: str
    status: str


def bracket_rows(findings: Sequence[Mapping[str, Any]]) -> list[BracketRow]:
    """The brackets of one assessment as text, accuracies first.

    Args:
        findings: Lines of ``findings.jsonl``.
    """
    return [_row(bracket) for bracket in brackets(findings)]


def _row(bracket: Bracket) -> BracketRow:
    unit = "share" if bracket.kind == "accuracy" else "epsilon"
    shared = f"on the same {bracket.n:,} examples" if bracket.n else ""
    if bracket.holds is None and bracket.high is not None:
        shared = "on different examples"
    whole = bracket.low is not None and bracket.high is not None
    return BracketRow(
        what=f"{bracket.kind}, {formats.where(bracket.where)}",
        low="nothing is proven" if bracket.low is None else formats.quantity(bracket.low, unit),
        high=_UNTRIED[bracket.kind] if bracket.high is None else formats.quantity(bracket.high, unit),
        clean="" if bracket.clean is None else formats.quantity(bracket.clean, unit),
        note=", ".join(part for part in (shared, " and ".join(bracket.by)) if part),
        status={True: "pass", False: "fail", None: "undecided"}[bracket.holds if whole else None],
    )


def finding_lines(findings: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, str, str]]:
    """Assessor, what, value, interval and sample, status, of every finding that is not of a single group."""
    lines = []
    for finding in findings:
        if is_of_group(dict(finding)):
            continue
        cell = finding_cell(finding)
        what = f"{cell.title.lower()} ({cell.where})" if cell.where else cell.title.lower()
        sample = f"n = {cell.n} {cell.unit}" if cell.n else ""
        parts = [cell.interval, sample, cell.bound] if cell.status == "measured" else [cell.reason]
        detail = ", ".join(part for part in parts if part)
        lines.append((str(finding.get("assessor") or "other"), what, cell.value, detail, cell.status))
    return lines


def render_assessment(
    title: str, about: str, findings: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]]
) -> str:
    """The page of one assessment, with its style sheet inside.

    Args:
        title: Whose model.
        about: One sentence: tier, data, when.
        findings: Lines of ``findings.jsonl``.
        verdicts: Lines of ``requirements.jsonl``.
    """
    lines = [dict(finding) for finding in findings]
    return page(
        "assessment.html.j2",
        title=title,
        about=about,
        marks=formats.MARKS,
        brackets=bracket_rows(lines),
        areas=areas(lines),
        scorecard=scorecard(lines),
        groups=group_tables(lines),
        verdicts=[
            {"principle": "", **verdict, "shown_where": formats.where(verdict.get("where"))}
            for verdict in verdicts
        ],
    )
