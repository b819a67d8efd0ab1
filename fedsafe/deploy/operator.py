"""Who may start runs: whoever can read the operator's token on the server's machine, and nobody else.

Flower's own server without accounts starts any run for anyone who reaches its port. It has a place for another rule,
which this is. The token is made by the operating system, lies in ``server/state/operator.token`` (0600), and travels
only over loopback and TLS.
"""

import hmac
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from flwr.common.constant import ACCESS_TOKEN_KEY, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.supercore.auth.typing import AccountAuthCredentials, AccountAuthLoginDetails, AccountInfo
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.superlink.auth_plugin import ControlAuthnPlugin

from fedsafe.errors import ConfigError

_LETTERS = 64


def secret_file(path: Path) -> bytes:
    """A secret of 32 bytes in hexadecimal, made if it is not there or not whole; only its owner can read it.

    Raises:
        ConfigError: Others can read the one that is there.
    """
    try:
        found, mode = path.read_bytes(), path.stat().st_mode & 0o777
    except FileNotFoundError:
        found, mode = b"", 0o600
    if mode & 0o077:
        raise ConfigError(
            f"{path} can be read by other users (mode {mode:o}): delete it, and another is made when the server starts"
        )
    # Who was killed while it was written left none or a part, which anybody could guess.
    if len(found) != _LETTERS:
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(_LETTERS // 2).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    return path.read_bytes()


class OperatorOnly(ControlAuthnPlugin):
    """Flower's rule of who may use the control interface: who has the token.

    Args:
        token: The operator's.
    """

    def __init__(self, token: bytes) -> None:
        self._token = token

    def get_login_details(self) -> AccountAuthLoginDetails | None:
        """There is no login: the token is a file."""
        return None

    def validate_tokens_in_metadata(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[bool, AccountInfo | None]:
        """Whether a request carries the token."""
        said = str(dict(metadata).get(ACCESS_TOKEN_KEY, "")).encode()
        if not self._token or not hmac.compare_digest(said, self._token):
            return False, None
        return True, AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)

    def get_auth_tokens(self, device_code: str) -> AccountAuthCredentials | None:
        """None are given out."""
        raise FlowerError(ApiErrorCode.NO_ACCOUNT_AUTH, "the operator's token is a file on the server")

    def refresh_tokens(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[Sequence[tuple[str, str | bytes]] | None, AccountInfo | None]:
        """The token does not expire."""
        return None, None


class _WithToken:
    def __init__(self, token: bytes) -> None:
        self._token = token

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers["Authorization"] = f"Bearer {self._token.decode()}"
        return call_next(context)


@contextmanager
def control(port: int, authority: Path, token: Path) -> Iterator[ControlHttpClient]:
    """The control interface of the server on this machine.

    Args:
        port: The server's.
        authority: The federation's ``ca.pem``.
        token: The operator's token.

    Raises:
        ConfigError: The token cannot be read, or the server cannot be reached, or refuses.
    """
    try:
        said = token.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{token} cannot be read: {error.strerror}; run this on the server's machine, as its user, after the "
            "server has started once"
        ) from error
    client = ControlHttpClient.from_server_address(
        server_address=f"127.0.0.1:{port}",
        insecure=False,
        root_certificates=authority.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI"), _WithToken(said)],
    )
    try:
        yield client
    except httpx.TransportError as error:
        raise ConfigError(
            f"the server does not answer on 127.0.0.1:{port}: {error}; start it with server/superlink.sh"
        ) from error
    except httpx.HTTPStatusError as error:
        raise ConfigError(
            f"the server refused: {error.response.status_code} {error.response.text[:300]}"
        ) from error
    finally:
        client.close()
