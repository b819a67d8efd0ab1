"""A load generator that costs little: HTTP/1.1 over kept-alive connections, one request at a time on each.

Closed loop: every connection asks again as soon as it is answered. Open loop: requests are due at a rate, whatever was
answered; one that finds no free connection is asked late, and its latency counts from when it was due.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Load:
    """What a load met.

    Attributes:
        seconds: How long it was.
        statuses: How often each status was answered.
        latencies: Seconds of each request that was answered with 200, from when it was due.
        sent: The same from when it was sent.
        shed: Seconds of each that was answered with 429, from when it was sent.
        late: Requests that found no free connection when they were due.
        broken: Connections that ended before an answer.
    """

    seconds: float = 0.0
    statuses: Counter = field(default_factory=Counter)
    latencies: list = field(default_factory=list)
    sent: list = field(default_factory=list)
    shed: list = field(default_factory=list)
    late: int = 0
    broken: int = 0

    def rate(self, status: int = 200) -> float:
        return self.statuses[status] / self.seconds

    def milliseconds(self, quantile: float) -> float:
        return quantile_of(self.latencies, quantile)


def quantile_of(seconds: list, quantile: float) -> float:
    """In milliseconds."""
    return 1000 * float(np.quantile(seconds, quantile)) if seconds else float("nan")


class _Connection(asyncio.Protocol):
    def __init__(self, owner):
        self.owner, self.due, self.sent, self.buffer = owner, 0.0, 0.0, b""

    def connection_made(self, transport):
        self.transport = transport
        self.owner.free(self)

    def ask(self, request, due):
        self.due, self.sent = due, time.perf_counter()
        self.transport.write(request)

    def data_received(self, data):
        self.buffer = self.buffer + data if self.buffer else data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self.buffer.find(b"content-length: ") + 16
        end = head + 4 + int(self.buffer[at : self.buffer.index(b"\r", at)])
        if len(self.buffer) < end:
            return
        status = int(self.buffer[9:12])
        self.buffer = b""
        self.owner.answered(self, status, time.perf_counter())

    def connection_lost(self, error):
        self.owner.lost(self)


class _Generator:
    def __init__(self, requests, rate, seconds):
        self.requests, self.rate, self.seconds = requests, rate, seconds
        self.load, self.idle, self.asked = Load(), deque(), 0
        self.waiting = deque()
        self.running, self.began = False, 0.0

    def free(self, connection):
        if self.waiting and self.running:
            connection.ask(self._next(), self.waiting.popleft())
        elif self.rate is None and self.running:
            connection.ask(self._next(), time.perf_counter())
        else:
            self.idle.append(connection)

    def _next(self):
        self.asked += 1
        return self.requests[self.asked % len(self.requests)]

    def answered(self, connection, status, now):
        self.load.statuses[status] += 1
        if status == 200:
            self.load.latencies.append(now - connection.due)
            self.load.sent.append(now - connection.sent)
        elif status == 429:
            self.load.shed.append(now - connection.sent)
        self.free(connection)

    def lost(self, connection):
        if self.running:
            self.load.broken += 1

    async def run(self, host, port, connections):
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_connection(lambda: _Connection(self), host, port) for _ in range(connections)
        ]
        self.running, self.began = True, time.perf_counter()
        if self.rate is None:
            for connection in list(self.idle):
                self.idle.remove(connection)
                connection.ask(self._next(), time.perf_counter())
            await asyncio.sleep(self.seconds)
        else:
            due = self.began
            while (now := time.perf_counter()) < self.began + self.seconds:
                while due <= now:
                    if self.idle:
                        self.idle.popleft().ask(self._next(), due)
                    else:
                        self.load.late += 1
                        if len(self.waiting) < 10_000:
                            self.waiting.append(due)
                    due += 1.0 / self.rate
                await asyncio.sleep(max(0.0005, due - time.perf_counter()))
        self.waiting.clear()
        self.load.seconds = time.perf_counter() - self.began
        # What is on its way still is answered, and counted as what was decided.
        self.running = False
        end = time.perf_counter() + 5.0
        while len(self.idle) < connections and time.perf_counter() < end:
            await asyncio.sleep(0.01)
        for transport, _ in made:
            transport.close()
        return self.load


def drive(
    host: str,
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int = 32,
    seconds: float = 10.0,
    rate: float | None = None,
) -> Load:
    """Ask for some time; at a rate, or as fast as answers come where it is None."""
    try:
        import uvloop

        runner = uvloop.run
    except ImportError:
        runner = asyncio.run
    return runner(_Generator(requests, rate, seconds).run(host, port, connections))


def request(path: str, body: bytes, *, key: str = "") -> bytes:
    """The bytes of a request."""
    more = f"Authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
