"""Serving: a socket, the HTTP server behind it, and an end that loses nothing."""

import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from fedsafe.errors import ConfigError
from fedsafe.serve.http_protocol import LimitedProtocol
from fedsafe.serve.service import Service

_GRACE = 30
_CONNECTIONS = 4096


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


def serve(
    service: Service,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    keyed: bool = False,
    certificate: Path | None = None,
    private_key: Path | None = None,
    on_address: Callable[[str], None] = lambda address: None,
) -> None:
    """Answer until SIGTERM or SIGINT; what was asked is answered then, and the log is on the disk.

    Args:
        service: What answers.
        host: Address or name to listen at.
        port: To listen at; 0 for a free one.
        keyed: Whether the service asks for keys: without, only this machine may reach it.
        certificate: PEM file of a certificate, for HTTPS.
        private_key: PEM file of its key.
        on_address: Told the address once it can be reached.

    Raises:
        ConfigError: The address cannot be listened at, or everybody could ask.
    """
    if (certificate is None) != (private_key is None):
        raise ConfigError("HTTPS needs --certificate and --private-key: give both, or none")
    with _listen(host, port) as listening:
        bound = listening.getsockname()
        if not keyed and not ipaddress.ip_address(bound[0]).is_loopback:
            raise ConfigError(
                f"--host {host} can be reached from other machines, and without --keys anybody there could ask: make a "
                "key with --keys FILE --new-key NAME, or leave --host out"
            )
        config: dict[str, Any] = {
            "log_level": "error",
            "access_log": False,
            "server_header": False,
            "lifespan": "on",
            "ws": "none",
            "http": LimitedProtocol,
            "limit_concurrency": _CONNECTIONS,
            "proxy_headers": False,
            "timeout_graceful_shutdown": _GRACE,
        }
        if certificate is not None:
            config |= {"ssl_certfile": str(certificate), "ssl_keyfile": str(private_key)}
        try:
            server = _Server(uvicorn.Config(service, **config))
            server.config.load()
        except OSError as error:
            raise ConfigError(
                f"--certificate {certificate} and --private-key {private_key}: {error}"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        on_address(f"http{'' if certificate is None else 's'}://{shown}:{bound[1]}")
        try:
            server.run(sockets=[listening])
        finally:
            # An end by force leaves this to us; the log knows when it is closed already.
            service.guard.close()


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port}: give a number from 0, which is any free one, to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"--host {host!r} is no address of this machine: {error.strerror}") from error
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen at {host}, port {port}: {error.strerror}; --port 0 takes a free one"
        ) from error
    return listening
