"""One self-contained page that shows a run, made from its shareable record alone."""

import os
from pathlib import Path
from typing import Any

from fedsafe.report import facts, figures, formats
from fedsafe.report.acceptance import held_to, release, widened
from fedsafe.report.areas import areas
from fedsafe.report.audits import AUDIT, audit_alarms, audit_rows
from fedsafe.report.card import render_card
from fedsafe.report.cells import latest_findings, scorecard
from fedsafe.report.page import page
from fedsafe.report.reading import Reading, read_run
from fedsafe.report.tables import group_tables, headline, requirement_rows
from fedsafe.store import RunFolder

_SECTIONS = (
    ("claims", "Privacy claims"),
    ("learning", "Learning curve"),
    ("spend", "Planned spend"),
    ("requirements", "Requirements"),
)
# What the areas, which depend on the findings, come between.
_LAST_SECTIONS = (
    ("scorecard", "Scorecard"),
    ("groups", "Groups"),
    ("federation", "Federation"),
    ("configuration", "Configuration"),
    ("versions", "Versions"),
    ("verify", "How to verify"),
)


def write_report(run: str | os.PathLike[str]) -> Path:
    """Writes ``RUN/report.html`` and ``RUN/card.md`` from the run record alone; nothing under ``private/`` is opened.

    Args:
        run: The run folder, finished or not, or a copy without its private part.

    Returns:
        The path of the page.

    Raises:
        RecordError: The run cannot be read.
    """
    reading, folder = read_run(run), RunFolder.open(run)
    folder.replace_text("card.md", render_card(reading))
    return folder.replace_text("report.html", render(reading))


def render(reading: Reading) -> str:
    """The page of a run, with its style sheet and plots inside.

    Args:
        reading: The run.
    """
    return page("report.html.j2", **_view(reading))


def _view(reading: Reading) -> dict[str, Any]:
    start, latest = reading.start, latest_findings(reading)
    shown = areas(latest)
    plan = start.plan if start else {}
    return {
        "name": reading.name,
        "start": start,
        "end": reading.end,
        "rounds": len(reading.rounds),
        "last": reading.rounds[-1] if reading.rounds else None,
        "last_value": _last_value(reading),
        "status_key": reading.status,
        "release": release(reading),
        "widened": widened(reading),
        "held_to": held_to(reading),
        "under_attack": reading.under_attack,
        "sections": (*_SECTIONS, *((area.id, area.title) for area in shown), *_LAST_SECTIONS),
        "marks": formats.MARKS,
        "config": reading.config,
        "headline": headline(reading),
        "claims": [facts.claim(reading, unit) for unit in ("record", "client")],
        "matrix": facts.matrix(reading),
        "audits": audit_rows(reading),
        "alarms": audit_alarms(reading),
        "learning": figures.learning(reading),
        "spend": [figures.spend(reading, unit) for unit in ("record", "client")],
        "planned_rounds": plan.get("rounds"),
        "assessed": sorted(
            {int(line.get("round") or 0) for line in reading.findings if line.get("assessor") != AUDIT}
        ),
        "scorecard": scorecard(latest),
        "requirements": requirement_rows(reading),
        "groups": group_tables(latest),
        "areas": shown,
        "shards": figures.shards(latest),
        "federation": facts.federation(start) if start else [],
        "provenance": facts.provenance(start) if start else [],
        "verification": facts.verification(reading),
        "plan_hash": plan.get("hash"),
    }


def _last_value(reading: Reading) -> str | None:
    """The headline metric after the last round, as text; None where it was not finite."""
    metric, _ = reading.headline
    value = reading.rounds[-1].metrics.get(metric) if reading.rounds else None
    return None if value is None else formats.quantity(value, "share" if metric == "accuracy" else "")
