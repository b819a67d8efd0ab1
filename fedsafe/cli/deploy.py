"""``fedsafe deploy``: a real federation, from its folder to its runs (``docs/deploy.md``)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsafe.errors import ConfigError

if TYPE_CHECKING:
    from fedsafe.deploy.driving import State
    from fedsafe.deploy.federation import Client

deploy_app = typer.Typer(help="Set up, check and drive a federation of real clients.", no_args_is_help=True)
_Dir = Annotated[Path, typer.Argument(help="The federation's folder.", metavar="DIR")]
_Own = Annotated[Path, typer.Argument(help="The folder of one client.", metavar="CLIENT_DIR")]


@deploy_app.command("init")
def init_command(
    folder: Annotated[Path, typer.Argument(help="The folder to write.", metavar="DIR")],
    clients: Annotated[int | None, typer.Option(min=1, help="How many, if they have no names yet.")] = None,
    names: Annotated[str | None, typer.Option(metavar="A,B,...", help="The clients' names.")] = None,
    hosts: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=HOST", help="Where server=... and, for the page, each client is."),
    ] = None,
    port: Annotated[int, typer.Option(help="The server's TCP port.")] = 9092,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An experiment, as for `fedsafe run`.")
    ] = None,
    schema: Annotated[Path | None, typer.Option(metavar="FILE", help="The public schema.")] = None,
    evaluation: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Public records that the server judges the model on.")
    ] = None,
    records: Annotated[
        list[str] | None, typer.Option(metavar="NAME=N", help="How many records each client trains on.")
    ] = None,
    keys_at_clients: Annotated[
        bool, typer.Option("--keys-at-clients", help="Leave each client to make its own key.")
    ] = False,
) -> None:
    """Write everything that a federation needs: keys, certificates, commands, units, policies, and who does what."""
    from fedsafe.deploy.federation import require_host, require_name, require_port
    from fedsafe.deploy.folder import UNKNOWN_RECORDS, Wanted, write_federation

    where = _pairs("--hosts", hosts)
    counts = {name: _whole("--records", name, said) for name, said in _pairs("--records", records).items()}
    members = _members(clients, names, where)
    wanted = Wanted(
        name=require_name(folder.resolve().name.lower().replace("_", "-").replace(".", "-")),
        clients=members,
        host=require_host(where.get("server", "127.0.0.1")),
        port=require_port(port),
        config=config,
        schema=schema,
        evaluation=evaluation,
        records=counts,
        keys_at_clients=keys_at_clients,
    )
    federation = write_federation(folder, wanted)
    typer.echo(
        f"made {folder} for {len(members)} clients: {', '.join(federation.names)}; read {folder}/README.md"
    )
    if unsaid := [name for name in federation.names if name not in counts]:
        typer.echo(
            f"how many records {', '.join(unsaid)} train on was not said: {UNKNOWN_RECORDS} stands for it in "
            "experiment.toml, task.clients"
        )
    if not keys_at_clients:
        typer.echo(
            "the clients' keys were made here, which is for a trial on one machine: --keys-at-clients is for real"
        )


@deploy_app.command("gate")
def gate_command(
    own: _Own,
    runtime: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The runtime interface of this client's SuperNode.")
    ],
    metrics_port: Annotated[int | None, typer.Option(help="For Prometheus, on the loopback address.")] = None,
) -> None:
    """Answer the server for one client: the only process that reads its records, adds noise and keeps its ledger."""
    import logging
    import sys

    from fedsafe.deploy.serving import LOG, serve

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    serve(own, runtime=runtime, metrics_port=metrics_port)


@deploy_app.command("spend")
def spend_command(own: _Own) -> None:
    """What this client's records have spent, run by run, and how the models do on its own validation records."""
    from fedsafe.deploy.figures import lines_of_status

    for line in lines_of_status(own):
        typer.echo(line)


@deploy_app.command("key")
def key_command(own: _Own) -> None:
    """Make this client's key, and the request that the federation's authority signs."""
    from fedsafe.deploy.registration import make_request

    digest = make_request(own)
    typer.echo(
        f"made {own}/node.key, which never leaves, and {own}/node.csr for who holds the authority's key"
    )
    typer.echo(f"tell them this digest over another channel: {digest}")


@deploy_app.command("add")
def add_command(
    folder: _Dir,
    name: Annotated[str, typer.Argument(help="The client's name.", metavar="NAME")],
    request: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The client's node.csr; its key is made here if left out."),
    ] = None,
    host: Annotated[str, typer.Option(help="Of a new client, for the page.")] = "",
    records: Annotated[
        int | None, typer.Option(min=1, help="How many records a new client trains on.")
    ] = None,
    digest: Annotated[
        str, typer.Option(help="Of its key, as it said over another channel: no other one is signed.")
    ] = "",
) -> None:
    """Let a client in, or give one that is in a certificate for another key."""
    from fedsafe.deploy.federation import read_federation
    from fedsafe.deploy.registration import add

    federation = read_federation(folder)
    for line in add(federation, name, request=request, host=host, records=records, digest=digest):
        typer.echo(line)


@deploy_app.command("revoke")
def revoke_command(
    folder: _Dir, name: Annotated[str, typer.Argument(help="The client's name.", metavar="NAME")]
) -> None:
    """Turn a client away from now on; a running server notices at the client's next message."""
    from fedsafe.deploy.federation import read_federation
    from fedsafe.deploy.registration import revoke

    typer.echo(
        f"{name} is turned away from now on; its certificate is kept in {revoke(read_federation(folder), name)}"
    )


@deploy_app.command("renew")
def renew_command(folder: _Dir) -> None:
    """Issue a new server certificate, for the host that federation.toml names."""
    from fedsafe.deploy.federation import read_federation
    from fedsafe.deploy.registration import read_authority, write_server_certificate

    federation = read_federation(folder)
    write_server_certificate(federation, *read_authority(federation))
    typer.echo(f"made {federation.server}/server.pem, good for {federation.host}; restart the server")


@deploy_app.command("superlink")
def superlink_command(
    folder: _Dir,
    metrics_port: Annotated[int | None, typer.Option(help="For Prometheus, on the loopback address.")] = None,
) -> None:
    """Run the federation's server here, with TLS and node keys, until it is told to stop."""
    from fedsafe.deploy.federation import read_federation
    from fedsafe.deploy.superlink import serve

    serve(read_federation(folder), metrics_port=metrics_port)


@deploy_app.command("check")
def check_command(
    folder: Annotated[Path, typer.Argument(help="A federation's folder, or a client's.", metavar="DIR")],
    role: Annotated[
        str | None,
        typer.Option(metavar="server|NAME", help="Check as the server or as one client; all by default."),
    ] = None,
) -> None:
    """Find what is wrong before the first round, and say what to mend; exit code 1 if anything is."""
    from fedsafe.deploy.check import check

    wrong = 0
    for found in check(folder, role):
        typer.echo(str(found))
        wrong += not found.ok
    if wrong:
        raise typer.Exit(1)


@deploy_app.command("predict")
def predict_command(
    folder: _Dir,
    availability: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="TOML with the keys of federation.availability; all are there by default."
        ),
    ] = None,
    seconds_per_round: Annotated[
        float | None,
        typer.Option(help="That the client with the most records trains; measured here by default."),
    ] = None,
) -> None:
    """Say what a run will spend, send and take, beside what the newest did; exit code 1 if that spent more."""
    from fedsafe.deploy.federation import read_federation
    from fedsafe.deploy.prediction import predict, write_prediction
    from fedsafe.deploy.realised import above, lines_of_prediction, realised

    federation = read_federation(folder)
    prediction = predict(federation, availability=availability, train_seconds=seconds_per_round)
    found = realised(federation, next(iter(prediction.clients.values())).epsilon)
    for line in lines_of_prediction(prediction, found):
        typer.echo(line)
    typer.echo(f"written to {write_prediction(federation, prediction, found.plain() if found else {})}")
    wrong = above(prediction, found) if found else []
    for line in wrong:
        typer.echo(line, err=True)
    if wrong:
        raise typer.Exit(1)


@deploy_app.command("start")
def start_command(
    folder: _Dir,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the newest run.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="The run folder.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    wait_for_nodes: Annotated[float, typer.Option(help="Seconds until every client must be there.")] = 120.0,
    wait_for_replies: Annotated[
        float, typer.Option(help="Seconds until a round goes on without the others.")
    ] = 3600.0,
) -> None:
    """Start the experiment on the federation's server, and show each round; Ctrl-C stops watching, not the run."""
    from fedsafe.deploy.driving import follow, start
    from fedsafe.deploy.federation import read_federation

    federation = read_federation(folder)
    run = start(
        federation, resume=resume, out=out, wait_for_nodes=wait_for_nodes, wait_for_replies=wait_for_replies
    )
    typer.echo(f"run {run.number}: {run.out}")
    if detach:
        return
    try:
        for state in follow(federation, run):
            typer.echo(_line(state))
    except KeyboardInterrupt:
        typer.echo(
            f"the run goes on: fedsafe deploy status {folder}, or stop it: fedsafe deploy stop {folder}"
        )
        return
    if state.status != "finished: completed":
        raise ConfigError(f"the run ended as {state.status}; the server's log says more: {run.out}")


@deploy_app.command("status")
def status_command(folder: _Dir) -> None:
    """Print how far the newest run is, and which clients are connected."""
    from fedsafe.deploy.driving import connected, last_run, state_of
    from fedsafe.deploy.federation import read_federation

    federation = read_federation(folder)
    for name, said in connected(federation).items():
        typer.echo(f"{name:<24}{said}")
    run = last_run(federation)
    typer.echo(f"run {run.number}: {run.out}")
    typer.echo(_line(state_of(federation, run)))


@deploy_app.command("stop")
def stop_command(folder: _Dir) -> None:
    """Stop the newest run; its rounds stay, and it can be resumed."""
    from fedsafe.deploy.driving import last_run, stop
    from fedsafe.deploy.federation import read_federation

    federation = read_federation(folder)
    run = last_run(federation)
    done = stop(federation, run)
    typer.echo(f"run {run.number} " + ("is stopped" if done else "was finished already"))


@deploy_app.command("health")
def health_command(
    url: Annotated[str, typer.Argument(help="What must answer 200.")],
    authority: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The ca.pem that its certificate needs.")
    ] = None,
) -> None:
    """Ask one process of this machine whether it lives; for containers. Exit code 1 if it does not."""
    import ssl
    import urllib.request

    if not url.startswith(("http://127.0.0.1:", "https://127.0.0.1:")):
        raise ConfigError(f"{url!r} is not on this machine: start it with http(s)://127.0.0.1:")
    trusted = ssl.create_default_context(cafile=str(authority)) if authority is not None else None
    with urllib.request.urlopen(url, timeout=8.0, context=trusted) as answer:  # noqa: S310 - loopback only
        typer.echo(f"{url}: {answer.status}")


def _members(clients: int | None, names: str | None, where: dict[str, str]) -> "tuple[Client, ...]":
    from fedsafe.deploy.federation import Client, require_host, require_name

    if clients is None and not names:
        raise ConfigError("say who takes part: --clients 4, or --names cleveland,hungary,switzerland,va")
    called: Sequence[str] = names.split(",") if names else [f"client-{k + 1}" for k in range(clients or 0)]
    if clients is not None and len(called) != clients:
        raise ConfigError(
            f"--clients {clients}, and --names has {len(called)}: give one of them, or the same number"
        )
    if unknown := where.keys() - {"server", *called}:
        raise ConfigError(f"--hosts names {sorted(unknown)[0]!r}, which is neither server nor a client")
    return tuple(
        Client(name=require_name(name), host=require_host(where[name]) if name in where else "")
        for name in called
    )


def _pairs(option: str, said: list[str] | None) -> dict[str, str]:
    """``A=1,B=2``, in one word or several."""
    found = {}
    for word in ",".join(said or []).split(","):
        if word:
            name, sign, value = word.partition("=")
            if not sign or not name or not value:
                raise ConfigError(f"{option} {word!r}: write NAME=VALUE, and a comma between two of them")
            found[name.strip()] = value.strip()
    return found


def _whole(option: str, name: str, said: str) -> int:
    if not said.isascii() or not said.isdigit():
        raise ConfigError(f"{option} {name}={said}: give a whole number")
    return int(said)


def _line(state: "State") -> str:
    from fedsafe.report.formats import epsilon

    words = [f"round {state.rounds}/{state.of}"]
    words += [f"{name} {value:.4f}" for name, value in state.last.items() if value is not None][:1]
    words += [
        f"epsilon per {unit} {epsilon(value)}" for unit, value in state.spend.items() if value is not None
    ]
    if state.exchange.asked:
        words.append(f"{state.exchange.replied} of {state.exchange.asked} replied")
    words += [f"{count} refused: {reason}" for reason, count in state.exchange.refused.items()]
    if state.bytes_sent:
        words.append(f"{(state.bytes_sent + state.bytes_received) / 1e6:.2f} MB")
    return f"{state.status}; {', '.join(words)}"
