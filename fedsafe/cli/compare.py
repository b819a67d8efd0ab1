"""``fedsafe compare``: what each privacy budget costs, in one command; or finished runs beside each other."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fedsafe.cli.grids import (
    Kept,
    command_line,
    finish,
    names,
    output_folder,
    processes,
    require_counts,
    training,
)
from fedsafe.errors import ConfigError


def compare_command(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[CONFIG | RUN_A RUN_B ...]",
            help="A TOML file, the default experiment if left out; or run folders.",
        ),
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(
            metavar="E,E", help="Budgets; inf is no privacy, clipped is no noise. 0.5,1,2,4,8,inf by default."
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of each budget; 5 by default.")] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            metavar="UNIT", help="record, client or both; by default the levels that have a target."
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="A.B=C,D", help="A series of budgets for each value of an option."),
    ] = None,
    paired: Annotated[
        bool, typer.Option("--paired", help="Share cohorts, batches and noise; needs --reproducible.")
    ] = False,
    reproducible: Annotated[
        bool, typer.Option("--reproducible", help="Derive the noise from the seed: no guarantee is claimed.")
    ] = False,
    tier: Annotated[str | None, typer.Option(metavar="TIER", help="Of the assessors: cheap or full.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Of each run; the configuration's if left out.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override an option.")
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,NAME=L..H",
            help="Search settings for each budget: clip, lr, server-lr, momentum, rate, steps, or any key.",
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Of each search, on average; 8 by default.")] = None,
    tune_on: Annotated[
        str | None,
        typer.Option(metavar="SPLIT", help="held-out (the default; its cost is stated) or public records."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; one for each processor by default.")] = None,
    stack: Annotated[int, typer.Option(help="Runs that a process trains as one stack.")] = 8,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Runs and page; comparisons/CONFIG if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Train every budget with several seeds, all as one stack, and show what privacy costs, and whom.

    Finished runs are kept: the same command goes on after an interruption, and another budget adds its own runs alone.
    """
    require_counts(workers=workers, stack=stack, rounds=rounds)
    given = sources or []
    began = time.perf_counter()
    if any(path.is_dir() for path in given) or len(given) > 1:
        options = {
            "--epsilon": epsilon,
            "--seeds": seeds,
            "--unit": unit,
            "--grid": grid,
            "--paired": paired,
            "--reproducible": reproducible,
            "--tier": tier,
            "--rounds": rounds,
            "--set": set_,
            "--tune": tune,
            "--trials": trials,
            "--tune-on": tune_on,
            "--workers": workers,
        }
        _compare_runs(given, [option for option, value in options.items() if value], out, as_json=as_json)
        return
    config = given[0] if given else None
    folder = output_folder(out, "comparisons", config)
    with training(folder, as_json=as_json) as kept:
        from fedsafe.runs.comparison import DEFAULT_EPSILONS, DEFAULT_SEEDS, Comparison, read_budget
        from fedsafe.runs.config import read_config

        overrides = [
            *(set_ or []),
            *([] if rounds is None else [f"rounds={rounds}"]),
            *([] if tier is None else [f"assess.tier={tier}"]),
            *(['privacy.noise_key="seed"'] if reproducible else []),
        ]
        budgets = names("--epsilon", epsilon)
        comparison = Comparison(
            base=read_config(config, overrides),
            epsilons=DEFAULT_EPSILONS if budgets is None else [read_budget(name) for name in budgets],
            seeds=DEFAULT_SEEDS if seeds is None else seeds,
            unit=unit,  # type: ignore[arg-type]  # refused there
            grid=_axes(grid or []),
            paired=paired,
        )
        tuning = _tuning(tune, trials, tune_on)
        body = _run(comparison, tuning, folder, processes(workers), stack, kept)
    page = folder / "comparison.html"
    if tuning is not None and body["tuning"]["rows"] is None:
        # The time of a search tells how many trials there were, which is a secret.
        began = time.perf_counter() - body["time"]["wall"]
    finish(body, page, began, as_json=as_json, show=lambda seconds: _show(body, seconds))


def _tuning(names: Sequence[str] | None, trials: int | None, on: str | None) -> Any:
    if names is None:
        for option, value in (("--trials", trials), ("--tune-on", on)):
            if value is not None:
                raise ConfigError(
                    f"{option} is about a search: add --tune with the settings to search, or leave it out"
                )
        return None
    from fedsafe.runs.tuning import DEFAULT_TRIALS, Tuning

    return Tuning(
        names=names,
        trials=DEFAULT_TRIALS if trials is None else trials,
        on="held-out" if on is None else on,  # type: ignore[arg-type]  # refused there
    )


def _run(comparison: Any, tuning: Any, folder: Path, workers: int, stack: int, kept: Kept) -> dict[str, Any]:
    from fedsafe.report.comparison import render_comparison
    from fedsafe.runs.compare import run_comparison
    from fedsafe.store.files import replace_file

    if tuning is None:
        body = run_comparison(comparison, folder, workers=workers, stack=stack, on_done=kept)
    else:
        from fedsafe.report.comparison_tuning import OWNERS_PAGE, render_search
        from fedsafe.runs.tuning_result import PRIVATE, run_tuned

        done, trials = run_tuned(comparison, tuning, folder, workers=workers, stack=stack, on_done=kept)
        body = done.body
        if body["tuning"]["rows"] is None:
            replace_file(folder / PRIVATE / OWNERS_PAGE, render_search(body, trials).encode())
    replace_file(folder / "comparison.html", render_comparison(body, command_line()).encode())
    return body


def _compare_runs(paths: Sequence[Path], unfit: Sequence[str], out: Path | None, *, as_json: bool) -> None:
    if unfit:
        raise ConfigError(f"{unfit[0]} is about runs to make, and run folders are given: leave it out")
    if len(paths) < 2:
        raise ConfigError(f"{paths[0]} is one run folder: name another to compare it with, or a TOML file")
    from fedsafe.report.comparison_runs import closing_lines, render_runs
    from fedsafe.runs.comparison_runs import compare_runs
    from fedsafe.store.files import replace_file

    body = compare_runs(paths)
    named = Path("-".join(path.resolve().name for path in paths) + ".runs")
    folder = output_folder(out, "comparisons", named)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "comparison.html"
    replace_file(folder / "comparison.json", json.dumps(body, indent=1, allow_nan=False).encode())
    replace_file(page, render_runs(body).encode())
    if as_json:
        typer.echo(json.dumps({**body, "page": str(page), "exit_status": 0}, allow_nan=False))
        return
    for line in closing_lines(body):
        typer.echo(line)
    typer.echo(f"written  {page}")


def _axes(given: Sequence[str]) -> dict[str, list[str]]:
    """Keys to values; commas inside brackets and quotes are part of a value."""
    axes: dict[str, list[str]] = {}
    for text in given:
        key, equals, values = text.partition("=")
        if not equals or not key.strip() or not values.strip():
            raise ConfigError(f"--grid {text!r} is not of the form a.b=c,d")
        if key.strip() in axes:
            raise ConfigError(f"--grid {key.strip()} is given twice: put all values into one")
        axes[key.strip()] = _split(values)
    return axes


def _split(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        depth += (letter in "[{") - (letter in "]}") if not quote else 0
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _show(body: dict[str, Any], seconds: float) -> None:
    """Each budget with what it costs, and where the time went."""
    from rich.console import Console
    from rich.table import Table

    from fedsafe.report.comparison import closing_rows, time_rows
    from fedsafe.report.comparison_panels import panels_of
    from fedsafe.report.comparison_tuning import tuning_lines
    from fedsafe.report.formats import epsilon

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    for heads, rows in (closing_rows(body), time_rows(body)):
        table = Table(*heads, box=None)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for panel in panels_of(body):
        console.print(f"{f'{panel.title}: ' if panel.title else ''}{panel.claim}", soft_wrap=True)
    for text in tuning_lines(body):
        console.print(text, soft_wrap=True)
    for line in body["publishing"]:
        if line["epsilon"] is not None:
            counted = "" if line["counted"] is None else f", of {line['counted']}"
            console.print(
                f"publishing the {line['private']} runs with a guarantee costs a {line['unit']} epsilon "
                f"{epsilon(line['epsilon'])} in all, at delta {line['delta']:g}{counted}",
                soft_wrap=True,
            )
        else:
            console.print(
                f"no {line['unit']}-level figure for publishing them all: {line['reason']}", soft_wrap=True
            )
    spent = body["time"]
    console.print(
        f"{body['runs']} runs ({spent['fresh']} computed now), {seconds:.0f} s, {spent['processors']:.0f} s of "
        "processor time"
    )
