"""Requests that arrive together are answered together, by one thread: a model answers a batch nearly as fast as one."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Overloaded(Exception):
    """More waits than is allowed to."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Rows of one request.

    Attributes:
        x: ``(n, *inputs)``.
        caller: Who asks.
        explain: Whether explanations are wanted.
    """

    x: NDArray[Any]
    caller: str
    explain: bool


@dataclass(frozen=True, eq=False)
class _Waiting:
    asked: Asked
    answer: "asyncio.Future[Any]"


class Batcher:
    """Collects requests while the thread works, and for a moment while it does not.

    Args:
        work: Called in the thread, with requests; returns what each is answered, or an exception for it.
        batch: Rows of one call, at most, but for a request that has more.
        queue: Rows that wait or are worked on, from which on no more are taken.
        linger: Seconds that the first of a batch waits for others where the thread has nothing to do.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Asked]], Sequence[Any]],
        *,
        batch: int,
        queue: int,
        linger: float = 0.002,
    ) -> None:
        self._work, self._batch, self._queue, self._linger = work, batch, queue, linger
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fedsafe-guard")
        self._waiting: deque[_Waiting] = deque()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self.rows = 0
        """Rows that wait or are worked on."""

    @property
    def full(self) -> bool:
        """Whether no more is taken now."""
        return self.rows >= self._queue

    async def answer(self, asked: Asked) -> Any:
        """The answer to a request.

        Raises:
            Overloaded: Too many rows wait.
        """
        if self.full:
            raise Overloaded
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self.rows += len(asked.x)
        self._waiting.append(_Waiting(asked, future))
        if not self._busy and self._timer is None:
            self._timer = loop.call_later(self._linger, self._start, loop)
        return await future

    async def close(self) -> None:
        """Wait for what is asked, and end the thread."""
        while self._busy or self._waiting:
            await asyncio.sleep(0.005)
        self._thread.shutdown(wait=True)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._busy or not self._waiting:
            return
        batch, rows = [self._waiting.popleft()], 0
        rows = len(batch[0].asked.x)
        while self._waiting and rows + len(self._waiting[0].asked.x) <= self._batch:
            batch.append(self._waiting.popleft())
            rows += len(batch[-1].asked.x)
        self._busy = True
        running = loop.run_in_executor(self._thread, self._work, [each.asked for each in batch])
        running.add_done_callback(lambda done: self._done(loop, batch, done))

    def _done(
        self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Waiting], done: "asyncio.Future[Any]"
    ) -> None:
        self._busy = False
        self.rows -= sum(len(each.asked.x) for each in batch)
        failed = done.exception()
        answers: Sequence[Any] = [failed] * len(batch) if failed is not None else done.result()
        for each, answer in zip(batch, answers, strict=True):
            if each.answer.done():
                continue  # whoever asked has gone
            if isinstance(answer, BaseException):
                each.answer.set_exception(answer)
            else:
                each.answer.set_result(answer)
        self._start(loop)


def joined(asked: Sequence[Asked]) -> NDArray[Any]:
    """``(n, *inputs)`` rows of several requests."""
    return asked[0].x if len(asked) == 1 else np.concatenate([each.x for each in asked])
