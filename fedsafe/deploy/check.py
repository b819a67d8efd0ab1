"""What is wrong with a federation before its first round, and what to do about it; nothing is sent but one greeting."""

from collections.abc import Iterator
from pathlib import Path

from fedsafe.deploy.certificates import certificate_key, names_of, read_certificate, read_key, same_key
from fedsafe.deploy.check_client import check_client
from fedsafe.deploy.federation import Federation, read_federation
from fedsafe.deploy.looking import Checked, Looking, private, reach, valid, versions
from fedsafe.deploy.signing import PEERS, let_in_keys, read_peers
from fedsafe.errors import ConfigError


def check(folder: Path, role: str | None = None) -> Iterator[Checked]:
    """Everything that can be checked from here.

    Args:
        folder: A federation's, or one client's.
        role: ``"server"`` or a client's name; None for all whose folders are here.

    Raises:
        ConfigError: The folder is neither, or has no such role.
    """
    if (folder / "client.toml").is_file():
        yield from check_client(folder)
        return
    federation = read_federation(folder)
    if role not in (None, "server"):
        yield from check_client(federation.client_folder(str(role)))
        return
    yield from check_server(federation)
    for name in federation.names if role is None else ():
        if federation.client_folder(name).is_dir():
            yield from check_client(federation.client_folder(name))


def check_server(federation: Federation) -> Iterator[Checked]:
    """The server's side."""
    yield from versions("server")
    server = federation.server
    look = Looking("server")
    yield from look.at(lambda: _server_certificate(federation))
    yield from look.at(lambda: private(server / "server.key"))
    for name in federation.names:
        yield from look.at(lambda name=name: _member(federation, name))  # type: ignore[misc]
    yield from look.at(lambda: _experiment(federation))
    yield from look.at(lambda: reach(federation.host, federation.port, server / "ca.pem"))
    if (server / "state" / "operator.token").is_file():
        yield from look.at(lambda: _connected(federation))


def _server_certificate(federation: Federation) -> str:
    server, mend = federation.server, f"fedsafe deploy renew {federation.folder}"
    path, authority = server / "server.pem", read_certificate(server / "ca.pem")
    certificate = read_certificate(path)
    left = valid(certificate, authority, path, f"issue another: {mend}", of="server")
    if federation.host not in names_of(certificate):
        raise ConfigError(
            f"{path} is good for {', '.join(names_of(certificate))}, not for {federation.host!r}: {mend}"
        )
    if not same_key(certificate_key(certificate, path), read_key(server / "server.key").public_key()):
        raise ConfigError(f"{path} is of another key than server.key: {mend}")
    return f"the certificate is good for {federation.host} for {left} days"


def _member(federation: Federation, name: str) -> str:
    path = federation.certificate(name)
    if not path.is_file():
        raise ConfigError(
            f"{name} is not let in: {path} is not there; fedsafe deploy add {federation.folder} {name} --request FILE"
        )
    authority = read_certificate(federation.server / "ca.pem")
    mend = f"ask {name} for a new request, and run fedsafe deploy add"
    return f"{name} is let in for {valid(read_certificate(path), authority, path, mend)} days"


def _experiment(federation: Federation) -> str:
    from fedsafe.data.deployed import read_agreed
    from fedsafe.deploy.driving import resolved_experiment
    from fedsafe.runs.compose import calibrate, compose
    from fedsafe.runs.config import make_config

    config = make_config(resolved_experiment(federation))
    agreed = read_agreed(config.task) if isinstance(config.task, dict) else None
    if agreed is None or set(agreed.names) != set(federation.names):
        names = () if agreed is None else agreed.names
        raise ConfigError(
            f"experiment.toml is for {', '.join(names) or 'nobody'}, federation.toml for "
            f"{', '.join(federation.names)}: make task.clients the same"
        )
    if config.aggregation.secure:
        keyless = sorted(set(federation.names) - set(let_in_keys(federation)))
        if keyless:
            raise ConfigError(
                f"the experiment aggregates securely, and the certificates of {', '.join(keyless)} name no signing key "
                "or do not hold: each runs fedsafe deploy key, and who holds ca/ fedsafe deploy add"
            )
    pinned = f"; {_pinned(federation)}" if config.aggregation.secure else ""
    plan = calibrate(compose(config))
    spent = plan.spend(plan.rounds)["record"]
    epsilon = f"epsilon {spent:.3f} per record at delta {plan.record.delta:g}"
    return f"the experiment plans {plan.rounds} rounds, {epsilon}{pinned}"


def _pinned(federation: Federation) -> str:
    """What clients compare their file of certificates with."""
    peers = read_peers(federation.folder, federation.server / "ca.pem")
    if peers.keys != let_in_keys(federation):
        raise ConfigError(
            f"{federation.folder / PEERS} has other clients or keys than server/nodes: take it from who holds ca/, who "
            "writes it with fedsafe deploy add"
        )
    return f"{PEERS}, for every client, is {peers.digest}"


def _connected(federation: Federation) -> str:
    from fedsafe.deploy.driving import connected

    said = connected(federation)
    away = [name for name, status in said.items() if status != "online"]
    if away:
        raise ConfigError(
            f"not connected: {', '.join(away)}; each starts its supernode.sh, and its log or this server's says why not"
        )
    return f"all {len(said)} clients are connected"
