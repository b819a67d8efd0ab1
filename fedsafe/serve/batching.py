"""Requests that arrive together are answered together, by one thread: a model answers a batch nearly as fast as one.

Callers take turns, and where several wait each has an equal part of the queue: who asks most starves nobody.
"""

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
        passes: Passes through the model for each row: more than one where an explanation is wanted.
    """

    x: NDArray[Any]
    caller: str
    passes: int = 1

    @property
    def work(self) -> int:
        """What it takes, in rows."""
        return len(self.x) * self.passes


@dataclass(frozen=True, eq=False)
class _Waiting:
    asked: Asked
    answer: "asyncio.Future[Any]"


class Batcher:
    """Collects requests while the thread works, and for a moment while it does not.

    Args:
        work: Called in the thread, with requests; returns what each is answered, or an exception for it.
        batch: Rows of one call, at most, but for a request that has more.
        queue: Rows that wait or are worked on, from which on no more are taken; where there are several callers, of
            each its part of it, and half as many again in all, so that who came first and filled it keeps nobody out.
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
        self._waiting: dict[str, deque[_Waiting]] = {}
        """By caller; the first caller is the next."""
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self.rows = 0
        """Rows that wait or are worked on."""
        self._of: dict[str, int] = {}
        """Of them those of each caller."""

    def full(self, caller: str) -> bool:
        """Whether no more is taken from a caller now."""
        own = self._of.get(caller, 0)
        callers = len(self._of) + (caller not in self._of)
        spare = self._queue // 2 if callers > 1 else 0
        return own >= max(1, self._queue // callers) or self.rows >= self._queue + spare

    async def answer(self, asked: Asked) -> Any:
        """The answer to a request.

        Raises:
            Overloaded: Too many rows wait.
        """
        if self.full(asked.caller):
            raise Overloaded
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self.rows += asked.work
        self._of[asked.caller] = self._of.get(asked.caller, 0) + asked.work
        self._waiting.setdefault(asked.caller, deque()).append(_Waiting(asked, future))
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
        batch = [self._next()]
        rows = batch[0].asked.work
        while self._waiting and rows + next(iter(self._waiting.values()))[0].asked.work <= self._batch:
            batch.append(self._next())
            rows += batch[-1].asked.work
        self._busy = True
        running = loop.run_in_executor(self._thread, self._work, [each.asked for each in batch])
        running.add_done_callback(lambda done: self._done(loop, batch, done))

    def _next(self) -> _Waiting:
        """One request of the caller whose turn it is; it is the last in turn then."""
        caller, own = next(iter(self._waiting.items()))
        found = own.popleft()
        del self._waiting[caller]
        if own:
            self._waiting[caller] = own
        return found

    def _done(
        self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Waiting], done: "asyncio.Future[Any]"
    ) -> None:
        self._busy = False
        for each in batch:
            caller, work = each.asked.caller, each.asked.work
            self.rows -= work
            self._of[caller] -= work
            if not self._of[caller]:
                del self._of[caller]
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
