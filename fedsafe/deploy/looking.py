"""Looks at one thing after another, and turns what is found into lines that say what to do."""

import socket
import ssl
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import fedsafe
from fedsafe.apps.code import code_digest
from fedsafe.deploy.certificates import Certificate, days_left, why_not
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


def valid(
    certificate: Certificate,
    authority: Certificate,
    path: Path,
    mend: str,
    *,
    of: Literal["node", "server"] = "node",
) -> int:
    """How many days a certificate still holds.

    Raises:
        ConfigError: It does not hold, or soon will not.
    """
    reason = why_not(certificate, authority, of=of)
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
