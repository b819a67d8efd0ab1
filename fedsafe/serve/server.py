"""Serving: a socket, the HTTP server behind it, and an end that loses nothing."""

import contextlib
import gc
import ipaddress
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from fedsafe.errors import ConfigError
from fedsafe.serve.http_protocol import SPARE, LimitedProtocol
from fedsafe.serve.service import Service

_GRACE = 30
_CONNECTIONS = 4096
_OTHER_FILES = 128
_BACKLOG = 2048
_SWITCH = 0.001


class _Server(uvicorn.Server):
    """Ends by SIGTERM and SIGINT as it does by itself: its own way raises the signal again, which is no clean exit."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and number == signal.SIGINT
        self.should_exit = True


def bind(host: str, port: int, *, keyed: bool) -> socket.socket:
    """A socket with an address; nobody can reach it before `serve`.

    Args:
        host: Address or name to listen at.
        port: To listen at; 0 for a free one.
        keyed: Whether the service asks for keys: without, only this machine may reach it.

    Raises:
        ConfigError: The address cannot be listened at, or everybody could ask.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port}: give a number from 0, which is any free one, to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"--host {host!r} is no address of this machine: {error.strerror}") from error
    if not keyed and not ipaddress.ip_address(address[0]).is_loopback:
        raise ConfigError(
            f"--host {host} can be reached from other machines, and without --keys anybody there could ask: make a "
            "key with --keys FILE --new-key NAME, or leave --host out"
        )
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise _taken(host, port, error) from error
    return listening


def encrypted(certificate: Path | None, private_key: Path | None) -> dict[str, Any]:
    """What uvicorn needs for HTTPS; nothing where there is no certificate.

    Args:
        certificate: PEM file of a certificate.
        private_key: PEM file of its key.

    Raises:
        ConfigError: One of the two is missing, or they are not a certificate and its key.
    """
    if certificate is None and private_key is None:
        return {}
    if certificate is None or private_key is None:
        raise ConfigError("HTTPS needs --certificate and --private-key: give both, or none")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, private_key)
    except OSError as error:
        raise ConfigError(f"--certificate {certificate} and --private-key {private_key}: {error}") from error
    return {"ssl_certfile": str(certificate), "ssl_keyfile": str(private_key)}


def serve(
    service: Service,
    listening: socket.socket,
    *,
    https: Mapping[str, Any] | None = None,
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Answer until SIGTERM or SIGINT; what was asked is answered then, and the log is on the disk.

    Args:
        service: What answers.
        listening: See `bind`.
        https: See `encrypted`.
        on_start: Called when it can be reached.

    Raises:
        ConfigError: Somebody else listens at the address by now.
    """
    config = uvicorn.Config(
        service,
        log_level="error",
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        http=LimitedProtocol,
        limit_concurrency=most_connections(),
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE,
        **dict(https or {}),
    )
    try:
        listening.listen(_BACKLOG)
    except OSError as error:
        host, port = listening.getsockname()[:2]
        raise _taken(host, port, error) from error
    on_start()
    try:
        with _prompt():
            _Server(config).run(sockets=[listening])
    finally:
        # An end by force leaves this to us; the log knows when it is closed already.
        service.guard.close()


@contextlib.contextmanager
def _prompt() -> Iterator[None]:
    """Without the two long pauses that Python has by itself.

    The collector would look through the model and all modules again and again, and the thread that decides would keep
    the interpreter for five milliseconds while requests wait to be read.
    """
    interval = sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.unfreeze()


def most_connections(wanted: int = _CONNECTIONS) -> int:
    """Connections that are answered at once: as many as wanted, or as this process may have open files for.

    One that is accepted without a file left for it would stop all others from being accepted.

    Raises:
        ConfigError: The process may hardly open any.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    left = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - SPARE - _OTHER_FILES)
    if left < 1:
        raise ConfigError(
            f"this process may open {soft} files, and a service needs {SPARE + _OTHER_FILES + 1} or more: raise it "
            "with ulimit -n"
        )
    return left


def _taken(host: str, port: int, error: OSError) -> ConfigError:
    return ConfigError(f"cannot listen at {host}, port {port}: {error.strerror}; --port 0 takes a free one")
