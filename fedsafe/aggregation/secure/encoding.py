"""A message in bytes: what it is for, its own part, and a signature where a client sends it.

Whatever a client sends is signed with everything that says what it is for: version, kind, run, round, context, sender.
"""

from dataclasses import dataclass
from functools import lru_cache

from fedsafe.aggregation.secure.identity import SigningKey, sign
from fedsafe.aggregation.secure.messages import (
    Abort,
    Advertisement,
    Confirmation,
    Confirmations,
    Deliveries,
    Masked,
    Message,
    Revealed,
    Roster,
    Shares,
    Survivors,
)
from fedsafe.aggregation.secure.wire import Reader, Writer
from fedsafe.errors import SecureAggregationError

SERVER = 2**32 - 1
_MAGIC = b"FSA\x01"
_DIGEST = 32


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a message is for.

    Args:
        run: Digest of the run's name.
        round: The round.
        context: Digest of all that the parties agreed on.
        sender: The client, or ``SERVER``.
    """

    run: bytes
    round: int
    context: bytes
    sender: int


_KINDS: dict[int, type[Message]] = {
    made.kind: made
    for made in (
        Advertisement,
        Roster,
        Shares,
        Deliveries,
        Masked,
        Survivors,
        Confirmation,
        Confirmations,
        Revealed,
        Abort,
    )
}


def statement(header: Header, message: Message) -> bytes:
    """All bytes but the signature: what a client signs."""
    to = Writer()
    to.fixed(_MAGIC)
    to.number(message.kind, 1)
    to.fixed(header.run)
    to.number(header.round, 8)
    to.fixed(header.context)
    to.number(header.sender)
    message.write(to)
    return to.done()


def encode(header: Header, message: Message, key: SigningKey | None = None) -> bytes:
    """A message in bytes, with the signature of a client's."""
    body = statement(header, message)
    signature = sign(key, body) if key is not None else b""
    return body + signature + len(signature).to_bytes(1, "big")


def decode(data: bytes) -> tuple[Header, Message, bytes, bytes]:
    """A message, its signature, and the statement that was signed; nothing is verified yet.

    Raises:
        SecureAggregationError: It is none.
    """
    if not isinstance(data, bytes):
        raise SecureAggregationError(f"a message of secure aggregation is bytes, not {type(data).__name__}")
    end = len(data) - 1 - (data[-1] if data else 0)
    if end < 0:
        raise SecureAggregationError(f"{len(data)} bytes are no message of secure aggregation")
    # Where one process plays many clients, all are sent the same few messages of the server, which nobody signs.
    return _decoded(data, end) if end < len(data) - 1 else _decoded_once(data, end)


def _decoded(data: bytes, end: int) -> tuple[Header, Message, bytes, bytes]:
    body, signature = data[:end], data[end:-1]
    source = Reader(body)
    if source.fixed(4) != _MAGIC:
        raise SecureAggregationError(
            "these bytes are no message of secure aggregation of this version: let all parties run one version"
        )
    kind = source.number(1)
    header = Header(
        run=source.fixed(_DIGEST),
        round=source.number(8),
        context=source.fixed(_DIGEST),
        sender=source.number(),
    )
    if kind not in _KINDS:
        raise SecureAggregationError(f"a message of secure aggregation has the unknown kind {kind}")
    message = _KINDS[kind].read(source)
    source.done()
    if bool(signature) != message.signed:
        raise SecureAggregationError(
            f"{type(message).__name__} of secure aggregation is {'not ' if message.signed else ''}signed, and must "
            f"{'' if message.signed else 'not '}be"
        )
    return header, message, signature, body


_decoded_once = lru_cache(maxsize=4)(_decoded)
