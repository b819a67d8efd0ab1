"""Flower's server for a federation: TLS and node keys always, a door before it, and its state on the disk.

It is ``flower-superlink`` with ``--ssl-certfile``, ``--ssl-keyfile``, ``--ssl-ca-certfile``,
``--enable-supernode-auth``, ``--database`` and ``--isolation process --superexec-auth-secret-file``, built by the same
functions, since a middleware and a rule of who may start runs cannot be given on its command line. There is no way to
start it without TLS.
"""

import contextlib
import ipaddress
import logging
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn
from flwr.common.constant import (
    ISOLATION_MODE_PROCESS,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    TRANSPORT_TYPE_GRPC_RERE,
)
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app

from fedsafe.deploy.admission import LOG, Door, Roll, SayingWhy
from fedsafe.deploy.certificates import names_of, read_certificate, why_not
from fedsafe.deploy.federation import Federation
from fedsafe.deploy.operator import OperatorOnly, secret_file
from fedsafe.deploy.server_figures import listen
from fedsafe.errors import ConfigError

ENVIRONMENT = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # Flower would fetch packages at each launch
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "OMP_NUM_THREADS": "1",
}
"""What every process of a federation has in its environment."""
_PATIENCE = 5.0
_EXECUTOR = "executor.pid"


def serve(federation: Federation, *, metrics_port: int | None = None) -> None:
    """Run the server until it is told to stop.

    Args:
        federation: Whose it is. Where clients reach it by loopback it listens there alone, elsewhere at every address.
        metrics_port: Of the loopback address, for Prometheus; None for none.

    Raises:
        ConfigError: A key or certificate is missing, or the certificate does not hold.
    """
    server, port = federation.server, federation.port
    host = federation.host if _is_loopback(federation.host) else "0.0.0.0"  # noqa: S104 - clients are elsewhere
    _require_certificate(federation)
    state = server / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    # Flower's database in it has every message; a folder that was packed and sent may have lost its modes.
    with contextlib.suppress(PermissionError):
        state.chmod(0o700)
    os.environ.update(ENVIRONMENT)
    os.environ["FLWR_HOME"] = str(state / "flwr")
    token, secret = secret_file(state / "operator.token"), secret_file(state / "superexec.secret")
    files = [server / name for name in ("ca.pem", "server.pem", "server.key")]
    config = SuperLinkLifespanConfig(
        control_address="127.0.0.1:0",
        health_server_address=None,
        host=host,
        port=port,
        insecure=False,
        certificates=(files[0].read_bytes(), files[1].read_bytes(), files[2].read_bytes()),
        superexec_auth_secret=secret,
        authn_plugin=OperatorOnly(token),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=str(files[0]),
        ssl_certfile=str(files[1]),
        ssl_keyfile=str(files[2]),
        database=str(state / "superlink.sqlite"),
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
    app = create_app(config, SuperLinkLifespan)
    roll = _roll(server, app.state.linkstate_factory)
    roll.refresh()
    app.add_middleware(Door, roll=roll)
    listening = secured(app, server, host, port)
    LOG.addFilter(_is_news)
    if metrics_port is not None:
        listen(federation, metrics_port)
    executor = _start_executor(port, files[0], state)
    try:
        uvicorn.Server(listening).run()
    finally:
        _end_group(executor.pid)
        executor.wait(_PATIENCE)


def secured(app: Any, server: Path, host: str, port: int) -> uvicorn.Config:
    """How an ASGI app is served: over TLS from 1.2 on, with a word in the log about each connection that fails.

    Args:
        app: What is served.
        server: The folder with the server's key and certificate.
        host: The address to listen at.
        port: The port.

    Raises:
        ConfigError: There is no TLS.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="asyncio",  # another loop has TLS of its own, which would not say why a connection failed
        ws="none",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ssl_certfile=str(server / "server.pem"),
        ssl_keyfile=str(server / "server.key"),
    )
    config.load()
    if config.ssl is None:
        raise ConfigError("the server has no TLS, and does not start without it")
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    config.ssl.sslobject_class = SayingWhy
    return config


def _require_certificate(federation: Federation) -> None:
    server = federation.server
    certificate, authority = read_certificate(server / "server.pem"), read_certificate(server / "ca.pem")
    reason = why_not(certificate, authority, of="server")
    if reason:
        raise ConfigError(
            f"{server / 'server.pem'}: {reason}; issue another: fedsafe deploy renew {federation.folder}"
        )
    if federation.host not in names_of(certificate):
        raise ConfigError(
            f"{server / 'server.pem'} is good for {', '.join(names_of(certificate))}, not for {federation.host!r}: "
            f"issue another: fedsafe deploy renew {federation.folder}"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _roll(server: Path, factory: LinkStateFactory) -> Roll:
    def admit(client: str, key: bytes) -> None:
        state = factory.state()
        if state.get_node_id_by_public_key(key) is None:
            node = state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0, name=client)
            LOG.info("%s is on the roll as node %d", client, node)

    def remove(client: str, key: bytes) -> None:
        state = factory.state()
        node = state.get_node_id_by_public_key(key)
        if node is not None:
            state.delete_node(NOOP_FLWR_AID, node)
        LOG.warning("%s is off the roll", client)

    authority = read_certificate(server / "ca.pem")
    return Roll(folder=server / "nodes", authority=authority, admit=admit, remove=remove)


def _is_news(line: logging.LogRecord) -> bool:
    """Whoever watches a run asks for its state all the time."""
    return "ControlServicer.List" not in line.getMessage()


def _start_executor(port: int, authority: Path, state: Path) -> subprocess.Popen[bytes]:
    """What runs the server's app, in a process of its own for each run; all in one group, to be ended together.

    A server that was killed leaves its app behind, which would go on with a run that is being resumed: it ends first.
    """
    end_leftovers(state, port)
    command = [
        str(Path(sys.executable).with_name("flower-superexec")),
        *("--runtime-api-address", f"127.0.0.1:{port}"),
        *("--root-certificates", str(authority)),
        *("--superexec-auth-secret-file", str(state / "superexec.secret")),
        *("--parent-pid", str(os.getpid())),
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    started = subprocess.Popen(  # noqa: S603 - words of our own
        command, env={**os.environ, "PATH": path}, start_new_session=True
    )
    (state / _EXECUTOR).write_text(str(started.pid))
    return started


def end_leftovers(state: Path, port: int) -> None:
    """End what a server that was killed has left running.

    Args:
        state: The folder ``DIR/server/state``.
        port: The server's.
    """
    noted = state / _EXECUTOR
    if noted.is_file() and noted.read_text().isdigit():
        group = int(noted.read_text())
        if _is_executor(group, f"127.0.0.1:{port}"):
            _end_group(group)


def _is_executor(group: int, address: str) -> bool:
    """Whether a process of a group is still one that was started for this server: numbers are used again."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(entry.name)) == group and address.encode() in (entry / "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


def _end_group(group: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and _lives(group):
            time.sleep(0.05)


def _lives(group: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(group, os.WNOHANG)  # an ended child counts until somebody has heard of it
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
