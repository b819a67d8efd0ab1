"""``fedsafe guard RUN --input FILE --out FILE``: the guarded model over a file, one decision for each row.

``fedsafe guard RUN --report FILE`` reports on what was decided, from the log.
"""

import json
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from fedsafe.errors import ConfigError

_REFUSED = 3


def guard_command(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    source: Annotated[
        Path | None,
        typer.Option(
            "--input", metavar="FILE", help="CSV or Parquet of raw columns, or JSON lines of instances."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Decisions: *.jsonl or *.csv; nothing is overwritten.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Decide nothing, and report on the log: *.md or *.json."),
    ] = None,
    since: Annotated[datetime | None, typer.Option(help="The report begins here, in UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="The report ends before this, in UTC.")] = None,
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
    that fails a requirement of severity `must` is refused with exit code 1. With --report the log of decisions is
    verified and counted.
    """
    if report is not None:
        if source is not None or out is not None:
            raise ConfigError("--report decides nothing: leave --input and --out out")
        _report(run, report, log, since, until)
        return
    if source is None or out is None:
        raise ConfigError("name what is decided and where to: --input FILE --out FILE, or --report FILE")
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


def _report(
    run: Path, target: Path, log: Path | None, since: datetime | None, until: datetime | None
) -> None:
    from fedsafe.serve.decision_log import audit_key, verify_log
    from fedsafe.serve.opening import stream_beside
    from fedsafe.serve.streams import StreamMonitor, period_report
    from fedsafe.store import RunFolder

    if target.suffix not in (".md", ".json"):
        raise ConfigError(f"--report {target} is named neither *.md nor *.json")
    kept = RunFolder.open(run).private / "decisions.jsonl" if log is None else log
    key = kept.with_name(f"{kept.stem}.key")
    if not kept.is_file() or not key.is_file():
        raise ConfigError(f"there is no log of decisions {kept} with its key {key.name}: name one with --log")
    verify_log(kept, audit_key(key))
    stream = stream_beside(kept)
    state = StreamMonitor.load(stream).state() if stream.is_file() else None
    found = period_report(kept, since=since, until=until, stream=state)
    text = found.to_markdown() if target.suffix == ".md" else json.dumps(found.to_json(), indent=1)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"--report {target} cannot be written: {error.strerror}") from error
    typer.echo(f"{found.decisions:,} decisions, the chain of the log is whole\nwritten  {target}")
