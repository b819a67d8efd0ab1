"""Gives chunks to workers: the next chunk to whoever is free, a lost chunk again, and every reply once.

One thread owns all of it. Other threads hand it work and wait on a condition, so that an app may send from many.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from flwr.app import Message
from flwr.common.constant import ErrorCode

from fedsafe.engine.chunks import Pace
from fedsafe.engine.grid import error_reply, expired
from fedsafe.engine.interchange import States, packed
from fedsafe.errors import EngineError

# How often a chunk is tried. The first loss may be an accident; what kills three workers will kill the next.
TRIES = 3
# Loading torch and the data takes seconds; much longer means that no processor is free.
START_SECONDS = 300.0


class Worker(Protocol):
    """A process that runs chunks, of any make."""

    def ready(self) -> "Future[bool]":
        """Whether the app takes whole chunks, when it has loaded."""
        ...

    def run(self, shared: Any, chunk: bytes) -> "Future[tuple[float, list[Message], States]]":
        """Seconds, replies, and contexts in which something was kept."""
        ...

    def stop(self) -> None:
        """End the process; one that is gone already is no error."""
        ...


@dataclass(kw_only=True, eq=False)
class Sending:
    """Messages that were handed over together.

    Args:
        shared: A reference to what all of them share.
        tokens: Of each shared record, by identity.
        kind: Of the messages, for measuring.
        left: Chunks that have not come back.
        replies: Those that have; None where replies wait to be pulled one by one.
        error: Why no more will come.
    """

    shared: Any
    tokens: Mapping[int, int]
    kind: str
    left: int
    replies: list[Message] | None
    error: EngineError | None = None


@dataclass(kw_only=True, eq=False)
class Chunk:
    """Messages that one worker runs in one go.

    Args:
        messages: What is to be delivered.
        cost: Of all of them.
        worker: Whose share it is, while that one is free; None for anyone.
        sending: What it is a part of.
    """

    messages: Sequence[Message]
    cost: float
    worker: int | None
    sending: Sending
    tries: int = 0

    @property
    def nodes(self) -> set[int]:
        """Where the messages go."""
        return {message.metadata.dst_node_id for message in self.messages}


@dataclass(kw_only=True, eq=False)
class _Place:
    """Where a worker is, and the next one after it is lost."""

    number: int
    worker: Worker
    is_ready: bool = False
    chunk: Chunk | None = None
    failure: EngineError | None = None


@dataclass(kw_only=True, eq=False)
class Dispatcher:
    """Runs chunks on workers.

    Args:
        start: Starts a worker.
        workers: How many there are.
        is_loss: Whether an error says that a worker is lost, rather than that the chunk failed in it.
        cause: The line of an error that explains it.
        pace: Told how long chunks took.

    Guarantees:
        A chunk's replies are taken over once, from the one attempt that finished. A chunk that was lost is tried again
        with the same messages and the same contexts, so a client that is derived from these (every client of ours is)
        releases the same again. No two chunks with a message to the same node run at the same time.
    """

    start: Callable[[], Worker]
    workers: int
    is_loss: Callable[[BaseException], bool]
    cause: Callable[[BaseException], str]
    pace: Pace
    batched: bool = False
    _states: States = field(default_factory=dict)
    _pulled: dict[str, Message] = field(default_factory=dict)
    _waiting: list[Chunk] = field(default_factory=list)
    _events: "SimpleQueue[Callable[[], None] | None]" = field(default_factory=SimpleQueue)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _broken: EngineError | None = None

    def __post_init__(self) -> None:
        """Start the workers; they load while the caller goes on."""
        self._places = [_Place(number=number, worker=self.start()) for number in range(self.workers)]
        for place in self._places:
            self._await_ready(place)
        self._since = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="fedsafe-dispatch", daemon=True)
        self._thread.start()

    def wait_until_ready(self) -> None:
        """Wait until every worker has loaded its data.

        Raises:
            EngineError: One could not start.
        """
        with self._changed:
            in_time = self._changed.wait_for(
                lambda: all(place.is_ready or place.failure for place in self._places), START_SECONDS
            )
            for place in self._places:
                if place.failure is not None:
                    raise place.failure
        if not in_time:
            raise self._too_slow()

    def submit(self, sending: Sending, chunks: Sequence[Chunk]) -> None:
        """Take over chunks and return at once."""
        self._events.put(lambda: self._take(sending, chunks))

    def arriving(self, sending: Sending, timeout: float | None) -> Iterator[Message]:
        """Replies that arrive in time, as they do; later ones are dropped. Nothing is kept of what was taken.

        Raises:
            EngineError: The chunk failed, or its workers did.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._changed:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                self._changed.wait_for(
                    lambda: sending.error or self._broken or sending.replies or not sending.left, left
                )
                error = sending.error or self._broken
                if error is not None:
                    raise EngineError(str(error)) from error
                replies, sending.replies = sending.replies or [], []
                over = not sending.left or not replies
            yield from replies
            if over:
                return

    def pull(self, numbers: Sequence[str], sendings: Sequence[Sending]) -> list[Message]:
        """Replies to these messages that have arrived and were not pulled before."""
        with self._changed:
            error = next((sending.error for sending in sendings if sending.error), self._broken)
            if error is not None:
                raise EngineError(str(error)) from error
            return [self._pulled.pop(number) for number in numbers if number in self._pulled]

    def stop(self) -> None:
        """End every worker, and the thread."""
        self._events.put(None)
        self._thread.join()
        for place in self._places:
            place.worker.stop()

    # What follows runs in the dispatcher's thread alone.

    def _work(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=1.0)
            except Empty:
                self._give_up_on_slow_starts()
                continue
            if event is None:
                return
            try:
                event()
                self._feed()
            except Exception as error:  # whoever waits must hear of it, whatever it is
                self._break(EngineError(f"the grid failed: {type(error).__name__}: {error}"))

    def _take(self, sending: Sending, chunks: Sequence[Chunk]) -> None:
        self._waiting.extend(chunks)

    def _feed(self) -> None:
        """Give each free worker its own chunk, or the first that is anyone's, or else somebody's who is late."""
        idle = [place for place in self._places if place.is_ready and place.chunk is None]
        if not idle or not self._waiting:
            return
        for place in idle:
            chunk = self._next_for(place)
            if chunk is not None:
                self._run(place, chunk)

    def _next_for(self, place: _Place) -> Chunk | None:
        possible = self._possible()
        for fits in (place.number, None):
            for chunk in possible:
                if chunk.worker == fits:
                    return chunk
        free = {other.number for other in self._places if other.is_ready and other.chunk is None}
        return next((chunk for chunk in possible if chunk.worker not in free), None)

    def _possible(self) -> list[Chunk]:
        """Chunks whose nodes are free, so that what a node keeps is what its last message left."""
        if self.batched:
            return self._waiting
        busy: set[int] = set()
        for place in self._places:
            if place.chunk is not None:
                busy |= place.chunk.nodes
        found = []
        for chunk in self._waiting:
            nodes = chunk.nodes
            if not nodes & busy:
                found.append(chunk)
            busy |= nodes
        return found

    def _run(self, place: _Place, chunk: Chunk) -> None:
        self._waiting.remove(chunk)
        late = [(message, expired(message)) for message in chunk.messages]
        over = [reply for _, reply in late if reply is not None]
        if over:
            self._deliver(chunk.sending, over)
            chunk.messages = [message for message, reply in late if reply is None]
        if not chunk.messages:
            self._finish(chunk.sending)
            self._events.put(lambda: None)
            return
        chunk.tries += 1
        place.chunk = chunk
        states = {node: self._states[node] for node in chunk.nodes if node in self._states}
        payload = packed((chunk.messages, states), chunk.sending.tokens)
        worker = place.worker
        future = worker.run(chunk.sending.shared, payload)
        future.add_done_callback(
            lambda done: self._events.put(lambda: self._returned(place, worker, chunk, done))
        )

    def _returned(self, place: _Place, worker: Worker, chunk: Chunk, done: "Future[Any]") -> None:
        if place.worker is not worker or place.chunk is not chunk:
            return
        place.chunk = None
        error = done.exception()
        if error is None:
            seconds, replies, states = done.result()
            self.pace.add(chunk.sending.kind, place.number, chunk.cost, seconds)
            self._states.update(states)
            self._deliver(chunk.sending, replies)
            self._finish(chunk.sending)
            return
        if not self.is_loss(error):
            self._fail(chunk, self.cause(error))
            return
        self._replace(place)
        if chunk.tries < TRIES:
            chunk.worker = None
            self._waiting.insert(0, chunk)
        elif self.batched:
            self._fail(chunk, f"{TRIES} workers were lost, the last: {self.cause(error)}")
        else:
            self._give_up(chunk, self.cause(error))

    def _give_up(self, chunk: Chunk, why: str) -> None:
        """Answer for the message that no worker survived, after each of a chunk's was tried alone.

        Only for apps that see every reply: in a chunk with one reply nobody can tell what was lost.
        """
        if len(chunk.messages) == 1:
            (message,) = chunk.messages
            node = message.metadata.dst_node_id
            reason = f"{TRIES} workers were lost to the client on node {node}, the last: {why}"
            self._deliver(chunk.sending, [error_reply(message, ErrorCode.CLIENT_APP_CRASHED, reason)])
            self._finish(chunk.sending)
            return
        cost = chunk.cost / len(chunk.messages)
        alone = [
            Chunk(messages=[message], cost=cost, worker=None, sending=chunk.sending, tries=TRIES - 1)
            for message in chunk.messages
        ]
        with self._changed:
            chunk.sending.left += len(alone) - 1
        self._waiting[:0] = alone

    def _fail(self, chunk: Chunk, why: str) -> None:
        sending = chunk.sending
        self._waiting = [other for other in self._waiting if other.sending is not sending]
        with self._changed:
            sending.error = EngineError(
                f"a worker failed on {len(chunk.messages)} client(s): {why}; `fedsafe run --resume` repeats the round"
            )
            self._changed.notify_all()

    def _deliver(self, sending: Sending, replies: Sequence[Message]) -> None:
        with self._changed:
            if sending.replies is not None:
                sending.replies.extend(replies)
                self._changed.notify_all()
            else:
                self._pulled |= {reply.metadata.reply_to_message_id: reply for reply in replies}

    def _finish(self, sending: Sending) -> None:
        with self._changed:
            sending.left -= 1
            if sending.left == 0:
                self._changed.notify_all()

    def _replace(self, place: _Place) -> None:
        place.worker.stop()
        place.is_ready = False
        self.pace.forget(place.number)
        place.worker = self.start()
        self._since = time.monotonic()
        self._await_ready(place)

    def _await_ready(self, place: _Place) -> None:
        worker = place.worker
        worker.ready().add_done_callback(
            lambda done: self._events.put(lambda: self._started(place, worker, done))
        )

    def _started(self, place: _Place, worker: Worker, done: "Future[bool]") -> None:
        if place.worker is not worker:
            return
        error = done.exception()
        if error is not None:
            # What cannot start now will not start later; the others may finish without it.
            with self._changed:
                place.failure = EngineError(f"a worker could not start: {self.cause(error)}")
                self._changed.notify_all()
            if all(other.failure for other in self._places):
                self._break(place.failure)
            return
        self.batched = done.result()
        with self._changed:
            place.is_ready = True
            self._changed.notify_all()

    def _give_up_on_slow_starts(self) -> None:
        waited = time.monotonic() - self._since
        if self._waiting and waited > START_SECONDS and not any(place.is_ready for place in self._places):
            self._break(self._too_slow())

    def _too_slow(self) -> EngineError:
        return EngineError(
            f"the {self.workers} workers did not start in {START_SECONDS:g} s: other actors may hold the cores"
        )

    def _break(self, error: EngineError) -> None:
        with self._changed:
            self._broken = error
            self._changed.notify_all()
