"""What is wrong with a federation before its first round, and what to do about it; nothing is sent but one greeting."""

import socket
import ssl
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import fedsafe
from fedsafe.apps.code import code_digest
from fedsafe.deploy.certificates import (
    Certificate,
    certificate_key,
    days_left,
    names_of,
    read_certificate,
    read_key,
    same_key,
    why_not,
)
from fedsafe.deploy.federation import Federation, read_federation
from fedsafe.errors import ConfigError, FedSafeError

_SOON_DAYS = 14
_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One thing that was looked at.

    Args:
        ok: Whether it is as it should be.
        role: Whose it is.
        what: What was found, and, if it is wrong, what to do.
    """

    ok: bool
    role: str
    what: str

    def __str__(self) -> str:
        """One line."""
        return f"{'ok   ' if self.ok else 'WRONG'} {self.role}: {self.what}"


def check(folder: Path, role: str | None = None) -> Iterator[Checked]:
    """Everything that can be checked from here.

    Args:
        folder: A federation's, or one client's.
        role: ``"server"`` or a client's name; None for all whose folders are here.

    Raises:
        ConfigError: The folder is neither, or has no such role.
    """
    from fedsafe.deploy.check_client import check_client

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


class Looking:
    """Turns what a look finds into lines, and an error into a line too.

    Args:
        role: Whose the things are.
    """

    def __init__(self, role: str) -> None:
        self._role = role

    def at(self, look: Callable[[], str]) -> Iterator[Checked]:
        """One thing: what the function says of it, or the error that it raises."""
        try:
            yield Checked(ok=True, role=self._role, what=look())
        except (FedSafeError, OSError) as error:
            yield Checked(ok=False, role=self._role, what=str(error))


def versions(role: str) -> Iterator[Checked]:
    """What runs here."""
    flower = version("flwr")
    python = ".".join(map(str, sys.version_info[:3]))
    what = f"fedsafe {fedsafe.__version__}, code {code_digest()[:12]}, flwr {flower}, Python {python}"
    if flower.split(".")[:2] != ["1", "42"]:
        yield Checked(ok=False, role=role, what=f"{what}: install flwr 1.42, which every party must have")
    else:
        yield Checked(ok=True, role=role, what=what)


def private(path: Path) -> str:
    """That only its owner can read a file.

    Raises:
        ConfigError: Others can.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(f"{path} can be read by others (mode {mode:o}): chmod 600 {path}")
    return f"{path.name} is its owner's alone"


def valid(certificate: Certificate, authority: Certificate, path: Path, mend: str) -> int:
    """How many days a certificate still holds.

    Raises:
        ConfigError: It does not hold, or soon will not.
    """
    reason = why_not(certificate, authority)
    left = days_left(certificate)
    if not reason and left < _SOON_DAYS:
        reason = f"its certificate expires in {left} days"
    if reason:
        raise ConfigError(f"{path}: {reason}; {mend}")
    return left


def reach(host: str, port: int, authority: Path) -> str:
    """That the server answers with a certificate of this federation and this host.

    Raises:
        ConfigError: It does not; with the reason.
    """
    context = ssl.create_default_context(cafile=str(authority))
    where = f"{host}:{port}"
    try:
        with (
            socket.create_connection((host, port), timeout=_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=host) as secure,
        ):
            return f"{where} answers with {secure.version()} and this federation's certificate"
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(
            f"{where} has a certificate that is not right here: {error.verify_message}; compare ca.pem, the host name "
            "and the clock with the server's"
        ) from error
    except ssl.SSLError as error:
        raise ConfigError(
            f"{where} does not speak TLS as it should: {error.reason}; is it this server?"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{where} does not answer: {error.strerror or error}; start the server, and open this port for outgoing "
            "connections of clients"
        ) from error


def _server_certificate(federation: Federation) -> str:
    server, mend = federation.server, f"fedsafe deploy renew {federation.folder}"
    path, authority = server / "server.pem", read_certificate(server / "ca.pem")
    certificate = read_certificate(path)
    left = valid(certificate, authority, path, f"issue another: {mend}")
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
    plan = calibrate(compose(config))
    spent = plan.spend(plan.rounds)["record"]
    return f"the experiment plans {plan.rounds} rounds, epsilon {spent:.3f} per record at delta {plan.record.delta:g}"


def _connected(federation: Federation) -> str:
    from fedsafe.deploy.driving import connected

    said = connected(federation)
    away = [name for name, status in said.items() if status != "online"]
    if away:
        raise ConfigError(
            f"not connected: {', '.join(away)}; each starts its supernode.sh, and its log or this server's says why not"
        )
    return f"all {len(said)} clients are connected"
