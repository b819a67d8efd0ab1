"""Serving the page: a socket of this machine, and the server behind it."""

import ipaddress
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

from fedsafe.errors import ConfigError
from fedsafe.ui.server import create_app


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    private: bool = False,
    on_address: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve the page of a folder until a signal ends it.

    Args:
        folder: That holds runs and comparisons.
        host: Address or name to listen at.
        port: To listen at; 0 for a free one.
        private: Whether to show the ledgers, to whoever has the address that is told.
        on_address: Told the address once it can be opened.

    Raises:
        ConfigError: The address cannot be listened at, or what is private would leave this machine.
        RecordError: The folder is none.
    """
    import uvicorn

    key = secrets.token_urlsafe(24) if private else None
    app = create_app(folder, private_key=key, hosts=[host])
    listening = _listen(host, port)
    with listening:
        bound = listening.getsockname()
        if private and not ipaddress.ip_address(bound[0]).is_loopback:
            raise ConfigError(
                f"--private with --host {host}: who took part when would leave this machine; leave one of them out, "
                "and reach the page from elsewhere through ssh -L"
            )
        everywhere = ipaddress.ip_address(bound[0]).is_unspecified
        name = socket.gethostname() if everywhere else host
        shown = f"[{name}]" if ":" in name else name
        on_address(f"http://{shown}:{bound[1]}/{'' if key is None else f'?key={key}'}")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        uvicorn.Server(config).run(sockets=[listening])


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
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen at {host}, port {port}: {error.strerror}; --port 0 takes a free one"
        ) from error
    return listening
