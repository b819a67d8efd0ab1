"""The pages, rendered here: text from files is escaped, and a browser without scripts sees all of it."""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fedsafe.records import headline_metric
from fedsafe.report import facts, formats
from fedsafe.report.acceptance import release
from fedsafe.report.audits import audit_alarms, audit_rows
from fedsafe.report.cells import latest_findings, scorecard
from fedsafe.report.reading import Reading
from fedsafe.report.tables import requirement_rows
from fedsafe.ui.curves import Curve, draw
from fedsafe.ui.runs import UNITS, WholeRun, guarded, planned_rounds

ASSETS: Mapping[str, tuple[str, str]] = {
    "report.css": ("fedsafe.report", "templates/report.css"),
    "ui.css": ("fedsafe.ui", "assets/ui.css"),
    "live.js": ("fedsafe.ui", "assets/live.js"),
}
"""Name in the address to package and path: all that a page asks for, and nothing is asked of another machine."""


def asset(name: str) -> bytes:
    """The content of an asset.

    Args:
        name: A key of `ASSETS`.
    """
    package, path = ASSETS[name]
    return resources.files(package).joinpath(path).read_bytes()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fedsafe.ui"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=formats.number, words=formats.status, moment=formats.moment, at=_address, svg=Markup
    )
    environment.globals["marks"] = formats.MARKS
    return environment


def _address(key: str) -> str:
    """A place in the folder, as a part of an address."""
    return quote(key.encode("utf-8", "surrogateescape"))


def page(template: str, /, **values: Any) -> bytes:
    """A page, or a part of one.

    Args:
        template: Name of a file in ``templates``.
        **values: What it shows.
    """
    # A lone surrogate, which JSON can hold and UTF-8 cannot, becomes a question mark.
    return _environment().get_template(template).render(**values).encode("utf-8", "replace")


def curves_values(run: WholeRun) -> dict[str, Any]:
    """What moves while a run trains: its figures, and its curves.

    Args:
        run: The run.
    """
    problems: list[str] = []
    figures = guarded("The curves", problems, lambda: _figures(run.reading))
    return {"row": run.row, "figures": figures, "problems": problems}


def details_values(run: WholeRun, files: Mapping[str, bool]) -> dict[str, Any]:
    """What changes when a run is assessed or ends.

    Args:
        run: The run.
        files: Which of the files that can be had are there.
    """
    problems = list(run.problems)
    reading, start = run.reading, run.reading.start
    latest = guarded("The findings", problems, lambda: latest_findings(reading)) or []
    makers: Mapping[str, tuple[str, Callable[[], Any]]] = {
        "release": ("What to release", lambda: release(reading)),
        "alarms": ("The alarms", lambda: audit_alarms(reading)),
        "claims": ("The claims", lambda: [facts.claim(reading, unit) for unit in UNITS] if start else []),
        "matrix": ("What is claimed against whom", lambda: facts.matrix(reading)),
        "audits": ("The audit", lambda: audit_rows(reading)),
        "requirements": ("The requirements", lambda: requirement_rows(reading)),
        "scorecard": ("The scorecard", lambda: scorecard(latest)),
        "provenance": ("The provenance", lambda: facts.provenance(start) if start else []),
    }
    shown = {name: guarded(what, problems, make) for name, (what, make) in makers.items()}
    return {"row": run.row, "files": files, "config": reading.config, **shown, "problems": problems}


def _figures(reading: Reading) -> list[dict[str, Any]]:
    """Headline metric and loss, and what is spent of the budgets, each with one sentence."""
    if not reading.rounds:
        return []
    numbers = [line.round for line in reading.rounds]
    last = max(planned_rounds(reading.start) or 0, numbers[-1])
    metric = headline_metric(reading.kind)
    share = metric == "accuracy"
    name = "accuracy" if share else formats.title(f"performance.{metric}")
    scale = 100.0 if share else 1.0
    values = [line.metrics.get(metric) for line in reading.rounds]
    losses = [line.metrics.get("loss") for line in reading.rounds]
    intervals, references = _measured(reading, metric)
    scaled = Curve(
        title=f"{name}{', %' if share else ''}; higher is better",
        rounds=numbers,
        values=[None if value is None else scale * value for value in values],
        last=last,
        lines={key: scale * value for key, value in references.items()},
        intervals={number: (scale * ends[0], scale * ends[1]) for number, ends in intervals.items()},
    )
    unit = ", encoded units" if reading.kind == "regression" else ""
    loss = Curve(title=f"loss{unit}; lower is better", rounds=numbers, values=losses, last=last)
    figures = [
        {"svg": draw(scaled), "reading": _moved(name, numbers, values, "share" if share else "")},
        {"svg": draw(loss), "reading": _moved("mean loss", numbers, losses, "")},
    ]
    return figures + [figure for unit in UNITS if (figure := _spend(reading, unit, last))]


def _measured(reading: Reading, metric: str) -> tuple[dict[int, tuple[float, float]], dict[str, float]]:
    """Intervals of the headline metric by round, and the values that it is held against."""
    intervals, references = {}, {}
    for finding in reading.findings:
        if finding["metric"] == f"performance.{metric}" and not finding.get("where"):
            ends = finding.get("interval")
            if ends and None not in ends:
                intervals[int(finding["round"])] = (float(ends[0]), float(ends[1]))
            anchors = (finding.get("anchors") or {}).items()
            references.update(
                {formats.status(key): float(value) for key, value in anchors if value is not None}
            )
    return intervals, references


def _moved(name: str, numbers: list[int], values: list[float | None], unit: str) -> str:
    """From where to where, in one sentence."""
    newest = "not a finite number" if values[-1] is None else formats.quantity(values[-1], unit)
    said = f"{name[:1].upper()}{name[1:]} after round {numbers[-1]}: {newest}"
    if len(numbers) < 2 or values[0] is None:
        return f"{said}."
    return f"{said}; after round {numbers[0]} it was {formats.quantity(values[0], unit)}."


def _spend(reading: Reading, unit: str, last: int) -> dict[str, Any] | None:
    """Planned epsilon so far; None where nothing is promised at that level."""
    values = [line.spend.get(unit) for line in reading.rounds]
    if not any(value is not None for value in values):
        return None
    level = reading.start.plan.get(unit) if reading.start else None
    target = level.get("epsilon") if isinstance(level, Mapping) else None
    curve = Curve(
        title=f"epsilon spent for one {unit}; lower protects more",
        rounds=[0, *(line.round for line in reading.rounds)],
        values=[0.0, *values],
        last=last,
        floor=0.0,
        lines={} if target is None else {f"target {target:.4g}": float(target)},
    )
    of = "" if target is None else f" of {target:.4g}"
    reached = f"{formats.epsilon(values[-1])}{of} after round {reading.rounds[-1].round}"
    return {"svg": draw(curve), "reading": f"Planned spend for one {unit}, in the worst case: {reached}."}
