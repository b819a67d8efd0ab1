"""``fedsafe data``: what tasks there are, and how a configuration spreads one over clients."""

from pathlib import Path
from typing import Annotated

import typer

_SHOWN = 20

data_app = typer.Typer(help="Look at tasks and their partitions.", no_args_is_help=True)


@data_app.callback()
def _group() -> None:
    """Look at tasks and their partitions."""


@data_app.command("list")
def list_command() -> None:
    """Print the tasks that have a name, with their kind, records, holders, options and source."""
    from fedsafe.data.tasks import SHIPPED

    for name, shipped in SHIPPED.items():
        train, evaluation = shipped.records
        facts = [shipped.kind, f"{train:,} + {evaluation:,} records", shipped.holders]
        typer.echo(f"{name:<15}{', '.join(fact for fact in facts if fact)}")
        if shipped.options:
            typer.echo(f"{'':<15}options: {', '.join(shipped.options)}")
        typer.echo(f"{'':<15}{shipped.source.name}")
        typer.echo(f"{'':<15}{shipped.source.licence}; {shipped.source.url}")


@data_app.command("check")
def check_command(
    where: Annotated[Path, typer.Argument(help="A data.toml, or the folder of a client that has one.")],
) -> None:
    """Hold a client's own records to the public schema, here, without sending anything."""
    from fedsafe.data.source_file import read_source

    source = read_source(where / "data.toml" if where.is_dir() else where)
    frame = source.read()
    problems = source.problems(frame)
    for problem in problems[:_SHOWN]:
        typer.echo(str(problem))
    if problems:
        more = f" ({len(problems) - _SHOWN} not shown)" if len(problems) > _SHOWN else ""
        typer.echo(
            f"{len(problems)} problems in {len(frame)} records of {source.origin}{more}; nothing was sent"
        )
        raise typer.Exit(1)
    training, validation = source.load()
    typer.echo(
        f"{source.client}: {len(frame)} records are as {source.schema_path.name} says; announce {len(training)}, which "
        f"are trained on, and keep {len(validation)} to judge the model here"
    )


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
    from fedsafe.data import federate, load_task
    from fedsafe.data.describe import draw, federation_text, holdings
    from fedsafe.runs.config import read_config

    overrides = [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]
    resolved = read_config(config, overrides)
    federation = resolved.federation
    cut = federate(
        load_task(resolved.task),
        clients=federation.clients,
        partition=federation.partition,
        held_out=federation.held_out,
        client_validation=federation.client_validation,
        evaluation=resolved.data.evaluation,
        validation_fraction=resolved.data.validation_fraction,
        seed=resolved.seed,
    )
    typer.echo(federation_text(cut))
    typer.echo(f"drawn in {draw(cut.task, holdings(cut), out, cut.names)}")
