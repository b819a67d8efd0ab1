"""``fedsafe verify TARGET``: whether code does what its privacy claim says."""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer


def verify_command(
    target: Annotated[
        str,
        typer.Argument(
            help="An experiment's TOML file, or 'module:object' of a Flower Strategy or ClientApp.",
            metavar="TARGET",
        ),
    ],
    claim: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What is claimed (docs/verify.md).")
    ] = None,
    runs: Annotated[int, typer.Option(help="How often each measurement is repeated.")] = 40,
    seed: Annotated[int, typer.Option(help="Of what the checks choose.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Markdown report too.")] = None,
    path: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Import the target from this folder.")
    ] = None,
) -> None:
    """Check sensitivity, noise, sampling, accounting and releases of a plan, a strategy or a ClientApp.

    The exit code is 1 if a check fails.
    """
    from fedsafe.verify import verify

    # What the target prints is no part of the result.
    with redirect_stdout(sys.stderr):
        found = verify(target, claim, runs=runs, seed=seed, path=path)
    if report is not None:
        report.write_text(found.to_markdown(), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(found.to_json(), allow_nan=False))
    else:
        for line in found.lines():
            typer.echo(line)
    if found.failures:
        raise typer.Exit(1)
