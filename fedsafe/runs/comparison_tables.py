"""The files of a comparison: tidy tables of its runs and their findings, each run's configuration, and the summary."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fedsafe.errors import RecordError
from fedsafe.runs.cells import Result
from fedsafe.runs.comparison import CLIPPED, UNIT, Cell, budget_name
from fedsafe.runs.comparison_measures import audits, measured
from fedsafe.store.files import replace_file

CONFIGURATIONS = "configurations"
"""Folder of the configurations that ``fedsafe run`` makes each run from."""

# Of what tells series apart, so much is in a file's name.
_LONGEST = 60


def run_table(cells: Sequence[Cell], results: Sequence[Result], keys: Sequence[str]) -> pd.DataFrame:
    """One row for each run.

    Columns: ``budget``, what the grid names, ``seed``, ``epsilon_UNIT`` of the claims (empty without a guarantee),
    ``noise_UNIT`` (the multipliers), the metrics, each figure of the page, ``accepted``, ``parameters_sha256``,
    ``cell`` (its key) and ``configuration`` (its file; empty where ``fedsafe run`` has no such run).
    """
    rows = []
    for cell, result, key in zip(cells, results, keys, strict=True):
        found = result["findings"]
        rows.append(
            {
                **_place(cell),
                **{f"epsilon_{claim['unit']}": claim["epsilon"] for claim in result["claims"]},
                **{f"noise_{unit}": value for unit, value in result["noise"].items()},
                **result["metrics"],
                **{figure.key: figure.value for figure in (*measured(found), *audits(found))},
                "accepted": result["accepted"],
                "parameters_sha256": result["parameters_sha256"],
                "cell": key,
                "configuration": configuration_name(cell),
            }
        )
    return pd.DataFrame(rows)


def finding_table(cells: Sequence[Cell], results: Sequence[Result]) -> pd.DataFrame:
    """One row for each finding of each run.

    Columns: ``budget``, what the grid names, ``seed``, ``metric``, ``where`` (as JSON), ``status``, ``value``, ``low``
    and ``high`` (over the evaluation records of the run alone) and ``n``.
    """
    rows = []
    for cell, result in zip(cells, results, strict=True):
        for finding in result["findings"]:
            low, high = finding["interval"] or (None, None)
            rows.append(
                {
                    **_place(cell),
                    "metric": finding["metric"],
                    "where": json.dumps(finding["where"], sort_keys=True),
                    "status": finding["status"],
                    "value": finding["value"],
                    "low": low,
                    "high": high,
                    "n": finding["n"],
                }
            )
    return pd.DataFrame(rows)


def configuration_name(cell: Cell) -> str | None:
    """The file of a run's configuration; None for a level that clips without noise, which ``fedsafe run`` has not."""
    if cell.epsilon == CLIPPED:
        return None
    series = "-".join(f"{key}-{value}" for key, value in cell.series.items())
    named = re.sub(r"[^\w.]+", "-", series, flags=re.ASCII).strip("-")
    if len(named) > _LONGEST or named != series:
        named = f"{named[:_LONGEST]}-{hashlib.sha256(series.encode()).hexdigest()[:6]}"
    before = f"{named}-" if series else ""
    return f"{before}epsilon-{budget_name(cell.epsilon)}-seed-{cell.seed}.toml"


def write_tables(
    out: Path,
    cells: Sequence[Cell],
    results: Sequence[Result],
    keys: Sequence[str],
    body: Mapping[str, Any],
) -> None:
    """Write the tidy tables, the configurations and ``comparison.json``.

    Raises:
        RecordError: The folder cannot be written to.
    """
    try:
        for name, frame in (
            ("runs", run_table(cells, results, keys)),
            ("findings", finding_table(cells, results)),
        ):
            replace_file(out / f"{name}.csv", frame.to_csv(index=False).encode())
            frame.to_parquet(out / f"{name}.parquet", index=False)
        (out / CONFIGURATIONS).mkdir(exist_ok=True)
        for cell in cells:
            file = configuration_name(cell)
            if file is not None:
                replace_file(out / CONFIGURATIONS / file, cell.config.to_toml().encode())
        replace_file(out / "comparison.json", json.dumps(body, indent=1, allow_nan=False).encode())
    except OSError as error:
        raise RecordError(f"{out} cannot be written: {error.strerror}; choose another folder") from error


def series_columns(series: Mapping[str, str]) -> dict[str, str]:
    """What tells series apart, as columns: ``budget_unit`` for the unit of budgets, since measures have a unit, too."""
    return {"budget_unit" if key == UNIT else key: value for key, value in series.items()}


def _place(cell: Cell) -> dict[str, Any]:
    return {"budget": budget_name(cell.epsilon), **series_columns(cell.series), "seed": cell.seed}
