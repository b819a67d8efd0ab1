"""What comes on top is refused: of a caller, of all callers, and what never ends."""

import asyncio
import threading

import numpy as np
import pytest

from fedsafe.errors import ConfigError
from fedsafe.serve.batching import Asked, Batcher, Overloaded, joined
from fedsafe.serve.http_protocol import HEAD_BYTES, LimitedProtocol
from fedsafe.serve.limits import Limits, Rates


def test_a_caller_has_a_seconds_worth_at_once_and_then_the_rate():
    now = [0.0]
    rates = Rates(10.0, clock=lambda: now[0])
    assert rates.wait("a", 10) == 0
    assert rates.wait("a", 1) == pytest.approx(0.1)
    assert rates.wait("b", 10) == 0  # another caller has its own
    now[0] = 0.5
    assert rates.wait("a", 6) == pytest.approx(0.1)  # and nothing was taken
    assert rates.wait("a", 5) == 0
    now[0] = 100.0
    assert rates.wait("a", 11) == pytest.approx(0.1)  # no more than a second's worth is saved
    granted = 0
    for step in range(1000):
        now[0] = 100.0 + step / 100
        granted += rates.wait("a", 1) == 0
    assert granted == pytest.approx(10 + 10 * 9.99, abs=1)


@pytest.mark.parametrize("name", ["body", "batch", "explained", "rate", "queue", "held", "seconds"])
def test_a_limit_is_a_positive_number(name):
    for value in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=f"the limit {name}"):
            Limits(**{name: value})


def test_a_batch_that_could_never_be_answered_is_refused():
    with pytest.raises(ConfigError, match="could never be answered"):
        Limits(batch=100, rate=50)


def asked(rows, caller="", passes=1):
    return Asked(np.full((rows, 1), rows, np.float32), caller, passes)


def batches(**options):
    seen, gate = [], threading.Event()

    def work(group):
        seen.append([len(each.x) for each in group])
        gate.wait(5)
        return [float(each.x.sum()) for each in group]

    return seen, gate, Batcher(work, **{"batch": 8, "queue": 20, "linger": 0.0, **options})


def test_what_arrives_while_the_model_works_is_answered_together_and_each_gets_its_own():
    seen, gate, batcher = batches()

    async def run():
        first = asyncio.create_task(batcher.answer(asked(1)))
        while not seen:
            await asyncio.sleep(0.001)
        rest = [asyncio.create_task(batcher.answer(asked(n))) for n in (2, 3, 3, 4)]
        await asyncio.sleep(0.01)
        assert batcher.rows == 13
        gate.set()
        answers = await asyncio.gather(first, *rest)
        await batcher.close()
        return answers

    assert asyncio.run(run()) == [1, 4, 9, 9, 16]
    assert seen == [[1], [2, 3, 3], [4]]
    assert batcher.rows == 0


def test_a_full_queue_refuses_at_once_and_takes_again_when_it_is_empty():
    _, gate, batcher = batches(queue=4)

    async def run():
        waiting = [asyncio.create_task(batcher.answer(asked(2))) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await batcher.answer(asked(1))
        gate.set()
        await asyncio.gather(*waiting)
        assert await batcher.answer(asked(9)) == 81  # a request of its own size is taken whole
        await batcher.close()

    asyncio.run(run())


def test_who_asks_most_neither_fills_the_queue_nor_is_first_for_ever():
    order, gate = [], threading.Event()

    def work(group):
        gate.wait(5)
        order.extend(each.caller for each in group)
        return [1] * len(group)

    batcher = Batcher(work, batch=2, queue=8, linger=0.0)

    async def run():
        greedy = [asyncio.create_task(batcher.answer(asked(2, "greedy"))) for _ in range(4)]
        await asyncio.sleep(0.01)
        assert batcher.full("greedy")
        other = asyncio.create_task(batcher.answer(asked(2, "other")))  # though the queue is full
        await asyncio.sleep(0.01)
        assert batcher.rows == 10
        gate.set()
        await other
        assert order.count("greedy") <= 3  # its turn came before the end of those who were earlier
        gate.clear()
        while batcher.rows > 6:
            await asyncio.sleep(0.001)
        gate.set()
        await asyncio.gather(*greedy)
        held = [asyncio.create_task(batcher.answer(asked(1, name))) for name in ("greedy", "other")]
        gate.clear()
        await asyncio.sleep(0)
        more = [asyncio.create_task(batcher.answer(asked(1, "greedy"))) for _ in range(6)]
        await asyncio.sleep(0.01)
        assert batcher._of["greedy"] == 4  # half of eight, while somebody else waits
        gate.set()
        told = await asyncio.gather(*held, *more, return_exceptions=True)
        assert sum(isinstance(answer, Overloaded) for answer in told) == 3
        assert (batcher.rows, batcher._of) == (0, {})
        await batcher.close()

    asyncio.run(run())


def test_an_explanation_costs_what_it_takes():
    assert asked(3, passes=32).work == 96
    seen, gate, batcher = batches(batch=8, queue=40)

    async def run():
        gate.set()
        told = [
            asyncio.create_task(batcher.answer(asked(*each))) for each in ((1, "a", 32), (1, "b"), (1, "c"))
        ]
        await asyncio.gather(*told)
        await batcher.close()

    asyncio.run(run())
    assert seen == [[1], [1, 1]]


def test_an_error_is_told_to_those_whom_it_concerns_and_the_next_are_answered():
    def work(group):
        if any(each.caller == "all" for each in group):
            raise RuntimeError("everything broke")
        return [ValueError("yours") if each.caller == "bad" else 1 for each in group]

    batcher = Batcher(work, batch=8, queue=20)

    async def run():
        told = await asyncio.gather(
            batcher.answer(asked(1, "bad")), batcher.answer(asked(1)), return_exceptions=True
        )
        assert isinstance(told[0], ValueError)
        assert told[1] == 1
        with pytest.raises(RuntimeError, match="everything broke"):
            await batcher.answer(asked(1, "all"))
        # Whoever goes away leaves no hole in the count.
        gone = asyncio.create_task(batcher.answer(asked(3)))
        await asyncio.sleep(0)
        gone.cancel()
        assert await batcher.answer(asked(1)) == 1
        assert batcher.rows == 0
        await batcher.close()

    asyncio.run(run())


def test_joining_keeps_the_order():
    assert joined([asked(1), asked(2)])[:, 0].tolist() == [1, 2, 2]


class Transport:
    def __init__(self):
        self.closed, self.written = False, b""

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def write(self, data):
        self.written += data

    def get_extra_info(self, name, default=None):
        return default

    def can_write_eof(self):
        return False

    def pause_reading(self): ...

    def resume_reading(self): ...


@pytest.fixture
def connection():
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    async def app(scope, receive, send):
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    config = Config(app, ws="none", log_config=None)
    config.load()
    protocol, transport = LimitedProtocol(config, ServerState(), {}, _loop=loop), Transport()
    protocol.connection_made(transport)
    yield protocol, transport
    protocol.connection_lost(None)
    loop.close()


def test_a_head_that_does_not_end_is_cut_off(connection):
    protocol, transport = connection
    protocol.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nX: ")
    for _ in range(HEAD_BYTES // 4096 - 1):
        protocol.data_received(b"x" * 4096)
    assert not transport.closed
    protocol.data_received(b"x" * 4096)
    assert transport.closed


def test_a_head_that_comes_too_slowly_is_cut_off(connection):
    protocol, transport = connection
    protocol.data_received(b"POST / HTTP/1.1\r\n")
    protocol._look()
    assert not transport.closed
    protocol._since -= 60
    protocol._look()
    assert transport.closed


@pytest.mark.parametrize(
    ("soft", "hard", "answered"), [(1024, 1024, 640), (1024, 2000, 1616), (50_000, 50_000, 4096)]
)
def test_no_more_connections_are_answered_than_files_may_be_open(monkeypatch, soft, hard, answered):
    import resource

    from fedsafe.serve.server import most_connections

    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    assert most_connections() == answered
    assert raised == ([(min(hard, 4480), hard)] if soft < 4480 else [])
    monkeypatch.setattr(resource, "getrlimit", lambda _: (300, 300))
    with pytest.raises(ConfigError, match="ulimit -n"):
        most_connections()
