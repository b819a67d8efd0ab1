"""The folder of a federation, and the part of it that one client gets.

``federation.toml``, all of it public::

    format = "fedsafe.federation/1"
    name = "heart"

    [server]
    host = "10.0.0.1"              # where clients reach it; its certificate has this name
    port = 9092

    [[clients]]
    name = "cleveland"
    host = "10.0.0.2"              # may be empty: the server never connects to a client

``client.toml`` in the folder of a client::

    format = "fedsafe.client/1"
    client = "cleveland"
    federation = "heart"
    server = "10.0.0.1:9092"
    runtime_port = 9094            # where its SuperNode and its gate meet, on loopback
    metrics_port = 9464            # of the gate, on loopback
"""

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomli_w

from fedsafe.errors import ConfigError
from fedsafe.store.files import replace_file

FEDERATION: Final = "fedsafe.federation/1"
CLIENT: Final = "fedsafe.client/1"
SECRET: Final = "state/runtime.secret"  # noqa: S105 - where it is
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:]{2,45}")


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client as the federation knows it."""

    name: str
    host: str = ""


@dataclass(frozen=True, kw_only=True)
class Federation:
    """What everybody knows of a federation, and where its files are.

    Args:
        folder: The federation's.
        name: Its name.
        host: Where clients reach the server.
        port: The server's.
        clients: In the order of their names.
    """

    folder: Path
    name: str
    host: str
    port: int
    clients: tuple[Client, ...]

    @property
    def server(self) -> Path:
        """The server's own folder."""
        return self.folder / "server"

    @property
    def names(self) -> tuple[str, ...]:
        """The clients' names."""
        return tuple(client.name for client in self.clients)

    def client_folder(self, name: str) -> Path:
        """What one client gets, and nothing of another's.

        Raises:
            ConfigError: There is no such client.
        """
        if name not in self.names:
            raise ConfigError(f"{name!r} is no client of {self.name}: it has {', '.join(self.names)}")
        return self.folder / "clients" / name

    def certificate(self, name: str) -> Path:
        """By which the server knows a client."""
        return self.server / "nodes" / f"{name}.pem"

    def write(self) -> None:
        """Write ``federation.toml``."""
        clients = [{"name": client.name, "host": client.host} for client in self.clients]
        server = {"host": self.host, "port": self.port}
        values = {"format": FEDERATION, "name": self.name, "server": server, "clients": clients}
        replace_file(self.folder / "federation.toml", tomli_w.dumps(values).encode())


@dataclass(frozen=True, kw_only=True)
class ClientFolder:
    """What a client's own folder says of it."""

    folder: Path
    client: str
    federation: str
    server: str
    runtime_port: int
    metrics_port: int

    def write(self) -> None:
        """Write ``client.toml``."""
        values: dict[str, Any] = {"format": CLIENT, "client": self.client}
        values |= {"federation": self.federation, "server": self.server}
        values |= {"runtime_port": self.runtime_port, "metrics_port": self.metrics_port}
        replace_file(self.folder / "client.toml", tomli_w.dumps(values).encode())


def read_federation(folder: Path) -> Federation:
    """The federation of a folder.

    Raises:
        ConfigError: There is none, or the file is not valid.
    """
    path = folder / "federation.toml"
    values = _read(path, FEDERATION, {"format", "name", "server", "clients"})
    server = _get(values, "server", dict, path)
    clients = _get(values, "clients", list, path)
    if not clients:
        raise ConfigError(f"{path} names no clients: add [[clients]] with a name")
    known = [
        Client(name=require_name(_get(each, "name", str, path)), host=str(each.get("host", "")))
        for each in clients
    ]
    return Federation(
        folder=folder,
        name=_get(values, "name", str, path),
        host=require_host(_get(server, "host", str, path)),
        port=require_port(_get(server, "port", int, path)),
        clients=tuple(sorted(known, key=lambda client: client.name)),
    )


def read_client(folder: Path) -> ClientFolder:
    """The client of a folder.

    Raises:
        ConfigError: There is none, or the file is not valid.
    """
    path = folder / "client.toml"
    keys = {"format", "client", "federation", "server", "runtime_port", "metrics_port"}
    values = _read(path, CLIENT, keys)
    return ClientFolder(
        folder=folder,
        client=require_name(_get(values, "client", str, path)),
        federation=_get(values, "federation", str, path),
        server=_get(values, "server", str, path),
        runtime_port=require_port(_get(values, "runtime_port", int, path)),
        metrics_port=require_port(_get(values, "metrics_port", int, path)),
    )


def require_name(name: str) -> str:
    """A client's or a federation's name, which is also that of a folder, a container and a unit.

    Raises:
        ConfigError: It is not made of lower-case letters, digits and hyphens.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be a name here: use up to 63 lower-case letters, digits and hyphens"
        )
    if name.isdigit():
        raise ConfigError(f"{name!r} cannot be a name here: start it with a letter")
    return name


def require_host(host: str) -> str:
    """A host name or an address.

    Raises:
        ConfigError: It is neither.
    """
    if not _HOST.fullmatch(host):
        raise ConfigError(
            f"{host!r} is no host: give a name such as fl.example.org, or an address, without a port"
        )
    return host


def require_port(port: int) -> int:
    """A TCP port.

    Raises:
        ConfigError: It is none.
    """
    if not 1 <= port <= 65535:
        raise ConfigError(f"{port} is no port: give a number from 1 to 65535")
    return port


def is_address(host: str) -> bool:
    """Whether a host is an IP address, and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def address(host: str, port: int) -> str:
    """Host and port as one word, also for an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read(path: Path, form: str, keys: set[str]) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; `fedsafe deploy init` writes the folder of a federation"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    if values.get("format") != form:
        raise ConfigError(f"{path} has format {values.get('format')!r}; this version reads {form!r}")
    for key in values:
        if key not in keys:
            raise ConfigError(f"{path} has the unknown key {key!r}; it takes {', '.join(sorted(keys))}")
    return values


def _get(values: Mapping[str, Any], key: str, kind: type[Any], path: Path) -> Any:
    value = values.get(key) if isinstance(values, Mapping) else None
    if type(value) is not kind:
        raise ConfigError(f"{path}: {key} = {value!r}; give a {'table' if kind is dict else kind.__name__}")
    return value
