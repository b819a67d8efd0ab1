"""``fedsafe simulate``: any Flower app, unmodified, on our grid."""

import json
import os
import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from fedsafe.cli.run import Engine
from fedsafe.errors import ConfigError

_INTERRUPTED = 130


def simulate_command(
    app: Annotated[
        str,
        typer.Argument(
            help="A folder with a Flower pyproject.toml, or 'module:server_app,module:client_app'."
        ),
    ],
    nodes: Annotated[int, typer.Option(help="How many nodes run the ClientApp.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override the app's configuration.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    workers: Annotated[
        int | None, typer.Option(help="Ray workers; one for each processor by default.")
    ] = None,
    chunk: Annotated[int | None, typer.Option(help="Messages that a worker takes at a time.")] = None,
    ray_address: Annotated[str | None, typer.Option(metavar="A", help="Join this Ray cluster.")] = None,
    engine: Annotated[Engine, typer.Option(help="Where clients run.")] = Engine.RAY,
) -> None:
    """Run a Flower ServerApp and ClientApp, without changing them, over many nodes on this machine or a cluster."""
    for option, number in (("--nodes", nodes), ("--workers", workers), ("--chunk", chunk)):
        if number is not None and number < 1:
            raise ConfigError(f"{option} {number}: give a whole number from 1")
    try:
        _simulate(app, nodes, list(set_ or []), workers, chunk, ray_address, engine, as_json=as_json)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was kept\n")
        sys.stderr.flush()
        sys.stdout.flush()
        # Everything is closed; what the libraries do at exit takes seconds that whoever pressed Ctrl-C has not got.
        os._exit(_INTERRUPTED)


def _simulate(
    name: str,
    nodes: int,
    overrides: list[str],
    workers: int | None,
    chunk: int | None,
    address: str | None,
    engine: Engine,
    *,
    as_json: bool,
) -> None:
    from fedsafe.engine.flower_app import find_app
    from fedsafe.engine.simulation import lines_of, simulate

    app = find_app(name, overrides)
    # What the app prints is no part of the one object.
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        done = simulate(
            app,
            nodes=nodes,
            workers=workers if workers is not None else os.cpu_count() or 1,
            chunk=chunk,
            address=address,
            engine="inline" if engine is Engine.INLINE else "ray",
        )
    counts = {"messages": done.tally.messages, "replies": done.tally.replies, "errors": done.tally.errors}
    if as_json:
        summary = {
            "app": name,
            "nodes": done.nodes,
            "rounds": done.rounds,
            **done.metrics,
            **counts,
            "seconds": done.seconds,
            "exit_status": 0,
        }
        typer.echo(json.dumps(summary, allow_nan=False))
        return
    for line in lines_of(done.metrics):
        typer.echo(line)
    typer.echo(
        f"{done.nodes} nodes, {done.rounds} rounds, {counts['messages']:,} messages, {counts['replies']:,} replies, "
        f"{counts['errors']:,} errors, {done.seconds:.1f} s"
    )
