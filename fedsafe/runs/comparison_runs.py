"""Finished runs beside each other: their findings, their claims, and what their configurations have apart."""

import itertools
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsafe.errors import ConfigError, PlanViolation, RecordError
from fedsafe.privacy.claim import require_comparable
from fedsafe.records import to_plain
from fedsafe.runs.comparison_costs import equivalents
from fedsafe.runs.comparison_measures import Measured, describe, groups, measured
from fedsafe.runs.result import Run
from fedsafe.store import RunFolder

SCHEMA = "fedsafe.comparison-of-runs/1"
# Facts of a task that must be the same for figures to be about the same thing.
_TASK = ("name", "kind", "classes", "features", "evaluation", "evaluation_records")


def compare_runs(paths: Sequence[Path]) -> dict[str, Any]:
    """What two or more run folders found, of the same task.

    Args:
        paths: Run folders, or shared copies of them.

    Returns:
        ``runs`` (name, status, rounds, claims), ``measures`` and ``groups`` (each with a value and interval for each
        run, and its difference to the first), ``claims`` (for each unit: the epsilons, or why they stand on no common
        axis) and ``settings`` (what the configurations have apart).

    Raises:
        RecordError: A path is not a run folder, or the run was never assessed.
        ConfigError: The runs are of different tasks, or one is named twice.
    """
    runs = [_read(path) for path in paths]
    names = [run["path"] for run in runs]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ConfigError(f"{repeated[0]} is named twice: a run differs in nothing from itself")
    _require_same_task(runs)
    configs = [_flat(run["config"]) for run in runs]
    keys = sorted(set(itertools.chain.from_iterable(configs)))
    body: dict[str, Any] = to_plain(
        {
            "schema": SCHEMA,
            "task": runs[0]["task"].get("name"),
            "evaluation": runs[0]["task"].get("evaluation"),
            "runs": [
                {key: run[key] for key in ("name", "path", "status", "rounds", "assessed", "reproducible")}
                for run in runs
            ],
            "claims": [_claims(runs, unit) for unit in ("record", "client")],
            "measures": _rows([measured(run["findings"]) for run in runs]),
            "groups": _rows([groups(run["findings"]) for run in runs]),
            "settings": [
                {"key": key, "values": [config.get(key) for config in configs]}
                for key in keys
                if len({config.get(key) for config in configs}) > 1
            ],
        }
    )
    return body


def _read(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise RecordError(f"{path} is not a run folder: name the folders of finished runs, or one TOML file")
    folder, run = RunFolder.open(path), Run(path)
    start, end, findings = run.start, run.end, run.last_findings()
    if not findings:
        raise RecordError(
            f"{path} has no findings: let the run go on to an assessment, with fedsafe run --resume"
        )
    return {
        "name": path.resolve().name,
        "path": str(path.resolve()),
        "config": tomllib.loads(folder.config),
        "task": dict(start.task),
        "claims": run.claims,
        "reproducible": start.reproducible,
        "status": "unfinished" if end is None else end.status,
        "rounds": max((int(finding["round"]) for finding in findings), default=0)
        if end is None
        else end.rounds,
        "assessed": max(int(finding["round"]) for finding in findings),
        "findings": findings,
    }


def _require_same_task(runs: Sequence[Mapping[str, Any]]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for key in _TASK:
            one, other = first["task"].get(key), run["task"].get(key)
            if one != other:
                raise ConfigError(
                    f"{first['name']} and {run['name']} are of different tasks ({key} {one!r} against {other!r}): "
                    "compare runs of one task, judged on the same records"
                )


def _claims(runs: Sequence[Mapping[str, Any]], unit: str) -> dict[str, Any]:
    claims = [next((claim for claim in run["claims"] if claim["unit"] == unit), None) for run in runs]
    private = [claim for claim in claims if claim is not None and claim["epsilon"] is not None]
    refused = None
    try:
        for claim in private[1:]:
            require_comparable(private[0], claim)
    except PlanViolation as error:
        refused = str(error)
    return {
        "unit": unit,
        "refused": refused,
        "epsilons": [None if claim is None else claim["epsilon"] for claim in claims],
        "deltas": [None if claim is None else claim["delta"] for claim in claims],
        "statements": ["" if claim is None else claim["statement"] for claim in claims],
        "equivalents": [
            equivalents(None if claim is None else claim["epsilon"], 0.5 if claim is None else claim["delta"])
            for claim in claims
        ],
    }


def _rows(runs: Sequence[Sequence[Measured]]) -> list[dict[str, Any]]:
    """One for each measure that any run has."""
    by_run = [{figure.key: figure for figure in figures} for figures in runs]
    keys = dict.fromkeys(figure.key for figures in runs for figure in figures)
    rows = []
    for key in keys:
        figures = [found.get(key) for found in by_run]
        shown = next(figure for figure in figures if figure is not None)
        if any(figure is not None and figure.value is not None for figure in figures):
            rows.append(
                {
                    **describe(shown),
                    "values": [None if figure is None else figure.value for figure in figures],
                    "intervals": [None if figure is None else figure.interval for figure in figures],
                    "differences": [_difference(figures[0], figure) for figure in figures[1:]],
                }
            )
    return rows


def _difference(first: Measured | None, other: Measured | None) -> dict[str, float | None]:
    """Of the other to the first.

    The interval takes both as independent (Zou and Donner, 2008), which is wide for models that are judged on the same
    records: a record says nothing of single examples.
    """
    if first is None or other is None or first.value is None or other.value is None:
        return {"value": None, "low": None, "high": None}
    value = other.value - first.value
    if first.interval is None or other.interval is None:
        return {"value": value, "low": None, "high": None}
    below = math.hypot(other.value - other.interval[0], first.interval[1] - first.value)
    above = math.hypot(other.interval[1] - other.value, first.value - first.interval[0])
    return {"value": value, "low": value - below, "high": value + above}


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Dotted keys to values as text; where a run has one, what it ran on is no difference."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if not before and key in ("engine", "sinks", "card"):
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = str(value)
    return found
