"""The model card of a run as Markdown, made from its shareable record alone.

The sections are those of Mitchell et al. (2019), "Model Cards for Model Reporting". What only people can say (intended
use, users, ethical considerations) comes from the table ``[card]`` of the configuration; what nobody said is
"not stated". What the record does not hold is "not recorded", and what was not measured is a limitation.
"""

import functools
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from fedsafe.records import Json
from fedsafe.report import facts, formats
from fedsafe.report.acceptance import held_to, release, widened
from fedsafe.report.audits import AUDIT, audit_alarms, audit_rows
from fedsafe.report.cells import finding_cell, is_of_group, latest_findings
from fedsafe.report.reading import Reading
from fedsafe.report.tables import group_tables, headline, requirement_rows

if TYPE_CHECKING:
    from jinja2 import Template

NOT_STATED = "not stated"
_SECTIONS = ("performance", "fairness", "robustness", "interpretability")
_STRONGEST = 5
_GIVEN_IN_PYTHON = "given in Python"
_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_CERTIFIED, _ATTACKED = "robustness.certified_accuracy", "robustness.attacked_accuracy"


class Markdown(str):
    """Text that is Markdown already, and is not escaped."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """What is known of the accuracy under every perturbation of a size.

    Attributes:
        where: Norm and radius, in words.
        low: What was proven at least, or "nothing is proven".
        high: What an attack left at most, or "no attack was measured".
    """

    where: str
    low: str
    high: str


def render_card(reading: Reading) -> str:
    """The model card of a run.

    Args:
        reading: The run, finished or not.

    Returns:
        Markdown. Every text of the record is escaped, so that it cannot change the card's structure.
    """
    text = _template().render(**_view(reading))
    return re.sub(r"\n{3,}", "\n\n", text)


@functools.cache
def _template() -> "Template":
    """Compiled once."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=False,  # noqa: S701 - `finalize` escapes, for Markdown and HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_finalize,
    )
    environment.filters.update(
        markdown=Markdown,
        code=code,
        quoted=lambda text: Markdown(shlex.quote(" ".join(text.split()))),
        words=facts.words,
        number=formats.number,
        moment=formats.moment,
        status=formats.status,
    )
    source = resources.files("fedsafe.report") / "templates" / "card.md.j2"
    return environment.from_string(source.read_text(encoding="utf-8"))


def escape(text: str) -> Markdown:
    """Text that Markdown and HTML show as it is, on one line."""
    line = " ".join(text.split())
    line = re.sub(r"&(?=#?\w+;)", "&amp;", line)
    line = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line).replace("://", "&#58;//")
    line = re.sub(r"([\\`*\[|~$])", r"\\\1", line)
    # Between letters an underscore is one; elsewhere it may begin an emphasis.
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)
    # At the start of a line these make a list, a heading, a quotation or a rule.
    return Markdown(
        re.sub(r"^(?:[-+=](?!\d)|[#>]|\d+(?=[.)](?:\s|$)))", lambda start: _entity(start[0]), line)
    )


def code(text: str) -> Markdown:
    """Text as a code span, whatever it holds."""
    line = " ".join(str(text).split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return Markdown(f"{fence}{space}{line}{space}{fence}" if line else "")


def _entity(start: str) -> str:
    return "".join(f"&#{ord(sign)};" for sign in start)


def _finalize(value: object) -> str:
    return value if isinstance(value, Markdown) else escape(str(value))


def _view(reading: Reading) -> dict[str, Any]:
    start, latest = reading.start, latest_findings(reading)
    config = _config(reading)
    cells = [(str(finding.get("assessor") or "other"), finding_cell(finding)) for finding in latest]
    shown = {
        assessor: [
            cell
            for finding, (name, cell) in zip(latest, cells, strict=True)
            if name == assessor and cell.status == "measured" and not is_of_group(finding)
        ]
        for assessor in dict.fromkeys([*_SECTIONS, *(name for name, _ in cells)])
    }
    return {
        "name": reading.name,
        "start": start,
        "end": reading.end,
        "status_key": reading.status,
        "release": release(reading),
        "widened": widened(reading),
        "held_to": held_to(reading),
        "rounds": reading.last_round,
        "planned_rounds": start.plan.get("rounds") if start else None,
        "last": next(
            (line for line in reading.rounds if line.round == reading.accepted),
            reading.rounds[-1] if reading.rounds else None,
        ),
        "stated": _stated(config),
        "headline": headline(reading),
        "assessed": sorted({cell.round for name, cell in cells if name != AUDIT}),
        "metrics": sorted({(cell.name, cell.about) for _, cell in cells if cell.status == "measured"}),
        "claims": [facts.claim(reading, unit) for unit in ("record", "client")],
        "matrix": facts.matrix(reading),
        "audits": audit_rows(reading),
        "alarms": audit_alarms(reading),
        "source": _source(reading),
        "federation": facts.federation(start) if start else [],
        "strategy": _strategy(config),
        "findings": {
            name: found for name, found in shown.items() if found and name not in ("privacy", AUDIT)
        },
        "brackets": _brackets(latest),
        "strongest": _strongest(latest),
        "groups": group_tables(latest),
        "requirements": requirement_rows(reading),
        "limitations": _limitations(latest),
        "released": sorted({cell.released for _, cell in cells if cell.released}),
        "own_code": _own_code(config),
    }


def _config(reading: Reading) -> Mapping[str, Any]:
    try:
        return tomllib.loads(reading.config)
    except tomllib.TOMLDecodeError:
        return {}


def _stated(config: Mapping[str, Any]) -> dict[str, str]:
    """What people said in ``[card]``; everything else is not stated."""
    keys = (
        "developers", "contact", "licence", "intended_use", "intended_users", "out_of_scope", "ethical_considerations",
        "recommendations",
    )  # fmt: skip
    card = config.get("card")
    said = card if isinstance(card, Mapping) else {}
    return {key: str(said.get(key) or "").strip() or NOT_STATED for key in keys}


def _source(reading: Reading) -> dict[str, str]:
    source = (reading.start.task.get("source") if reading.start else None) or {}
    return {
        key: str(source.get(key) or "") or NOT_STATED for key in ("name", "licence", "url", "sha256", "note")
    }


def _strategy(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How local training, aggregation and the server's step were configured; the plan has steps and rate."""
    rows = [
        (f"{section.capitalize()} {formats.status(key)}", facts.words(value))
        for section in ("client", "server")
        for key, value in (config.get(section) or {}).items()
        if key not in ("steps", "rate")
    ]
    engine = (config.get("engine") or {}).get("name")
    return [(label, value) for label, value in [*rows, ("Engine", facts.words(engine))] if value]


def _brackets(findings: Sequence[Json]) -> list[Bracket]:
    """Certified accuracy below, the strongest attack above, for each norm and radius that either was measured at."""
    found: dict[str, dict[str, list[Json]]] = {}
    for finding in findings:
        place = finding.get("where") or {}
        if (
            finding["metric"] in (_CERTIFIED, _ATTACKED)
            and finding.get("value") is not None
            and "radius" in place
        ):
            size = formats.where({key: place[key] for key in ("norm", "radius") if key in place})
            found.setdefault(size, {}).setdefault(str(finding["metric"]), []).append(finding)
    return [
        Bracket(
            where=size,
            low=_end(max(sides.get(_CERTIFIED, ()), key=_value, default=None), "nothing is certified"),
            high=_end(min(sides.get(_ATTACKED, ()), key=_value, default=None), "no attack was measured"),
        )
        for size, sides in found.items()
    ]


def _value(finding: Json) -> float:
    return float(finding["value"])


def _end(finding: Json | None, absent: str) -> str:
    if finding is None:
        return absent
    cell = finding_cell(finding)
    how = finding["where"].get("attack") or finding["where"].get("method")
    return " ".join(
        part for part in (cell.value, cell.interval, f"({formats.status(how)})" if how else "") if part
    )


def _strongest(findings: Sequence[Json]) -> list[str]:
    """The columns that the model relies on most, with the share of all attribution that each holds."""
    for finding in findings:
        table = (finding.get("detail") or {}).get("table")
        if finding["metric"] == "interpretability.top_feature_share" and isinstance(table, Sequence):
            known = [row for row in table if row.get("mean_abs") is not None]
            rows = sorted(known, key=lambda row: row["mean_abs"], reverse=True)
            return [str(row["column"]) for row in rows[:_STRONGEST]]
    return []


def _limitations(findings: Sequence[Json]) -> list[tuple[str, str, str, str]]:
    """What was not measured: status, metrics, slice and reason, one entry for all metrics that share the rest."""
    missing: dict[tuple[str, str, str], list[str]] = {}
    for finding in findings:
        cell = finding_cell(finding)
        if cell.status != "measured":
            missing.setdefault((cell.words, cell.where, cell.reason), []).append(cell.name)
    return [(words, ", ".join(names), where, reason) for (words, where, reason), names in missing.items()]


def _own_code(config: Mapping[str, Any]) -> list[str]:
    """What the configuration takes from elsewhere: import paths, and objects that no file holds."""
    found: list[str] = []

    def look(value: Any, key: str) -> None:
        if isinstance(value, Mapping):
            for name, entry in value.items():
                look(entry, f"{key}.{name}" if key else str(name))
        elif isinstance(value, list):
            for entry in value:
                look(entry, key)
        elif isinstance(value, str) and (value == _GIVEN_IN_PYTHON or _IMPORT_PATH.fullmatch(value)):
            found.append(f"{key.removesuffix('.name')} = {value}")

    look({key: value for key, value in config.items() if key not in ("card", "sinks")}, "")
    return found
