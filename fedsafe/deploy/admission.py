"""Who is let in: the roll of clients, and the door that every request to the server passes.

Flower's server has one port for three interfaces. The messages of clients (``/v1/fleet``) are signed with the node's
key; starting runs (``/v1/control``) and running the server's app (``/v1/runtime``) are for the server's own machine.
Flower checks the first signature itself. The door adds what it leaves out: that the key is one of this federation,
whose certificate holds today, that nobody outside reaches the other two, and one line in the log that says why not.
"""

import base64
import binascii
import contextlib
import ipaddress
import json
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedsafe.deploy.certificates import (
    Certificate,
    certificate_key,
    common_name,
    key_digest,
    public_pem,
    read_certificate,
    why_not,
)
from fedsafe.errors import ConfigError

LOG = logging.getLogger("flwr")
KEY_HEADER: Final = b"flwr-public-key"
"""The header in which a node says its key, as Flower's nodes send it; a test holds it to Flower's constant."""
_QUIET_SECONDS = 60.0
_MOST_SAID = 200  # in that time
_MOST_OF_A_PATH = 100
_OWN = ("/v1/control/", "/v1/runtime/")


@dataclass(frozen=True)
class Member:
    """A client on the roll."""

    client: str
    certificate: Certificate


@dataclass(kw_only=True)
class Roll:
    """The clients whose certificates lie in a folder; it is read again when the folder changes.

    Args:
        folder: One ``NAME.pem`` for each client. Taking one away revokes it at once.
        authority: The federation's certificate.
        admit: Called with the name and the public key (PEM) of each member that is new.
        remove: The same for each that is gone.
    """

    folder: Path
    authority: Certificate
    admit: Callable[[str, bytes], None] = lambda client, key: None
    remove: Callable[[str, bytes], None] = lambda client, key: None
    _members: dict[str, Member] = field(default_factory=dict)
    _read: tuple[tuple[str, int, int], ...] | None = None

    def refresh(self) -> None:
        """Read the folder again if it has changed."""
        now = self._stamp()
        if now == self._read:
            return
        found: dict[str, Member] = {}
        for name, _, _ in now:
            path = self.folder / name
            try:
                certificate = read_certificate(path)
                key = certificate_key(certificate, path)
            except ConfigError as error:
                LOG.error("%s; this client is not let in", error)
                continue
            client = common_name(certificate.subject)
            found[key_digest(key)] = Member(client, certificate)
            reason = why_not(certificate, self.authority)
            if reason:
                LOG.error("%s: %s; this client is not let in", path, reason)
        before, self._members, self._read = self._members, found, now
        for digest in before.keys() - found.keys():
            self._tell(self.remove, before[digest])
        for digest in found.keys() - before.keys():
            self._tell(self.admit, found[digest])

    def refuses(self, key: ec.EllipticCurvePublicKey) -> str:
        """Why the holder of a key is turned away; empty if it is not."""
        self.refresh()
        digest = key_digest(key)
        member = self._members.get(digest)
        if member is None:
            return f"key {digest[:16]} is not of this federation: no certificate in {self.folder} has it"
        reason = why_not(member.certificate, self.authority)
        return f"{member.client}: {reason}" if reason else ""

    def _stamp(self) -> tuple[tuple[str, int, int], ...]:
        found = []
        for path in sorted(self.folder.glob("*.pem")):
            with contextlib.suppress(FileNotFoundError):  # taken away meanwhile
                status = path.stat()
                found.append((path.name, status.st_mtime_ns, status.st_ino))
        return tuple(found)

    def _tell(self, act: Callable[[str, bytes], None], member: Member) -> None:
        act(member.client, public_pem(certificate_key(member.certificate, self.folder / member.client)))


class Door:
    """ASGI middleware before everything else that the server has.

    Args:
        app: What is behind the door.
        roll: Who is let in.
    """

    def __init__(self, app: Any, roll: Roll) -> None:
        self._app, self._roll, self._said = app, roll, _Said()

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Let a request through, or answer it with an error."""
        if scope["type"] == "http":
            reason = self._reason(scope)
            if reason:
                peer = (scope.get("client") or ("unknown", 0))[0]
                # Anybody chooses a path, which may not look like lines of the log.
                path = ascii(scope["path"])[1:-1][:_MOST_OF_A_PATH]
                self._said.warn(f"turned away {peer} at {path}: {reason}")
                await _refuse(send, reason if scope["path"].startswith("/v1/fleet/") else "not from here")
                return
        elif scope["type"] == "websocket":
            return
        await self._app(scope, receive, send)

    def _reason(self, scope: Mapping[str, Any]) -> str:
        path = scope["path"]
        if path == "/health":
            return ""
        if path.startswith("/v1/fleet/"):
            return self._reason_of_node(scope)
        if not path.startswith(_OWN):
            return "there is nothing for anybody at this path"
        peer = (scope.get("client") or ("",))[0]
        return "" if _is_loopback(peer) else "only the server's own machine may use this interface"

    def _reason_of_node(self, scope: Mapping[str, Any]) -> str:
        said = [value for name, value in scope["headers"] if name.lower() == KEY_HEADER]
        if len(said) != 1:
            return "the request names no node key: start the SuperNode with --auth-supernode-private-key"
        try:
            key = serialization.load_pem_public_key(base64.b64decode(said[0], validate=True))
        except (ValueError, binascii.Error):
            return "what the request names as a node key is none"
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return "the node key that the request names is of another kind than elliptic"
        return self._roll.refuses(key)


class SayingWhy(ssl.SSLObject):
    """A TLS connection that logs why it came to nothing; asyncio itself drops it in silence."""

    _said: "_Said"

    def do_handshake(self) -> None:
        """Shake hands."""
        try:
            super().do_handshake()
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLError as error:
            _say(error)
            raise

    def read(self, *arguments: Any) -> Any:
        """Read; with TLS 1.3 the other side's refusal arrives only here."""
        try:
            return super().read(*arguments)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise
        except ssl.SSLError as error:
            _say(error)
            raise


def _say(error: ssl.SSLError) -> None:
    code = error.reason or "unknown"
    _TLS.warn(f"turned away a connection: {_MEANING.get(code, 'the TLS handshake failed')} ({code})")


class _Said:
    """One warning a minute for each thing to say: who is turned away tries again every second."""

    def __init__(self) -> None:
        self._when: dict[str, float] = {}

    def warn(self, text: str) -> None:
        now = time.monotonic()
        if text in self._when and now - self._when[text] < _QUIET_SECONDS:
            return
        self._when = {said: at for said, at in self._when.items() if now - at < _QUIET_SECONDS}
        # Whoever makes up a new key for each request fills neither memory nor disk.
        text = text if len(self._when) < _MOST_SAID else "more is turned away than is said here"
        if text not in self._when:
            self._when[text] = now
            LOG.warning("%s", text)


_TLS = _Said()
_MEANING: Final = {
    "HTTP_REQUEST": "it spoke plain HTTP, and this server speaks TLS only",
    "WRONG_VERSION_NUMBER": "it did not speak TLS",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust this server's certificate: its ca.pem is of another "
    "federation",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client found this server's certificate expired: issue another, or compare "
    "clocks",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client found this server's certificate bad: is its host name in there?",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not accept this server's certificate",
    "UNSUPPORTED_PROTOCOL": "it offered only versions of TLS before 1.2",
}


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False


async def _refuse(send: Any, reason: str) -> None:
    # In the form of Flower's errors, which a node prints before it ends; 401 and 403 mean other things to it.
    body = json.dumps({"code": 403, "detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
