"""``fedsafe run``: train, assess, record, report."""

import json
import os
import sys
from contextlib import nullcontext, redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsafe.errors import ConfigError

if TYPE_CHECKING:
    from fedsafe.cli.progress import Progress
    from fedsafe.runs.result import Run


class Engine(StrEnum):
    """Where clients run."""

    RAY = "ray"
    INLINE = "inline"


_REQUIREMENT_FAILED = 3
_ALARM = 4
_INTERRUPTED = 130
_FINDING_KEYS = ("metric", "where", "status", "value", "interval", "n")


def run_command(
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file; the default experiment if left out.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override an option.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of partition and initial weights.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Ray workers; one for each processor by default.")
    ] = None,
    engine: Annotated[Engine | None, typer.Option(help="Where clients run.")] = None,
    ray_address: Annotated[str | None, typer.Option(metavar="A", help="Join this Ray cluster.")] = None,
    reproducible: Annotated[
        bool, typer.Option("--reproducible", help="Derive the noise from the seed: no guarantee is claimed.")
    ] = False,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Train a federation privately, assess its model, and write a record and a report."""
    given = {
        "CONFIG": config is not None,
        "--set": bool(set_),
        "--seed": seed is not None,
        "--out": out is not None,
        "--reproducible": reproducible,
    }
    clash = [name for name, there in given.items() if there]
    if resume is not None and clash:
        raise ConfigError(f"--resume goes on with the run's own configuration: leave out {', '.join(clash)}")
    overrides = list(set_ or [])
    overrides += [] if seed is None else [f"seed={seed}"]
    overrides += [] if workers is None else [f"engine.workers={workers}"]
    overrides += [] if engine is None else [f"engine.name={engine.value}"]
    overrides += [] if ray_address is None else [f"engine.address={json.dumps(ray_address)}"]
    overrides += ['privacy.noise_key="seed"'] if reproducible else []

    from fedsafe.cli.progress import Progress

    progress = Progress(sys.stderr if as_json else sys.stdout)
    try:
        # What anything else prints, such as Ray of a lost worker, is no part of the one object.
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            finished = _run(config, overrides, resume, workers, engine, ray_address, out, progress)
        _close(finished, progress, as_json=as_json)
    except KeyboardInterrupt:
        progress.stop()
        sys.stderr.write(f"interrupted: {progress.resume_hint()}\n")
        sys.stderr.flush()
        sys.stdout.flush()
        # Everything is closed; what the libraries do at exit takes seconds that whoever pressed Ctrl-C has not got.
        os._exit(_INTERRUPTED)
    finally:
        progress.stop()


def _run(
    config: Path | None,
    overrides: list[str],
    resume: Path | None,
    workers: int | None,
    engine: Engine | None,
    address: str | None,
    out: Path | None,
    progress: "Progress",
) -> "Run":
    progress.say("loading")
    if resume is not None:
        from fedsafe.runs.resume import resume as resume_run

        changed: dict[str, Any] = {} if workers is None else {"workers": workers}
        changed |= {} if engine is None else {"name": engine.value}
        changed |= {} if address is None else {"address": address}
        return resume_run(resume, engine=changed, callbacks=[progress])
    from fedsafe.runs.config import read_config
    from fedsafe.runs.run import run

    resolved = read_config(config, overrides)
    progress.say(
        "reading data, calibrating noise" + (", starting Ray" if resolved.engine.name == "ray" else "")
    )
    return run(resolved, out=out, callbacks=[progress])


def _close(run: "Run", progress: "Progress", *, as_json: bool) -> None:
    from fedsafe.report import closing_table, write_report

    report = write_report(run.path)
    verdicts = run.last_verdicts()
    blocked = [verdict for verdict in verdicts if verdict.get("blocks")]
    if as_json:
        typer.echo(json.dumps(summary(run, report), allow_nan=False))
    else:
        progress.table(closing_table(run.path))
        typer.echo(f"run     {run.path}")
        typer.echo(f"report  {report}")
        typer.echo(f"card    {run.path / 'card.md'}")
    if blocked:
        first, accepted = blocked[0], run.accepted
        kept = "no model is accepted" if accepted is None else f"the model of round {accepted} stays accepted"
        sys.stderr.write(
            f"fedsafe: {len(blocked)} requirement(s) not met, first: {first['metric']} {first['op']} "
            f"{first['threshold']:g} is {first['verdict']} ({first['reason']}); {kept}\n"
        )
    if run.alarms:
        sys.exit(_ALARM)  # what it says was written when it was raised
    if blocked:
        sys.exit(_REQUIREMENT_FAILED)


def summary(run: "Run", report: Path) -> dict[str, Any]:
    """What ``--json`` prints: one headline claim for each unit, and the findings of the last assessment."""
    end = run.end
    return {
        "run": str(run.path),
        "report": str(report),
        "rounds": end.rounds if end else len(run.rounds()),
        "seconds": end.seconds if end else None,
        "accepted": run.accepted,
        "accuracy": run.accuracy,
        "metrics": run.metrics,
        "claims": run.claims,
        "matrix": run.matrix,
        "findings": [{key: finding[key] for key in _FINDING_KEYS} for finding in run.last_findings()],
        "requirements": run.last_verdicts(),
    }
