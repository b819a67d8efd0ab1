"""``fedsafe export``: a run's record for other programs; nothing of it that is private."""

import json
from pathlib import Path
from typing import Annotated

import typer


def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a shared copy of one.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A folder for it, outside the run.")],
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="csv, parquet, tensorboard or mlflow.")
    ] = "csv",
    experiment: Annotated[str, typer.Option(metavar="NAME", help="Of MLflow.")] = "fedsafe",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Write what a run recorded as a table, or for TensorBoard or MLflow. Nothing of private/ is read."""
    from fedsafe.runs.export import export_run

    written = export_run(run, format_, out, experiment=experiment)
    if as_json:
        typer.echo(
            json.dumps({"run": str(run), "format": format_, "written": str(written), "exit_status": 0})
        )
    else:
        typer.echo(f"written  {written}")
