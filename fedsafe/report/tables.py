"""The tables of a report, as plain text cells; the command line prints `closing_table` too."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedsafe.findings import wilson
from fedsafe.records import Json
from fedsafe.report import formats
from fedsafe.report.acceptance import release, widened
from fedsafe.report.cells import Cell, finding_cell, is_of_group, latest_findings
from fedsafe.report.reading import Reading, read_run

_SIGNS = {">=": "≥", "<=": "≤", "==": "=", "!=": "≠"}
_HEADLINE_FINDINGS = (
    "performance.worst_decile_accuracy",
    "alignment.gain_over_chance",
    "alignment.human_ceiling",
    "alignment.worst_decile_accuracy",
    "fairness.demographic_parity_difference",
    "fairness.equalised_odds_difference",
    "robustness.attacked_accuracy",
    "robustness.certified_accuracy",
    "privacy.audited_epsilon",
)
_GROUP_METRICS = (
    "fairness.accuracy",
    "fairness.selection_rate",
    "fairness.true_positive_rate",
    "fairness.false_positive_rate",
)


@dataclass(frozen=True, kw_only=True)
class RequirementRow:
    """The latest verdict of one requirement, and the earlier ones.

    Attributes:
        text: The rule, such as ``fairness.accuracy ≥ 0.8``.
        where: The slice, in words.
        severity: "must", "should" or "info".
        verdict: "pass", "fail", "undecided" or "unmeasured".
        value: The number that was judged.
        interval: Its interval.
        confidence: Confidence of the verdict.
        reason: Why it is so.
        round: Round of the latest verdict.
        history: (round, verdict) of every assessment.
        principle: Id of the constitution's principle that it comes from, or "".
        statement: What the principle says.
    """

    text: str
    where: str
    severity: str
    verdict: str
    value: str
    interval: str
    confidence: str
    reason: str
    round: int
    history: tuple[tuple[int, str], ...]
    principle: str = ""
    statement: str = ""

    @property
    def mark(self) -> str:
        """The sign of the verdict."""
        return formats.MARKS.get(self.verdict, "?")


@dataclass(frozen=True, kw_only=True)
class GroupTable:
    """Rates of the groups of one attribute.

    Attributes:
        attribute: Such as "sex", or "sex × race".
        columns: Metric titles.
        rows: (group, one cell or None for each column).
        insufficient: Groups without any measured rate, each with its reason.
    """

    attribute: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    insufficient: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class ClosingRow:
    """One row of the table that closes a run.

    Attributes:
        section: "result", "claim", "finding" or "requirement".
        name: What the row is about.
        value: The number or verdict, in words.
        detail: Interval, sample size, delta or reason.
        status: "" or a key of `formats.MARKS`.
    """

    section: str
    name: str
    value: str
    detail: str
    status: str = ""


def closing_table(run: str | os.PathLike[str]) -> list[ClosingRow]:
    """Headline metric, claims, main findings and verdicts of a run.

    Args:
        run: The run folder.

    Returns:
        Rows in the order to print them.

    Raises:
        RecordError: The run cannot be read.
    """
    reading = read_run(run)
    shown = headline(reading)
    detail = " ".join(part for part in (shown.interval, shown.note) if part)
    rows = [
        ClosingRow(section="result", name=shown.name, value=shown.value, detail=detail),
        ClosingRow(
            section="result",
            name="rounds",
            value=str(reading.last_round),
            detail=reading.end.reason or "" if reading.end else "no end line: still running, or killed",
            status=reading.status,
        ),
    ]
    shown_model = release(reading)
    if shown_model is not None:
        detail = "; ".join(part for part in (shown_model.sentence, widened(reading)) if part)
        rows.append(
            ClosingRow(
                section="result",
                name="model to release",
                value=shown_model.value,
                detail=detail,
                status=shown_model.status,
            )
        )
    for unit in ("record", "client"):
        claim = reading.claim(unit)
        if claim is not None:
            rows.append(_closing_claim(unit, claim))
    latest = latest_findings(reading)
    told = {finding["metric"] for finding in latest if finding.get("value") is not None}
    for metric in _HEADLINE_FINDINGS:
        if metric == "performance.worst_decile_accuracy" and f"alignment.{metric.partition('.')[2]}" in told:
            continue  # the same people, without what luck would leave them
        rows += _closing_finding([finding for finding in latest if finding["metric"] == metric])
    for row in requirement_rows(reading):
        name = f"{row.text} ({row.where})" if row.where else row.text
        name = f"{row.principle}: {name}" if row.principle else name
        detail = " ".join(part for part in (row.severity, row.value, row.interval, row.reason) if part)
        rows.append(
            ClosingRow(section="requirement", name=name, value=row.verdict, detail=detail, status=row.verdict)
        )
    return rows


def _closing_claim(unit: str, claim: Json) -> ClosingRow:
    shown, detail = formats.epsilon(claim.get("epsilon")), "no guarantee at this level"
    if shown != "none":
        # The first words name it; the report has the whole sentence.
        adjacency, adversary = (
            str(claim.get(key)).split(" (")[0].split(",")[0].split(" who ")[0]
            for key in ("adjacency", "adversary")
        )
        simulated = str(claim.get("randomness")).startswith("simulated")
        bounds = f"{'SIMULATED, no guarantee: ' if simulated else ''}{adjacency}, against {adversary}"
        detail = f"delta = {formats.delta(claim.get('delta'))}, {bounds}"
    return ClosingRow(section="claim", name=f"epsilon per {unit}", value=shown, detail=detail)


def _closing_finding(findings: Sequence[Json]) -> list[ClosingRow]:
    """The worst measured slice of one metric, and how many slices stand behind it."""
    if not findings:
        return []
    measured = [finding for finding in findings if finding.get("value") is not None]
    known = formats.metric(str(findings[0]["metric"]))
    pick = min if known is not None and known.direction == "higher" else max
    picked = pick(measured, key=lambda finding: finding["value"]) if measured else findings[0]
    worst = finding_cell(picked)
    parts = [worst.interval, f"n = {worst.n} {worst.unit}" if worst.n else ""] if measured else [worst.reason]
    if (picked.get("diagnostics") or {}).get("explained_by_luck"):
        parts.append("as luck alone would give")
    if len(measured) > 1:
        parts.append(f"worst of {len(measured)}")
    if measured and len(findings) > len(measured):
        parts.append(f"{len(findings) - len(measured)} not measured")
    name = worst.title.lower() + (f" ({worst.where})" if worst.where else "")
    detail = ", ".join(part for part in parts if part)
    return [ClosingRow(section="finding", name=name, value=worst.value, detail=detail, status=worst.status)]


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The metric that tells most about a run's model, as text.

    Attributes:
        name: "accuracy" or "R²".
        value: Its value.
        interval: Its interval, or "".
        note: Where both come from.
    """

    name: str
    value: str
    interval: str
    note: str


def headline(reading: Reading) -> Headline:
    """The run's headline metric, its interval, and where both come from.

    The interval is that of the finding which measured the same model; without one that of an accuracy is Wilson's,
    over the records of the evaluation set.

    Args:
        reading: The run.
    """
    metric, value = reading.headline
    name = formats.title(f"performance.{metric}") if metric == "r2" else metric
    if value is None:
        return Headline(name=name, value=formats.ABSENT, interval="", note="not measured")
    evaluation = str(reading.start.task.get("evaluation", "")) if reading.start else ""
    for finding in reversed(reading.findings):
        same = finding.get("value") is not None and abs(finding["value"] - value) < 1e-9
        # Of preferences the interval draws people, whose pairs are alike.
        named = finding["metric"] in (f"performance.{metric}", f"alignment.{metric}")
        if named and not finding.get("where") and same:
            cell = finding_cell(finding)
            if cell.interval:
                note = f"{cell.method}, n = {cell.n} {cell.unit}; {evaluation}"
                return Headline(name=name, value=cell.value, interval=cell.interval, note=note)
    records = reading.start.task.get("evaluation_records") if reading.start else None
    shown = formats.quantity(value, "share" if metric == "accuracy" else "")
    # The positions of a text, and the residuals of a regression, are no coin tosses.
    if not isinstance(records, int) or records < 1 or reading.kind in ("regression", "next_token"):
        return Headline(name=name, value=shown, interval="", note=f"no interval; {evaluation}")
    ends = formats.interval(wilson(round(value * records), records), "share")
    note = f"95 % Wilson, n = {records:,} records; {evaluation}"
    return Headline(name=name, value=shown, interval=ends, note=note)


def requirement_rows(reading: Reading) -> list[RequirementRow]:
    """One row for each requirement, with its latest verdict and its history."""
    lines: dict[str, list[Json]] = {}
    for line in reading.requirements:
        rule = _rule(line)
        place = f"{formats.where(line.get('where'))}|{line.get('severity')}|{line.get('principle')}"
        lines.setdefault(f"{rule}|{place}", []).append(line)
    return [_requirement_row(history) for history in lines.values()]


def _requirement_row(history: Sequence[Json]) -> RequirementRow:
    latest = history[-1]
    known = formats.metric(str(latest["metric"]))
    unit = known.unit if known else ""
    confidence = latest.get("confidence")
    return RequirementRow(
        text=_rule(latest),
        where=formats.where(latest.get("where")),
        severity=str(latest.get("severity") or ""),
        verdict=str(latest["verdict"]),
        value="" if latest.get("value") is None else formats.quantity(latest["value"], unit),
        interval=formats.interval(latest.get("interval"), unit),
        confidence="" if confidence is None else f"{100 * confidence:g} %",
        reason=str(latest.get("reason") or ""),
        round=int(latest.get("round") or 0),
        history=tuple((int(line.get("round") or 0), str(line["verdict"])) for line in history),
        principle=str(latest.get("principle") or ""),
        statement=str(latest.get("statement") or ""),
    )


def _rule(line: Json) -> str:
    sign = _SIGNS.get(str(line.get("op")), str(line.get("op")))
    return f"{line['metric']} {sign} {formats.number(line.get('threshold'))}"


def group_tables(findings: Iterable[Json]) -> list[GroupTable]:
    """Rates of every group by attribute; groups that were too small are listed apart."""
    cells: dict[str, dict[str, dict[str, Cell]]] = {}
    for finding in findings:
        if is_of_group(finding):
            place = finding["where"]
            groups = cells.setdefault(str(place.get("attribute", "group")), {})
            groups.setdefault(str(place["group"]), {})[finding["metric"]] = finding_cell(finding)
    return [_group_table(attribute, groups) for attribute, groups in cells.items()]


def _group_table(attribute: str, groups: Mapping[str, Mapping[str, Cell]]) -> GroupTable:
    present = {name for cells in groups.values() for name in cells}
    names = [name for name in _GROUP_METRICS if name in present] + sorted(present - set(_GROUP_METRICS))
    measured = {
        group: cells
        for group, cells in groups.items()
        if any(cell.status == "measured" for cell in cells.values())
    }
    return GroupTable(
        attribute=attribute,
        columns=tuple(formats.title(name) for name in names),
        rows=tuple((group, tuple(cells.get(name) for name in names)) for group, cells in measured.items()),
        insufficient=tuple(
            (group, f"{cells[names[0]].reason} (n = {cells[names[0]].n})" if names[0] in cells else "")
            for group, cells in groups.items()
            if group not in measured
        ),
    )
