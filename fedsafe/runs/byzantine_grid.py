"""Run a grid under attack, and put together what its cells found: rows, the worst attack of each rule, warnings."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from fedsafe.aggregation.attacks import build_attack
from fedsafe.client.poisoning import POISONS
from fedsafe.errors import RecordError
from fedsafe.findings.intervals import t_interval, wilson
from fedsafe.privacy.accounting import COARSE, FINE, account, group_epsilon
from fedsafe.records import to_plain
from fedsafe.runs.byzantine import NO_ATTACK, Cell, Grid
from fedsafe.runs.byzantine_cell import byzantine_cells, read_release
from fedsafe.runs.byzantine_noise import HonestUpdates
from fedsafe.runs.cells import CellStore, Result, compute_cells
from fedsafe.runs.config import Config
from fedsafe.runs.planning import plan_and_claims
from fedsafe.runs.stacked_runs import prepare_runs
from fedsafe.runs.start import code_revision, package_versions
from fedsafe.store.files import replace_file

CONFIDENCE = 0.95
# Of a cell: all axes but the seed.
_AXES = ("partition", "epsilon", "share", "aggregator", "attack")
_OUTSIDE = ("partition", "epsilon", "share")
_WHAT_POISONS_SEE = "its own records and the broadcast models"
_NO_RULE = "mean"
_WIDE = 1e-2


def run_grid(
    grid: Grid,
    out: Path,
    *,
    workers: int = 1,
    stack: int = 12,
    on_done: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Train what is missing of a grid, and write ``cells.csv``, ``cells.parquet`` and ``grid.json``.

    Args:
        grid: What to run.
        out: A folder; one with cells of an earlier or interrupted grid goes on with them.
        workers: Processes.
        stack: Runs that a process trains together.
        on_done: Told how many of the different runs are there, and of how many.

    Returns:
        The content of ``grid.json``: see :func:`summary`.

    Raises:
        FedSafeError: A cell is not possible, which is said before anything is trained; or one failed.
    """
    cells = list(grid.cells())
    claims = check_cells(cells)
    store = CellStore(out, work="byzantine")
    results = compute_cells(
        [cell.config for cell in cells],
        byzantine_cells,
        store,
        workers=workers,
        stack=stack,
        alike=_alike,
        on_done=on_done,
    )
    keys = [store.key(cell.config) for cell in cells]
    rows = [row_of(cell, result, key) for cell, result, key in zip(cells, results, keys, strict=True)]
    body: dict[str, Any] = to_plain(summary(grid, cells, results, rows, keys, claims))
    _write(out, rows, body)
    return body


def _alike(config: Config) -> str:
    """Runs with the same records are trained together: the same partition, seed and poison."""
    poisons = config.byzantine is not None and config.byzantine.poison is not None
    return repr((config.federation.partition, config.seed, config.byzantine if poisons else None))


def check_cells(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Compose one cell of each kind, so that a wrong request is one line before anything slow.

    Returns:
        The record-level claim of a single cell of each budget, as plain values.

    Raises:
        FedSafeError: A cell is not possible.
    """
    kinds: dict[tuple[Any, ...], Cell] = {}
    budgets: dict[float, Cell] = {}
    first = cells[0]
    for cell in cells:
        if cell.seed != first.seed or cell.share != first.share:
            continue
        if cell.attack == NO_ATTACK:
            budgets.setdefault(cell.epsilon, cell)
        if cell.epsilon == first.epsilon and (
            cell.partition == first.partition or cell.aggregator == first.aggregator
        ):
            kinds.setdefault((cell.attack, cell.aggregator, cell.partition), cell)
    prepare_runs([cell.config for cell in kinds.values()])
    claims = []
    for epsilon, cell in budgets.items():
        (run,) = prepare_runs([cell.config])
        planned = plan_and_claims(run.parts, key_from_seed=cell.config.privacy.noise_key == "seed")
        claims += [{**claim, "target": epsilon} for claim in planned.claims if claim["unit"] == "record"]
    return claims


def row_of(cell: Cell, result: Result, key: str) -> dict[str, Any]:
    """One tidy row: a run and what it found."""
    value, n = result["value"], result["n"]
    low = high = None
    if n and value is not None:
        low, high = wilson(round(value * n), n, CONFIDENCE)
    hits, tried = result.get("backdoor") or (None, None)
    return {
        "partition": cell.partition,
        "epsilon": cell.epsilon,
        "share": cell.share,
        "aggregator": cell.aggregator,
        "attack": cell.attack,
        "seed": cell.seed,
        "metric": result["metric"],
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "loss": result["loss"],
        "finite": result["finite"],
        "adversaries": result["adversaries"],
        "clients": result["clients"],
        "rounds": result["rounds"],
        "noise_multiplier": result["noise_multiplier"],
        "backdoor_success": hits / tried if tried else None,
        "cell": key,
    }


def summary(
    grid: Grid,
    cells: Sequence[Cell],
    results: Sequence[Result],
    rows: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    claims: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What a page shows.

    Returns:
        ``cells`` (a mean over seeds and its interval for each combination of axes), ``worst`` (of each rule),
        ``noise`` (of each partition, budget and share), ``warnings``, ``attacks`` (each with its adversary, what it
        sees and what it costs), ``composed`` (what publishing all cells costs), ``claims`` and ``settings``.
    """
    means = mean_cells(rows)
    worst = worst_attacks(means)
    noise = noise_figures(cells, results)
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": code_revision(),
        "versions": package_versions(),
        "metric": results[0]["metric"],
        "task": grid.base.task
        if isinstance(grid.base.task, str)
        else str(grid.base.task.get("name", "task")),
        "settings": {
            "attacks": list(grid.attacks),
            "aggregators": list(grid.aggregators),
            "shares": list(grid.shares),
            "epsilons": [_named(epsilon) for epsilon in grid.epsilons],
            "partitions": list(grid.partitions),
            "seeds": grid.seeds,
            "rounds": grid.base.rounds,
            "clients": results[0]["clients"],
            "parameters": results[0]["parameters"],
        },
        "runs": len(set(keys)),
        "interval": f"t over {grid.seeds} seeds" if grid.seeds > 1 else "Wilson, over the evaluation records",
        "attacks": [describe_attack(name) for name in grid.attacks],
        "cells": means,
        "worst": worst,
        "noise": noise,
        "warnings": [line for figures in noise if (line := figures["warning"]) is not None],
        "composed": composed(dict(zip(keys, results, strict=True))),
        "claims": [dict(claim) for claim in claims],
        "config": grid.base.to_toml(),
    }


def mean_cells(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each combination of axes: mean over seeds, interval, and what it lost against the unattacked run.

    The reference is the mean of rows without attack, where it is in the grid; otherwise the rule's own run without
    attack.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[axis] for axis in _AXES), []).append(row)
    found = {}
    for place, group in groups.items():
        values = [row["value"] for row in group if row["value"] is not None]
        whole = len(values) == len(group)
        value = sum(values) / len(values) if whole else None
        interval = (group[0]["low"], group[0]["high"]) if len(group) == 1 else None
        if len(group) > 1 and whole:
            interval = t_interval(values, CONFIDENCE)
        successes = [row["backdoor_success"] for row in group if row["backdoor_success"] is not None]
        found[place] = {
            **dict(zip(_AXES, place, strict=True)),
            "epsilon": _named(place[1]),
            "value": value,
            "low": None if interval is None else interval[0],
            "high": None if interval is None else interval[1],
            "adversaries": group[0]["adversaries"],
            "backdoor_success": sum(successes) / len(successes) if successes else None,
        }
    for place, line in found.items():
        outside, aggregator = place[:3], place[3]
        plain = found.get((*outside, _NO_RULE, NO_ATTACK), found.get((*outside, aggregator, NO_ATTACK)))
        both = plain is not None and plain["value"] is not None and line["value"] is not None
        line["lost"] = plain["value"] - line["value"] if both and plain is not None else None
    return list(found.values())


def worst_attacks(means: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each rule, in each partition, budget and share: the attack under which least is left; not finite is least."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for line in means:
        if line["attack"] != NO_ATTACK:
            groups.setdefault((*(line[axis] for axis in _OUTSIDE), line["aggregator"]), []).append(line)
    return [
        dict(min(group, key=lambda line: -math.inf if line["value"] is None else line["value"]))
        for group in groups.values()
    ]


def noise_figures(cells: Sequence[Cell], results: Sequence[Result]) -> list[dict[str, Any]]:
    """How honest updates compare with the noise in them, and a warning where that makes every rule vacuous."""
    figures: dict[tuple[str, float, float], dict[str, Any]] = {}
    for cell, result in zip(cells, results, strict=True):
        place = (cell.partition, cell.epsilon, cell.share)
        if "honest" not in result or place in figures:
            continue
        honest = HonestUpdates(**result["honest"])
        adversaries = round(cell.share * honest.clients)
        vacuous = honest.vacuous(adversaries)
        figures[place] = {
            "partition": cell.partition,
            "epsilon": _named(cell.epsilon),
            "share": cell.share,
            "adversaries": adversaries,
            **result["honest"],
            "reach": honest.reach(adversaries),
            "reach_without_noise": honest.reach_without_noise(adversaries),
            "vacuous": vacuous,
            "warning": (
                f"epsilon {cell.epsilon:g}, {cell.partition}, {adversaries} of {honest.clients} adversaries: every "
                f"rule is vacuous; an honest update's noise is {_times(honest.noise, honest.mean)} the honest mean, "
                f"and the best guarantee of any rule lets the result be {honest.reach(adversaries):.2g} times that "
                "mean away from it"
            )
            if vacuous
            else None,
        }
    return list(figures.values())


def composed(results: Mapping[str, Result]) -> dict[str, Any]:
    """What one record, or all that one person has, pays where every run of the grid is published.

    Args:
        results: By key: the runs that are different.
    """
    private = [result for result in results.values() if result["release"] is not None]
    found: dict[str, Any] = {"runs": len(results), "private": len(private), "epsilon": None, "delta": None}
    if not private:
        return found
    delta = max(result["delta"] for result in private)
    # Many runs cost so much together that a wide interval, still an upper bound, is off by less than a thousandth.
    interval = FINE if len(private) == 1 else COARSE if len(private) <= 10 else _WIDE
    releases = [read_release(result["release"]) for result in private]
    together = account(releases, delta, interval=interval)
    found |= {"epsilon": together.epsilon, "delta": delta, "accountant": together.accountant}
    group = max(result.get("group", 1) for result in private)
    if group > 1:
        # The claim of a run is for all records of a person, and what runs come to together may not be for less.
        bound = group_epsilon(releases[0], delta, group, tuple(releases[1:]), interval)
        found["epsilon"] = bound if math.isfinite(bound) else None
        found["accountant"] += f", for all of the {group} records of one person"
    return found


def describe_attack(name: str) -> dict[str, str]:
    """Who the adversary of an attack is, what it sees, and what it costs it."""
    if name in POISONS:
        return {
            "attack": name,
            "adversary": "clients who poison their records and then train as told",
            "sees": _WHAT_POISONS_SEE,
            "costs": "nothing but what training costs",
        }
    said = getattr(build_attack(name), "sees", "what its code reads")
    return {
        "attack": name,
        "adversary": "clients who act as one and send what they like",
        "sees": str(said),
        "costs": "next to nothing to compute; what it sees, no real client has"
        if "honest" in str(said)
        else "next to nothing to compute",
    }


def _write(out: Path, rows: Sequence[Mapping[str, Any]], body: Mapping[str, Any]) -> None:
    frame = pd.DataFrame([{**row} for row in rows])
    try:
        replace_file(out / "cells.csv", frame.to_csv(index=False).encode())
        frame.to_parquet(out / "cells.parquet", index=False)
        replace_file(out / "grid.json", json.dumps(body, indent=1, allow_nan=False).encode())
    except OSError as error:
        raise RecordError(f"{out} cannot be written: {error.strerror}; choose another folder") from error


def _named(epsilon: float) -> float | str:
    """JSON has no infinity."""
    return "inf" if math.isinf(epsilon) else epsilon


def _times(noise: float, mean: float) -> str:
    return f"{noise / mean:.2g} times" if mean > 0.0 else "infinitely longer than"
