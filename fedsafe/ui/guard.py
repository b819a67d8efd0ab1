"""What every request passes first: methods that read, a Host that is ours, and headers that forbid all but our own."""

import socket
from collections.abc import Iterable, MutableMapping
from ipaddress import ip_address
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
FILE_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""Of pages out of run folders: they may be anybody's, so they run no script and belong to no origin."""

_HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Guard:
    """Refuses before the application is asked.

    A page on the web may point a name of its own at this machine (DNS rebinding), and would then be of the same origin
    as what it reads. The browser still sends that name: only names of ours are answered.

    Args:
        app: What is guarded.
        hosts: More names that are ours; the address that a connection came in by always is.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = {*_LOCAL, *(_plain(host) for host in hosts), socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        head = scope["method"] == "HEAD"

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _with_headers(message.get("headers", ()))}
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        if scope["method"] not in ("GET", "HEAD"):
            await _refuse(guarded, 405, "this page only shows: use GET or HEAD", {"allow": "GET, HEAD"})
        elif not self._ours(scope):
            await _refuse(
                guarded, 400, "the Host of this request is not one of this page's; use the printed address"
            )
        else:
            # Each route answers GET; what HEAD is answered is the same without its body.
            await self._app({**scope, "method": "GET"}, receive, guarded)

    def _ours(self, scope: MutableMapping[str, Any]) -> bool:
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(given) != 1:
            return False
        name = _without_port(given[0])
        here = (scope.get("server") or ("", 0))[0]
        return name in self._hosts or _same_address(name, here)


def _without_port(host: str) -> str:
    """The name or address in a Host header, in small letters; "" where it is none."""
    if host.startswith("["):
        return _plain(host[1:].partition("]")[0])
    name, colon, port = host.partition(":")
    return _plain(name) if not colon or (port.isascii() and port.isdigit()) else ""


def _plain(host: str) -> str:
    return host.strip().strip("[]").rstrip(".").lower()


def _same_address(name: str, here: str) -> bool:
    try:
        address = ip_address(here)
        # A socket for both families says of an IPv4 address how it is written in IPv6.
        return ip_address(name) in (address, getattr(address, "ipv4_mapped", None))
    except ValueError:
        return False


def _with_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    given = list(headers)
    named = {name.lower() for name, _ in given}
    return given + [
        (name.encode(), value.encode()) for name, value in _HEADERS.items() if name.encode() not in named
    ]


async def _refuse(send: Send, status: int, why: str, more: dict[str, str] | None = None) -> None:
    body = f"{why}\n".encode()
    headers = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), **(more or {})}
    start = {"type": "http.response.start", "status": status}
    await send({**start, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]})
    await send({"type": "http.response.body", "body": body})
