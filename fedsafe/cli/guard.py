"""``fedsafe guard RUN --input FILE --out FILE``: the guarded model over a file, one decision for each row."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

_REFUSED = 3


def guard_command(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    source: Annotated[
        Path,
        typer.Option(
            "--input", metavar="FILE", help="CSV or Parquet of raw columns, or JSON lines of instances."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Decisions: *.jsonl or *.csv; nothing is overwritten.")
    ],
    round: Annotated[int | None, typer.Option(help="Whose model; the accepted one if left out.")] = None,
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="Use a model that fails a `must`; each log says so.")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Explain the answers.")] = False,
    level: Annotated[float, typer.Option(help="False-alarm rate of the monitor.")] = 0.05,
    floor: Annotated[float, typer.Option(help="Least confidence of an answer.")] = 0.0,
    note_strange: Annotated[
        bool, typer.Option("--note-strange", help="Answer strange inputs too, and say so.")
    ] = False,
    note_flips: Annotated[
        bool,
        typer.Option("--note-flips", help="Answer where a protected column decides too, and say so."),
    ] = False,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The log of decisions; in RUN/private if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Decide every row of a file, as the service would.

    The exit code is 3 where a row was no record of the schema: such a row gets an abstention that says why. A model
    that fails a requirement of severity `must` is refused with exit code 1.
    """
    from fedsafe.serve.decision import Policy
    from fedsafe.serve.opening import open_guard
    from fedsafe.serve.table_guard import guard_file

    policy = Policy(
        floor=floor,
        strange="note" if note_strange else "abstain",
        flips="note" if note_flips else "abstain",
    )
    guard = open_guard(run, round=round, allow_failed=allow_failed, level=level, policy=policy, log=log)
    try:
        for failed in guard.release.failed:
            sys.stderr.write(f"fedsafe: used though it fails: {failed}\n")
        shown = not as_json and sys.stderr.isatty()

        def told(done: int, total: int) -> None:
            if shown:
                sys.stderr.write(f"\r{done:,} of {total:,} rows{' ' * 8}")
                sys.stderr.flush()

        found = guard_file(guard, source, out, explain=explain, on_rows=told)
        if shown:
            sys.stderr.write("\n")
    finally:
        guard.close()
    if as_json:
        typer.echo(json.dumps({**asdict(found), "out": str(out), "model": guard.release.digest}))
    else:
        typer.echo(
            f"{found.rows:,} rows: {found.answered:,} answered, {found.abstained:,} abstained, "
            f"{found.refused:,} no record of the schema\nwritten  {out}"
        )
    if found.refused:
        sys.stderr.write(
            f"fedsafe: {found.refused:,} rows are no records of the schema; their reasons say why\n"
        )
        sys.exit(_REFUSED)
