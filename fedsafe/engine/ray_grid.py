"""A Flower grid over Ray actors: a large model is put once, a chunk of clients is one task."""

import gc
import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from flwr.app import ArrayRecord, Message

from fedsafe.engine.chunks import Pace, cut, cut_by_number
from fedsafe.engine.cluster import Resources, start_ray, stop_ray
from fedsafe.engine.dispatch import Chunk, Dispatcher, Sending
from fedsafe.engine.grid import ClientApps, LocalGrid, identify, in_order
from fedsafe.engine.interchange import ChunkRunner, States, shared_arrays, size_of
from fedsafe.extensions import search, searched

# Bytes of a model that goes with each chunk: to put less into the object store, and to fetch it, takes longer.
_BY_VALUE = 1 << 16

_LOSSES = (
    ray.exceptions.RayActorError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.LocalRayletDiedError,
)


class _Worker:
    """One process with the client app and its data."""

    def __init__(
        self,
        make_apps: Sequence[Any],
        folders: Sequence[str],
        clients: int,
        node_config: Mapping[str, Any],
        run_config: Mapping[str, Any],
    ) -> None:
        # Results must not depend on how many threads a machine has.
        torch.set_num_threads(1)
        identify()
        # First, since what is put may be made of the user's own classes.
        search(folders)
        self._run = ChunkRunner(ray.get(make_apps[0])(), clients, node_config, run_config)
        # What is loaded stays: the garbage collector need not walk through it in the middle of a round.
        gc.freeze()

    def ready(self) -> bool:
        """Whether the app takes whole chunks, which keep nothing in their contexts."""
        return self._run.apps.batch is not None

    def run(
        self, shared: dict[int, ArrayRecord] | bytes, chunk: bytes
    ) -> tuple[float, list[Message], States]:
        started = time.perf_counter()
        arrays = pickle.loads(shared) if isinstance(shared, bytes) else shared  # noqa: S301
        replies, states = self._run(arrays, chunk)
        return time.perf_counter() - started, replies, states


_Actor: Any = ray.remote(num_cpus=1)(_Worker)


@dataclass(frozen=True, kw_only=True)
class _RayWorker:
    """What the dispatcher knows of an actor."""

    actor: Any

    def ready(self) -> "Future[bool]":
        return self.actor.ready.remote().future()  # type: ignore[no-any-return]

    def run(self, shared: Any, chunk: bytes) -> "Future[tuple[float, list[Message], States]]":
        return self.actor.run.remote(shared, chunk).future()  # type: ignore[no-any-return]

    def stop(self) -> None:
        ray.kill(self.actor)


@dataclass(kw_only=True)
class RayGrid(LocalGrid):
    """Sends chunks of clients to actors, each with one processor and one thread.

    Args:
        make_apps: Builds the client app inside each actor; it carries the data, which is put once.
        workers: How many actors.
        chunk: Messages in one chunk; by default as `fedsafe.engine.chunks.cut` cuts them.
        cost: Relative cost of a node's work, for cutting chunks; equal by default.
        address: Of a Ray cluster to join; None for a Ray on this machine.
        resources: What each actor gets besides its processor.

    Guarantees:
        A worker, or a node of the cluster, that is lost in the middle of a round does not change the round: see
        `fedsafe.engine.dispatch.Dispatcher`.
    """

    make_apps: Callable[[], ClientApps]
    workers: int
    chunk: int | None = None
    cost: Callable[[int], float] | None = None
    address: str | None = None
    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        """Start the actors; they load while the caller goes on."""
        super().__post_init__()
        self._started_ray = start_ray(self.workers, self.address)
        # In a list, so that Ray does not fetch it before the worker knows where modules are.
        self._apps = [ray.put(self.make_apps)]
        self._pace = Pace(workers=self.workers)
        self._pushed: dict[str, Sending] = {}
        self._dispatcher = Dispatcher(
            start=self._start_worker,
            workers=self.workers,
            is_loss=lambda error: isinstance(error, _LOSSES),
            cause=_cause,
            pace=self._pace,
        )

    def wait_until_ready(self) -> None:
        """Wait until every actor has loaded its data.

        Raises:
            EngineError: An actor could not start.
        """
        self._dispatcher.wait_until_ready()

    def exchange(self, messages: Sequence[Message], timeout: float | None) -> Iterable[Message]:
        """One task for each chunk. Replies come in the order of the messages; of whole chunks, as they arrive.

        Raises:
            EngineError: A client's worker failed, or three workers were lost to one chunk.
        """
        arriving = self._dispatcher.arriving(self._send(messages, pulled=False), timeout)
        # A fold cannot tell in which order its clients were added. An app that sees every reply could.
        return arriving if self._dispatcher.batched else in_order(arriving)

    def push(self, messages: Sequence[Message]) -> None:
        """Send, and return at once."""
        sending = self._send(messages, pulled=True)
        self._pushed |= {message.metadata.message_id: sending for message in messages}

    def pull(self, numbers: Sequence[str]) -> list[Message]:
        """Replies whose chunks are done.

        Raises:
            EngineError: A worker failed on one of these messages.
        """
        sendings = list({id(s): s for n in numbers if (s := self._pushed.get(n)) is not None}.values())
        replies = self._dispatcher.pull(numbers, sendings)
        for reply in replies:
            self._pushed.pop(reply.metadata.reply_to_message_id, None)
        return replies

    def close(self) -> None:
        """Stop the actors, and Ray if this grid started it."""
        self._dispatcher.stop()
        if self._started_ray:
            stop_ray()

    def _start_worker(self) -> _RayWorker:
        # Workers of a cluster are spread over its nodes, so that losing a node loses few.
        actor = _Actor.options(num_gpus=self.resources.gpus, scheduling_strategy="SPREAD").remote(
            self._apps, searched(), self.clients, self.node_config, self.run_config
        )
        return _RayWorker(actor=actor)

    def _send(self, messages: Sequence[Message], *, pulled: bool) -> Sending:
        shared, tokens = shared_arrays(messages)
        kind = messages[0].metadata.message_type
        weigh = self.cost or (lambda node: 1.0)
        costs = [weigh(message.metadata.dst_node_id) for message in messages]
        if self.chunk is not None:
            parts = cut_by_number(costs, self.chunk)
        else:
            parts = cut(costs, self._pace.shares(kind), self._pace.seconds(kind, sum(costs)))
        sending = Sending(
            shared=pickle.dumps(shared, protocol=5) if size_of(shared) <= _BY_VALUE else ray.put(shared),
            tokens=tokens,
            kind=kind,
            left=len(parts),
            replies=None if pulled else [],
        )
        self._dispatcher.submit(
            sending,
            [
                Chunk(
                    messages=[messages[item] for item in part.items],
                    cost=part.cost,
                    worker=part.worker,
                    sending=sending,
                )
                for part in parts
            ],
        )
        return sending


def _cause(error: BaseException) -> str:
    """The last line that explains a Ray error, without its remote traceback."""
    cause = getattr(error, "cause", None) or error
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
