"""HTTP/1.1 as uvicorn has it, with limits on heads, on what is around a body, and on the time of either: it has none.

Without them, somebody without any key could fill the memory with a header or a trailer that never ends, or hold a
connection with a request that comes byte by byte, or whose body was refused and never comes.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES: Final = 1 << 16
HEAD_SECONDS: Final = 10.0
BODY_SECONDS: Final = 20.0
"""A body that is wanted has less: `Limits.seconds`. This is for one that nobody reads."""
DRAINED_BYTES: Final = 1 << 24
DRAINED_SECONDS: Final = 3.0
SPARE: Final = 256
"""Connections above the limit that are told so with 503; what comes on top of these is cut off at once."""


class LimitedProtocol(HttpToolsProtocol):
    """Closes a connection whose request is too long or too slow."""

    _head, _in_head, _since = 0, True, 0.0
    _quiet = 0
    """Bytes since the last ones of a body: of chunks' sizes and extensions, and of trailers."""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A connection has come."""
        super().connection_made(_Lingering(transport, self))  # type: ignore[arg-type]
        self._since = self.loop.time()
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency + SPARE:
            transport.abort()
            return
        self._timer = self.loop.call_later(HEAD_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self.lingering.drained(len(data)):
            return
        if self._in_head:
            if not self._head:
                self._since = self.loop.time()
            self._head += len(data)
        else:
            self._quiet += len(data)
        super().data_received(data)
        if (self._in_head and self._head > HEAD_BYTES) or (not self._in_head and self._quiet > HEAD_BYTES):
            self.lingering.close_now()

    @property
    def lingering(self) -> "_Lingering":
        """The transport."""
        return self.transport  # type: ignore[return-value]

    @property
    def unread(self) -> bool:
        """Whether a body has not come to its end."""
        return not self._in_head

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP, and no end of it is waited for."""
        self._in_head = True
        super().send_400_response(msg)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; one after the body (a trailer) would join the head of a request that is answered."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head, self._quiet, self._in_head, self._since = 0, 0, False, self.loop.time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        self._quiet = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """So is the body."""
        self._head, self._in_head = 0, True
        super().on_message_complete()
        self.lingering.whole()

    def _look(self) -> None:
        # What waits for an answer, or between two requests, is not in the middle of anything.
        since = self.loop.time() - self._since
        slow_head = self._in_head and (self._head or self.cycle is None) and since >= HEAD_SECONDS
        if slow_head or (not self._in_head and since >= BODY_SECONDS):
            self.lingering.close_now()
            return
        self._timer = self.loop.call_later(HEAD_SECONDS / 2, self._look)


class _Lingering:
    """A transport that takes a bounded part of an unread body before it closes.

    To close while bytes wait to be read resets the connection, and whoever still sends never sees the refusal.
    """

    def __init__(self, transport: Any, protocol: LimitedProtocol) -> None:
        self._transport, self._protocol = transport, protocol
        self.write = transport.write
        self._left: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether it is closed, or will be."""
        return self._left is not None or bool(self._transport.is_closing())

    def close(self) -> None:
        """Close, now or when what is sent has come."""
        if self._left is not None:
            return
        if not self._protocol.unread or self._transport.is_closing():
            self.close_now()
            return
        self._left = DRAINED_BYTES
        self._timer = self._protocol.loop.call_later(DRAINED_SECONDS, self.close_now)
        self._protocol.flow.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()  # the answer is whole

    def drained(self, size: int) -> bool:
        """Whether bytes that have come are only thrown away: too many, or no longer of one body."""
        if self._left is None:
            return False
        self._left -= size
        if self._left < 0:
            self.close_now()
        return self._left < 0 or not self._protocol.unread

    def whole(self) -> None:
        """The body has come to its end."""
        if self._left is not None:
            self.close_now()

    def close_now(self) -> None:
        """Close without waiting."""
        self._left = -1
        if self._timer is not None:
            self._timer.cancel()
        self._transport.close()
