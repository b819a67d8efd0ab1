"""``fedsafe byzantine CONFIG``: attacks, rules and shares of adversaries as a grid, with a page of heat maps."""

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from fedsafe.errors import ConfigError

_INTERRUPTED = 130


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
    for option, number in (("--workers", workers), ("--stack", stack), ("--rounds", rounds)):
        if number is not None and number < 1:
            raise ConfigError(f"{option} {number}: give a whole number from 1")
    began = time.perf_counter()
    axes: dict[str, Any] = {
        "attacks": _names("--attacks", attacks),
        "aggregators": _names("--aggregators", aggregators),
        "shares": _numbers("--shares", shares),
        "epsilons": _numbers("--epsilon", epsilon),
        "partitions": _names("--partition", partition),
    }
    # What anything else prints is no part of the result.
    with redirect_stdout(sys.stderr):
        from fedsafe.runs.byzantine import Grid
        from fedsafe.runs.config import read_config

        overrides = [*(set_ or []), *([] if rounds is None else [f"rounds={rounds}"])]
        base = read_config(config, overrides)
        grid = Grid(base=base, seeds=seeds, **{name: axis for name, axis in axes.items() if axis is not None})
        folder = out if out is not None else Path("byzantine") / (config.stem if config else "default")
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"--out {folder} is a file: name a folder")
        kept = Kept(silent if as_json else say)
        try:
            body = _run(grid, folder, os.cpu_count() or 1 if workers is None else workers, stack, kept)
        except KeyboardInterrupt:
            kept.end()
            sys.stderr.write(
                f"interrupted: {kept.done} of {kept.of} runs or more are kept in {folder}; the same command goes on\n"
            )
            raise typer.Exit(_INTERRUPTED) from None
        kept.end()
    page = folder / "byzantine.html"
    if as_json:
        seconds = time.perf_counter() - began
        typer.echo(
            json.dumps({**body, "seconds": seconds, "page": str(page), "exit_status": 0}, allow_nan=False)
        )
    else:
        _show(body, page, time.perf_counter() - began)


def _run(grid: Any, folder: Path, workers: int, stack: int, kept: "Kept") -> dict[str, Any]:
    from fedsafe.report.byzantine import render_byzantine
    from fedsafe.runs.byzantine_grid import run_grid

    body = run_grid(grid, folder, workers=workers, stack=stack, on_done=kept)
    command = shlex.join(["fedsafe", *sys.argv[1:]])
    (folder / "byzantine.html").write_text(render_byzantine(body, command), encoding="utf-8")
    if folder.resolve().name == "byzantine" and (folder.resolve().parent / "record.jsonl").is_file():
        from fedsafe.report import write_report

        write_report(folder.resolve().parent)  # which now links to it
    return body


class Kept:
    """Counts runs that are done, and says so on one line.

    Args:
        say: Where.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.done, self.of = 0, 0

    def __call__(self, done: int, of: int) -> None:
        """So many are done, of so many."""
        self.done, self.of = done, of
        self._say(f"\r{done} of {of} runs")

    def end(self) -> None:
        """No more."""
        if self.of:
            self._say("\n")


def say(text: str) -> None:
    """To a terminal, if there is one."""
    if sys.stderr.isatty():
        sys.stderr.write(text)
        sys.stderr.flush()


def silent(text: str) -> None:
    """Nothing."""


def _names(option: str, text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"{option} {text!r} names nothing: give names with commas between them")
    return names


def _numbers(option: str, text: str | None) -> list[float] | None:
    numbers = []
    for name in _names(option, text) or []:
        try:
            number = float(name)
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise ConfigError(f"{option} {name!r} is not a number: give numbers with commas between them")
        numbers.append(number)
    return numbers or None


def _show(body: dict[str, Any], page: Path, seconds: float) -> None:
    """Each rule's worst attack, warnings, and where the page is."""
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
    console.print(f"written  {page}", soft_wrap=True)
