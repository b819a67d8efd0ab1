"""HTTP/1.1 as uvicorn has it, with a limit on what comes before a body: it has none of its own.

Without one, somebody without any key could fill the memory with a header that never ends, or hold a connection with one
that comes byte by byte.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES: Final = 1 << 16
HEAD_SECONDS: Final = 10.0


class LimitedProtocol(HttpToolsProtocol):
    """Closes a connection whose head is too long or too slow."""

    _head, _in_head, _since = 0, True, 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A connection has come."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._in_head:
            if not self._head:
                self._since = self.loop.time()
            self._head += len(data)
        super().data_received(data)
        if self._in_head and self._head > HEAD_BYTES:
            self.transport.close()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head, self._in_head = 0, False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """So is the body."""
        self._head, self._in_head = 0, True
        super().on_message_complete()

    def _look(self) -> None:
        # What waits for an answer, or between two requests, is not in the middle of a head.
        fresh = self.cycle is None
        if self._in_head and (self._head or fresh) and self.loop.time() - self._since >= HEAD_SECONDS:
            self.transport.close()
            return
        self._timer = self.loop.call_later(HEAD_SECONDS / 2, self._look)
