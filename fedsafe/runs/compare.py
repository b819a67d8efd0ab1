"""Run a comparison of budgets, and put together what its runs found: tidy tables, and all that its page shows."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from fedsafe.errors import RecordError
from fedsafe.records import to_plain
from fedsafe.runs.cells import CellStore, Result, compute_cells
from fedsafe.runs.comparison import Cell, Comparison, budget_name
from fedsafe.runs.comparison_cell import comparison_cells, paired_cells
from fedsafe.runs.comparison_costs import axis_claims, check_cells, publishing, statements
from fedsafe.runs.comparison_measures import groups, measured
from fedsafe.runs.comparison_summary import curves, enough, fronts, knee, time_table, trend
from fedsafe.runs.start import code_revision, package_versions
from fedsafe.store.files import replace_file

SCHEMA = "fedsafe.comparison/1"
TOLERANCE = 0.01
"""A loss of so much, one point of a share, is what the table calls little."""


def run_comparison(
    comparison: Comparison,
    out: Path,
    *,
    workers: int = 1,
    stack: int = 8,
    on_done: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Train and judge what is missing of a comparison, and write its tables and ``comparison.json``.

    The tables are ``runs.csv`` and ``runs.parquet``, one row for each run, and ``findings.csv`` and
    ``findings.parquet``, one for each of its findings.

    Args:
        comparison: What to compare.
        out: A folder; one with cells of an earlier or interrupted comparison goes on with them.
        workers: Processes.
        stack: Runs that a process trains together.
        on_done: Told how many of the different runs are there, and of how many.

    Returns:
        The content of ``comparison.json``: see :func:`summary`.

    Raises:
        FedSafeError: A cell is not possible, or claims differ, which is said before anything is trained; or one failed.
    """
    began, processors = time.perf_counter(), _processor_seconds()
    cells = list(comparison.cells())
    check_cells(comparison, cells)
    checked = time.perf_counter() - began
    work = paired_cells if comparison.paired else comparison_cells
    store = CellStore(out, work=work.__name__)
    keys = [store.key(cell.config) for cell in cells]
    kept = {key for key in keys if store.read(key) is not None}
    results = compute_cells(
        [cell.config for cell in cells], work, store, workers=workers, stack=stack, on_done=on_done
    )
    fresh = {key: result for key, result in zip(keys, results, strict=True) if key not in kept}
    body: dict[str, Any] = to_plain(
        {
            **summary(comparison, cells, results, keys),
            "time": {
                **time_table(fresh.values()),
                "fresh": len(fresh),
                "kept": len(set(keys)) - len(fresh),
                "checking": checked,
                "wall": time.perf_counter() - began,
                "processors": _processor_seconds() - processors,
                "workers": workers,
            },
        }
    )
    write_tables(out, cells, results, keys, body)
    return body


def summary(
    comparison: Comparison, cells: Sequence[Cell], results: Sequence[Result], keys: Sequence[str]
) -> dict[str, Any]:
    """What a page shows.

    Returns:
        ``axis`` (what an epsilon on an axis says, for each unit), ``curves`` and ``groups`` (each measure, and each
        group's accuracy, against the budget), ``fronts`` (Pareto, of any two), ``choices`` (for each series: the trend,
        the knee and the least budget that loses little), ``statements`` (each budget in other words), ``publishing``
        (what all of it costs together) and ``settings``.

    Raises:
        PlanViolation: Claims are not about the same thing.
    """
    lines = curves(cells, results, measured)
    first, base = results[0], comparison.base
    series = [dict(line) for line in {tuple(cell.series.items()): None for cell in cells}]
    return {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": code_revision(),
        "versions": package_versions(),
        "task": base.task if isinstance(base.task, str) else str(base.task.get("name", "task")),
        "metric": first["metric"],
        "runs": len(set(keys)),
        "settings": {
            "epsilons": [budget_name(epsilon) for epsilon in comparison.epsilons],
            "seeds": comparison.seeds,
            "units": list(comparison.levels),
            "other": _other_levels(comparison),
            "series": series,
            "paired": comparison.paired,
            "reproducible": base.privacy.noise_key == "seed",
            "tier": base.assess.tier,
            "rounds": first["rounds"],
            "clients": first["clients"],
            "parameters": first["parameters"],
            "evaluation": first["evaluation"],
            "evaluation_records": first["evaluation_records"],
        },
        "axis": axis_claims(comparison, results),
        "curves": lines,
        "groups": curves(cells, results, groups),
        "fronts": fronts(lines),
        "choices": [
            {
                "series": one,
                "trend": trend(lines[0], one),
                "knee": knee(lines[0], one),
                "enough": enough(lines[0], one, TOLERANCE),
                "tolerance": TOLERANCE,
            }
            for one in series
        ]
        if lines
        else [],
        "statements": statements(comparison, cells, results),
        "publishing": publishing(comparison, dict(zip(keys, results, strict=True))),
        "config": base.to_toml(),
    }


def _other_levels(comparison: Comparison) -> list[dict[str, Any]]:
    """The levels that stay as they are configured."""
    privacy = comparison.base.privacy
    return [
        {"unit": unit, "epsilon": budget_name(getattr(privacy, unit).epsilon)}
        for unit in ("record", "client")
        if unit not in comparison.levels
    ]


def write_tables(
    out: Path,
    cells: Sequence[Cell],
    results: Sequence[Result],
    keys: Sequence[str],
    body: Mapping[str, Any],
) -> None:
    """Write the tidy tables and ``comparison.json``.

    Raises:
        RecordError: The folder cannot be written to.
    """
    runs, findings = [], []
    for cell, result, key in zip(cells, results, keys, strict=True):
        place = {"budget": budget_name(cell.epsilon), **dict(cell.series), "seed": cell.seed}
        claims = {f"epsilon_{claim['unit']}": claim["epsilon"] for claim in result["claims"]}
        noise = {f"noise_{unit}": value for unit, value in result["noise"].items()}
        figures = {figure.key: figure.value for figure in measured(result["findings"])}
        runs.append(
            {
                **place,
                **claims,
                **noise,
                **result["metrics"],
                **figures,
                "accepted": result["accepted"],
                "parameters_sha256": result["parameters_sha256"],
                "cell": key,
            }
        )
        findings += [
            {
                **place,
                "metric": finding["metric"],
                "where": json.dumps(finding["where"], sort_keys=True),
                "status": finding["status"],
                "value": finding["value"],
                "low": (finding["interval"] or (None, None))[0],
                "high": (finding["interval"] or (None, None))[1],
                "n": finding["n"],
            }
            for finding in result["findings"]
        ]
    try:
        for name, rows in (("runs", runs), ("findings", findings)):
            frame = pd.DataFrame(rows)
            replace_file(out / f"{name}.csv", frame.to_csv(index=False).encode())
            frame.to_parquet(out / f"{name}.parquet", index=False)
        replace_file(out / "comparison.json", json.dumps(body, indent=1, allow_nan=False).encode())
    except OSError as error:
        raise RecordError(f"{out} cannot be written: {error.strerror}; choose another folder") from error


def _processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
