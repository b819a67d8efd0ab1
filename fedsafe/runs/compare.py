"""Run a comparison of budgets, and put together what its runs found: tidy tables, and all that its page shows."""

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fedsafe.data import Task
from fedsafe.errors import RecordError
from fedsafe.records import to_plain
from fedsafe.runs.cells import CellStore, Result, Work, compute_cells
from fedsafe.runs.comparison import Cell, Comparison, budget_name
from fedsafe.runs.comparison_cell import comparison_cells
from fedsafe.runs.comparison_costs import check_cells, panels, publishing, statements
from fedsafe.runs.comparison_measures import audits, groups, measured
from fedsafe.runs.comparison_summary import curves, enough, fronts, knee, time_table, trend
from fedsafe.runs.comparison_tables import write_tables
from fedsafe.runs.compose import Parts
from fedsafe.runs.config import Config
from fedsafe.runs.keys import KEY_FILE, create_key, data_fingerprint, read_key
from fedsafe.runs.start import code_revision, package_versions
from fedsafe.runs.tuning_split import named_task

SCHEMA = "fedsafe.comparison/1"
TOLERANCE = 0.01
"""A loss of so much, one point of a share, is what the table calls little."""


@dataclass(frozen=True, kw_only=True)
class Computed:
    """A comparison whose runs are all there.

    Args:
        cells: In the comparison's order.
        results: Of them.
        keys: Of the results: what decides each.
        body: The content of ``comparison.json``: see :func:`summary`.
        work: Names what computed the results, for a `fedsafe.runs.cells.CellStore`.
        secret: Of the names of cells; None where they do not depend on a user's records.
    """

    cells: Sequence[Cell]
    results: Sequence[Result]
    keys: Sequence[str]
    body: dict[str, Any]
    work: str
    secret: bytes | None = field(default=None, repr=False)


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
    ``findings.parquet``, one for each of its findings; ``configurations/`` has what ``fedsafe run`` makes each run
    from.

    Args:
        comparison: What to compare.
        out: A folder; one with cells of an earlier or interrupted comparison goes on with them.
        workers: Processes.
        stack: Runs that a process trains together.
        on_done: Told how many of the different runs are there, and of how many.

    Returns:
        The content of ``comparison.json``: see :func:`summary`.

    Raises:
        FedSafeError: A cell is not possible, which is said before anything is trained; or one failed.
    """
    done = compute_comparison(comparison, out, workers=workers, stack=stack, on_done=on_done)
    write_tables(out, done.cells, done.results, done.keys, done.body)
    return done.body


def compute_comparison(
    comparison: Comparison,
    out: Path,
    *,
    workers: int = 1,
    stack: int = 8,
    model: nn.Module | None = None,
    data: Task | None = None,
    on_done: Callable[[int, int], None] = lambda done, of: None,
) -> Computed:
    """The same, without its tables, and with a module or a task in place of the configured ones.

    Cells of a user's own records are kept under a digest of these records, keyed with a secret in ``out/private``, so
    that nobody can test a guess of them.

    Raises:
        FedSafeError: As :func:`run_comparison`.
    """
    began, processors = time.perf_counter(), _processor_seconds()
    cells = list(comparison.cells())
    first = check_cells(cells, model=model, data=data)
    checked = time.perf_counter() - began
    work: Work = functools.partial(comparison_cells, model=model, data=data)
    if model is None and data is None:
        work = comparison_cells
    named, secret = comparison_cells.__name__, None
    if model is not None or data is not None or _may_change(comparison.base):
        secret = _secret(out)
        named += f" {_fingerprint(secret, first, model)}"
    store = CellStore(out, work=named)
    keys = [store.key(cell.config) for cell in cells]
    kept = {key for key in keys if store.read(key) is not None}
    results = compute_cells(
        [cell.config for cell in cells],
        work,
        store,
        workers=workers,
        stack=stack,
        order=lambda config: config.seed,
        on_done=on_done,
    )
    fresh = {key: result for key, result in zip(keys, results, strict=True) if key not in kept}
    body: dict[str, Any] = to_plain(
        {
            **summary(comparison, cells, results, keys),
            "others": store.others(keys),
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
    return Computed(cells=cells, results=results, keys=keys, body=body, work=named, secret=secret)


def _may_change(config: Config) -> bool:
    """Whether records come from a file, or a function, of the user's own."""
    task = named_task(config.task)
    if isinstance(task, str):
        return ":" in task
    return "path" in task or ":" in str(task.get("name", ""))


def _secret(out: Path) -> bytes:
    """The folder's own, made where absent."""
    private = out / "private"
    try:
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        return read_key(private) if (private / KEY_FILE).exists() else create_key(private, seed=None)
    except OSError as error:
        raise RecordError(f"{private} cannot be made: {error.strerror}; choose another folder") from error


def _fingerprint(secret: bytes, parts: Parts, model: nn.Module | None) -> str:
    """Of records, and of a module's weights, under the folder's secret."""
    arrays = [
        np.frombuffer(parts.task.description.encode(), np.uint8),
        *(
            array
            for examples in (parts.task.train, parts.task.evaluation)
            for array in (
                examples.x,
                examples.y,
                *(examples.groups[name] for name in sorted(examples.groups)),
            )
        ),
    ]
    if model is not None:
        arrays.append(np.frombuffer(repr(model).encode(), np.uint8))
        arrays += [value.detach().cpu().numpy() for _, value in sorted(model.state_dict().items())]
    return data_fingerprint(secret, arrays)


def summary(
    comparison: Comparison, cells: Sequence[Cell], results: Sequence[Result], keys: Sequence[str]
) -> dict[str, Any]:
    """What a page shows.

    Returns:
        ``axis`` (what an epsilon on an axis says, for each panel and unit), ``curves`` and ``groups`` (each measure,
        and each group's accuracy, against the budget), ``audits`` (what canaries prove and what is accounted for),
        ``fronts`` (Pareto, of any two), ``choices`` (for each series: the trend, the knee and the least budget that
        loses little), ``statements`` (each budget in other words), ``publishing`` (what all of it costs together) and
        ``settings``, in which ``panels`` says which series share an axis.

    Raises:
        PlanViolation: Claims of one series are not about the same thing.
    """
    lines = curves(cells, results, measured)
    first, base, series = results[0], comparison.base, comparison.series
    axes, claims = panels(comparison, cells, results)
    for panel in axes:
        panel["other"] = _other_levels(base, panel["units"])
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
            "series": series,
            "panels": axes,
            "paired": comparison.paired,
            "reproducible": base.privacy.noise_key == "seed",
            "audited": base.audit is not None,
            "tier": base.assess.tier,
            "rounds": first["rounds"],
            "clients": first["clients"],
            "parameters": first["parameters"],
            "evaluation": first["evaluation"],
            "evaluation_records": first["evaluation_records"],
        },
        "axis": claims,
        "curves": lines,
        "groups": curves(cells, results, groups),
        "audits": curves(cells, results, audits),
        "fronts": [
            {"panel": place, **front}
            for place, panel in enumerate(axes)
            for front in fronts(lines, panel["series"])
        ],
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


def _other_levels(base: Config, units: Sequence[str]) -> list[dict[str, Any]]:
    """The levels that stay as they are configured."""
    return [
        {"unit": unit, "epsilon": budget_name(getattr(base.privacy, unit).epsilon)}
        for unit in ("record", "client")
        if unit not in units
    ]


def _processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
