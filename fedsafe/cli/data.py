"""``fedsafe data describe``: how a configuration spreads its records over clients."""

from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer(help="Look at a task and its partition.", no_args_is_help=True)


@data_app.callback()
def _group() -> None:
    """Look at a task and its partition."""


@data_app.command("describe")
def describe_command(
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file; the default experiment if left out.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override an option.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the partition.")] = None,
    out: Annotated[Path, typer.Option(help="Where to draw it.")] = Path("federation.png"),
) -> None:
    """Print the federation that a configuration describes, and draw it."""
    from fedsafe.data import load_task, partition
    from fedsafe.data.describe import draw, summary_text
    from fedsafe.runs.config import read_config

    overrides = [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]
    resolved = read_config(config, overrides)
    task = load_task(resolved.task)
    federation = resolved.federation
    parts = partition(task.train.y, federation.clients, federation.partition, resolved.seed)
    typer.echo(summary_text(task, parts))
    typer.echo(f"drawn in {draw(task, parts, out)}")
