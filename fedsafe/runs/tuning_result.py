"""A comparison whose settings were tuned for each budget: its runs, what was chosen, and what the choice costs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from fedsafe.data import Task
from fedsafe.errors import RecordError
from fedsafe.records import to_plain
from fedsafe.runs.cells import Result
from fedsafe.runs.compare import Computed, compute_comparison
from fedsafe.runs.comparison import Comparison, budget_name
from fedsafe.runs.comparison_costs import counted_as
from fedsafe.runs.comparison_tables import series_columns, write_tables
from fedsafe.runs.config import Config
from fedsafe.runs.tuning import Place, Trial, Tuned, Tuning, place_of, tune
from fedsafe.runs.tuning_costs import Spent, cost_of, cost_of_all
from fedsafe.runs.tuning_draws import plain_axes
from fedsafe.runs.tuning_split import named_task
from fedsafe.store.files import replace_file

PRIVATE = "private"


def run_tuned(
    comparison: Comparison,
    tuning: Tuning,
    out: Path,
    *,
    workers: int = 1,
    stack: int = 8,
    model: nn.Module | None = None,
    data: Task | None = None,
    on_done: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[Computed, list[dict[str, Any]]]:
    """Search settings for each budget, train every budget with its own, and write the tables of both.

    Besides what `fedsafe.runs.compare.run_comparison` writes, ``tuning.csv`` and ``tuning.parquet`` have a row for each
    budget: what was chosen, and each unit's epsilon without and with the search. ``trials.csv`` and ``trials.parquet``
    have one for each trial: in ``private/`` where what is claimed rests on their secrecy.

    Args:
        comparison: Its budgets.
        tuning: What to search.
        out: A folder; one with trials and cells of an interrupted comparison goes on with them.
        workers: Processes.
        stack: Runs that one trains together.
        model: A module in place of the configured one.
        data: A task in place of the configured one.
        on_done: Told how many trials, and then runs, are there, and of how many.

    Returns:
        The runs, with ``body["tuning"]``, see :func:`tuning_summary`; and all trials, see :func:`plain_trials`, which
        are their owner's where ``body["tuning"]["rows"]`` is None.

    Raises:
        FedSafeError: As `fedsafe.runs.tuning.tune` and `fedsafe.runs.compare.compute_comparison`.
    """
    options: dict[str, Any] = {"workers": workers, "stack": stack, "model": model, "on_done": on_done}
    tuned = tune(comparison, tuning, out / PRIVATE, data=data, **options)
    # The clock starts after the search: how long it took tells how many trials there were.
    done = compute_comparison(tuned.comparison, out, data=tuned.data, **options)
    whole = named_task(tuned.comparison.base.task)
    body: dict[str, Any] = to_plain(
        {
            **done.body,
            "task": whole if isinstance(whole, str) else str(whole.get("name", "task")),
            "tuning": tuning_summary(tuning, tuned, done),
        }
    )
    write_tables(out, done.cells, done.results, done.keys, body)
    trials = plain_trials(tuned)
    write_tuning(out, trials, body["tuning"])
    return replace(done, body=body), trials


def tuning_summary(tuning: Tuning, tuned: Tuned, done: Computed) -> dict[str, Any]:
    """What a page shows of a search.

    Returns:
        ``on``, ``trials`` (for each budget, on average), ``axes``, ``metric``, ``scored_on`` and ``scored_records``,
        ``judged_on`` (where the final figures come from); ``choices``: for each series and budget ``values``,
        ``score``, ``law`` and ``units``, see `fedsafe.runs.tuning_costs.cost_of`, with ``counted`` (what the figure
        with the search takes for one client, where a run cuts the records otherwise than the trials; None elsewhere);
        ``publishing``, for each unit, see
        `fedsafe.runs.tuning_costs.cost_of_all`; ``earlier`` (how many other searches the folder has); ``rows``: every
        trial, or None where they are secret.
    """
    finals: dict[Place, list[Result]] = {}
    configs: dict[Place, Config] = {}
    for cell, result in zip(done.cells, done.results, strict=True):
        finals.setdefault(place_of(cell), []).append(result)
        configs.setdefault(place_of(cell), cell.config)
    free = tuning.on == "public"
    spent = {
        place: Spent(
            trials=[trial.result for trial in found.trials],
            mean=float(tuning.trials) if found.law == "poisson" and found.axes else None,
            alternatives=found.alternatives,
            finals=finals[place],
            free=free or not found.axes,
        )
        for place, found in tuned.found.items()
    }
    units = [
        unit
        for unit in ("record", "client")
        if unit in tuned.comparison.levels
        or getattr(tuned.comparison.base.privacy, unit).epsilon < float("inf")
    ]
    shown = tuned.comparison.base.privacy.noise_key == "seed" or all(
        found.law == "fixed" for found in tuned.found.values()
    )
    first = next((trial.result for found in tuned.found.values() for trial in found.trials), None)
    return {
        "on": tuning.on,
        "trials": tuning.trials,
        "axes": plain_axes(tuned.axes),
        "metric": done.results[0]["metric"],
        "scored_on": None if first is None else first["scored_on"],
        "scored_records": None if first is None else first["scored_records"],
        "judged_on": done.results[0]["evaluation"],
        "choices": [
            {
                "series": dict(place[0]),
                "epsilon": budget_name(place[1]),
                "law": found.law,
                "searched": [axis.key for axis in found.axes],
                "drawn": found.best is not None,
                "values": found.values,
                "score": _score(found.trials, found.best),
                "units": [
                    {
                        **cost_of(spent[place], unit),
                        "counted": _counted(spent[place], configs[place], tuned, unit),
                    }
                    for unit in units
                ],
            }
            for place, found in tuned.found.items()
        ],
        "publishing": [
            {**cost_of_all(list(spent.values()), unit), "counted": counted_as(tuned.comparison, unit)}
            for unit in units
        ],
        "earlier": tuned.earlier,
        "rows": plain_trials(tuned) if shown else None,
    }


def _counted(spent: Spent, config: Config, tuned: Tuned, unit: str) -> str | None:
    """Trials have the first seed's partition, whatever the seed of the run that follows them."""
    if spent.free:
        return None
    return counted_as(replace(tuned.comparison, base=config, grid={}), unit)


def _score(trials: Sequence[Trial], best: int | None) -> float | None:
    return next((trial.result["score"] for trial in trials if trial.number == best), None)


def plain_trials(tuned: Tuned) -> list[dict[str, Any]]:
    """One row for each trial: where it belongs, its settings, score and noise, and whether it was chosen."""
    return [
        {
            "budget": budget_name(place[1]),
            **series_columns(dict(place[0])),
            "trial": trial.number,
            **{axis.key: trial.values.get(axis.key) for axis in tuned.axes},
            "metric": trial.result["metric"],
            "score": trial.result["score"],
            "chosen": trial.number == found.best,
            **{f"noise_{unit}": value for unit, value in trial.result["noise"].items()},
            "parameters_sha256": trial.result["parameters_sha256"],
            "seconds": trial.result["seconds"],
        }
        for place, found in tuned.found.items()
        for trial in found.trials
    ]


def tuning_table(body: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each series and budget.

    Columns: ``budget``, what the grid names, each setting that was searched (empty where it stays as configured),
    ``score`` of the chosen trial, and for each unit ``alone_UNIT`` and ``search_UNIT`` (epsilon of one run, without and
    with the search), ``delta_UNIT`` and ``accountant_UNIT``.

    Args:
        body: The ``tuning`` of ``comparison.json``.
    """
    rows = []
    for choice in body["choices"]:
        row = {"budget": choice["epsilon"], **series_columns(choice["series"])}
        row |= {axis["key"]: choice["values"].get(axis["key"]) for axis in body["axes"]}
        row["score"] = choice["score"]
        for cost in choice["units"]:
            row |= {
                f"{name}_{cost['unit']}": cost[name] for name in ("alone", "search", "delta", "accountant")
            }
        rows.append(row)
    return pd.DataFrame(rows)


def write_tuning(out: Path, trials: Sequence[Mapping[str, Any]], body: Mapping[str, Any]) -> None:
    """Write the tables of a search.

    Raises:
        RecordError: The folder cannot be written to.
    """
    secret = body["rows"] is None
    try:
        _write(out, "tuning", tuning_table(body))
        _write(out / PRIVATE if secret else out, "trials", pd.DataFrame(trials))
        if secret:
            for name in ("trials.csv", "trials.parquet"):
                (out / name).unlink(missing_ok=True)  # of an earlier search that had nothing to hide
    except OSError as error:
        raise RecordError(f"{out} cannot be written: {error.strerror}; choose another folder") from error


def _write(folder: Path, name: str, frame: pd.DataFrame) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(folder / f"{name}.csv", frame.to_csv(index=False).encode())
    frame.to_parquet(folder / f"{name}.parquet", index=False)
