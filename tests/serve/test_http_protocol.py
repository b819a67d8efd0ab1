"""Over a real socket: trailers that never end, bodies that nobody reads, and refusals that whoever sends still sees."""

import asyncio

import pytest
from tiny_guard import guard

from fedsafe.serve import http_protocol
from fedsafe.serve.http_protocol import HEAD_BYTES, SPARE, LimitedProtocol
from fedsafe.serve.service import Service

REFUSED = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"


async def served(work, *, limit=100):
    """Run ``work(connect, connections)`` against the service at a port of this machine."""
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    config = Config(Service(guard()), ws="none", log_config=None, limit_concurrency=limit)
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: LimitedProtocol(config, state, {}), "127.0.0.1", 0)
    port, opened = server.sockets[0].getsockname()[1], []

    async def connect():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        opened.append(writer)
        return reader, writer

    try:
        return await work(connect, state.connections)
    finally:
        server.close()
        for writer in opened:
            writer.transport.abort()
        for _ in range(200):
            await asyncio.sleep(0.01)
            if not state.connections:
                break
        for protocol in list(state.connections):
            protocol.transport.abort()
        await asyncio.sleep(0.01)


async def gone(reader, seconds=2.0):
    """Whether the other side ends the connection."""
    try:
        async with asyncio.timeout(seconds):
            while await reader.read(1 << 16):
                pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize("trailer", [b"a: b\r\n", b"a"], ids=["many fields", "one without end"])
def test_trailers_are_neither_kept_nor_let_in_without_end(trailer):
    async def work(connect, connections):
        reader, writer = await connect()
        writer.write(REFUSED + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        await writer.drain()
        if len(trailer) == 1:
            writer.write(b"a: ")
        [protocol] = [await anext(_first(connections))]
        headers, sent = None, 0
        try:
            while sent < 64 * HEAD_BYTES:
                writer.write(trailer * 4000)
                await writer.drain()
                sent += len(trailer) * 4000
                headers = protocol.headers or headers
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        assert await gone(reader)
        assert sent < 32 * HEAD_BYTES  # what the sockets' own buffers take is no memory of the service
        assert not any(name == b"a" for name, _ in headers)

    asyncio.run(served(work))


async def _first(connections):
    while not connections:
        await asyncio.sleep(0.001)
    yield next(iter(connections))


def test_a_body_that_nobody_reads_ends(monkeypatch):
    monkeypatch.setattr(http_protocol, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.2)

    async def work(connect, connections):
        reader, writer = await connect()
        writer.write(REFUSED + b"Content-Length: 60000\r\n\r\n")
        assert (await reader.readuntil(b"}}")).startswith(b"HTTP/1.1 415")
        writer.write(b"x")  # one byte ends what uvicorn does about an idle connection
        return await gone(reader)

    assert asyncio.run(served(work))


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_whoever_sends_a_huge_body_still_sees_why_it_is_refused(framing):
    async def work(connect, connections):
        reader, writer = await connect()
        size = 8 << 20
        if framing == "length":
            writer.write(REFUSED + b"Content-Length: %d\r\n\r\n" % size)
        else:
            writer.write(REFUSED + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size)
        for _ in range(size >> 16):  # sends everything before it looks at the answer, as most do
            writer.write(b" " * (1 << 16))
            await writer.drain()
        if framing == "chunked":
            writer.write(b"\r\n0\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 415")
        assert b"connection: close" in answer.lower()

    for _ in range(3):
        asyncio.run(served(work))


async def flood(writer):
    for _ in range(1000):
        writer.write(b" " * (1 << 16))
        await writer.drain()
        await asyncio.sleep(0)


def test_what_is_drained_is_bounded(monkeypatch):
    monkeypatch.setattr(http_protocol, "DRAINED_BYTES", 1 << 20)
    monkeypatch.setattr(http_protocol, "DRAINED_SECONDS", 0.2)

    async def work(connect, connections):
        reader, writer = await connect()
        writer.write(REFUSED + b"Content-Length: 100000000\r\n\r\n")
        await reader.readuntil(b"}}")
        with pytest.raises(ConnectionError):
            await flood(writer)
        slow, writer = await connect()
        writer.write(REFUSED + b"Content-Length: 100000000\r\n\r\n")
        await slow.readuntil(b"}}")
        await asyncio.sleep(0.3)
        assert not connections

    asyncio.run(served(work))


def test_a_small_refused_body_keeps_its_connection():
    async def work(connect, connections):
        reader, writer = await connect()
        for _ in range(2):
            writer.write(REFUSED + b"Content-Length: 2\r\n\r\n{}")
            answer = await reader.readuntil(b"}}")
            assert answer.startswith(b"HTTP/1.1 415")
            assert b"connection: close" not in answer.lower()

    asyncio.run(served(work))


def test_connections_far_above_the_limit_are_cut_off():
    async def work(connect, connections):
        for _ in range(SPARE + 6):
            await connect()
        await asyncio.sleep(0.05)
        assert len(connections) <= SPARE + 3

    asyncio.run(served(work, limit=3))
