"""``fedsafe byzantine CONFIG``: attacks, rules and shares of adversaries as a grid, with a page of heat maps."""

import math
import sys
import time
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


def byzantine_command(
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file; the default experiment if left out.")
    ] = None,
    attacks: Annotated[
        str | None, typer.Option(metavar="A,B", help="On the aggregation, or poisons of records.")
    ] = None,
    aggregators: Annotated[
        str | None, typer.Option(metavar="A,B", help="Rules; NAME+bucketing mixes the rows before.")
    ] = None,
    shares: Annotated[
        str | None, typer.Option(metavar="S,S", help="Of the clients who are adversaries.")
    ] = None,
    epsilon: Annotated[
        str | None, typer.Option(metavar="E,E", help="Record-level budgets; inf is none.")
    ] = None,
    partition: Annotated[str | None, typer.Option(metavar="P,P", help="iid, skewed or both.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs that each cell stands for.")] = 1,
    rounds: Annotated[int | None, typer.Option(help="Of each run; the configuration's if left out.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override an option.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; one for each processor by default.")] = None,
    stack: Annotated[int, typer.Option(help="Runs that a process trains as one stack.")] = 12,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Cells and page; byzantine/CONFIG if left out. A run's report links to RUN/byzantine.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Simulate every attack on every rule, without and with record-level privacy, and name each rule's worst attack.

    Finished runs are kept: the same command goes on after an interruption. Nothing of it is a release.
    """
    require_counts(workers=workers, stack=stack, rounds=rounds)
    began = time.perf_counter()
    axes: dict[str, Any] = {
        "attacks": names("--attacks", attacks),
        "aggregators": names("--aggregators", aggregators),
        "shares": _numbers("--shares", shares),
        "epsilons": _numbers("--epsilon", epsilon),
        "partitions": names("--partition", partition),
    }
    folder = output_folder(out, "byzantine", config)
    with training(folder, as_json=as_json) as kept:
        from fedsafe.runs.byzantine import Grid
        from fedsafe.runs.config import read_config

        overrides = [*(set_ or []), *([] if rounds is None else [f"rounds={rounds}"])]
        base = read_config(config, overrides)
        grid = Grid(base=base, seeds=seeds, **{name: axis for name, axis in axes.items() if axis is not None})
        body = _run(grid, folder, processes(workers), stack, kept)
    page = folder / "byzantine.html"
    finish(body, page, began, as_json=as_json, show=lambda seconds: _show(body, seconds))


def _run(grid: Any, folder: Path, workers: int, stack: int, kept: Kept) -> dict[str, Any]:
    from fedsafe.report.byzantine import render_byzantine
    from fedsafe.runs.byzantine_grid import run_grid

    body = run_grid(grid, folder, workers=workers, stack=stack, on_done=kept)
    (folder / "byzantine.html").write_text(render_byzantine(body, command_line()), encoding="utf-8")
    if folder.resolve().name == "byzantine" and (folder.resolve().parent / "record.jsonl").is_file():
        from fedsafe.report import write_report

        write_report(folder.resolve().parent)  # which now links to it
    return body


def _numbers(option: str, text: str | None) -> list[float] | None:
    numbers = []
    for name in names(option, text) or []:
        try:
            number = float(name)
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise ConfigError(f"{option} {name!r} is not a number: give numbers with commas between them")
        numbers.append(number)
    return numbers or None


def _show(body: dict[str, Any], seconds: float) -> None:
    """Each rule's worst attack, and warnings."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    share = body["metric"] == "accuracy"
    table = Table(
        "records", "epsilon", "adversaries", "rule", "worst attack", body["metric"], "lost", box=None
    )
    for line in body["worst"]:
        shown = (
            "diverged"
            if line["value"] is None
            else f"{100 * line['value']:.1f} %"
            if share
            else f"{line['value']:.3f}"
        )
        lost = (
            "" if line["lost"] is None else f"{100 * line['lost']:+.1f}" if share else f"{line['lost']:+.3f}"
        )
        table.add_row(
            line["partition"],
            str(line["epsilon"]),
            str(line["adversaries"]),
            line["aggregator"],
            line["attack"],
            shown,
            lost,
        )
    console.print(table)
    for warning in body["warnings"]:
        console.print(Text.assemble(("warning: ", "yellow"), warning), soft_wrap=True)
    composed = body["composed"]
    if composed["private"]:
        from fedsafe.report.formats import epsilon

        console.print(
            f"publishing the {composed['private']} runs with a budget costs a record epsilon "
            f"{epsilon(composed['epsilon'])} in all, at delta {composed['delta']:g}",
            soft_wrap=True,
        )
    console.print(f"{body['runs']} runs, {seconds:.0f} s")
