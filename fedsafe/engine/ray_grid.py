"""A Flower grid over Ray actors: the model is put once, a chunk of clients is one task."""

import gc
import io
import logging
import math
import os
import pickle
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch
from flwr.app import ArrayRecord, Context, Message

from fedsafe.engine.grid import ClientApps, LocalGrid, deliver, identify, new_context
from fedsafe.engine.interrupts import interrupts_kept
from fedsafe.errors import EngineError
from fedsafe.extensions import search, searched

# Loading torch and the data takes seconds; much longer means that no processor is free.
_START_SECONDS = 300.0


def start_ray(workers: int) -> bool:
    """Start a one-node Ray of ``workers`` processors, unless one is running; whether it was started here.

    Raises:
        EngineError: The Ray that is running has fewer processors, so some workers would wait for ever.
    """
    if ray.is_initialized():
        found = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
        if found < workers:
            raise EngineError(
                f"engine.workers = {workers}, but the Ray that is running in this process has {found} processors: ask "
                "for fewer workers, or stop it with ray.shutdown()"
            )
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Named, so that RAY_ADDRESS of the environment does not send private records to some cluster.
    try:
        with interrupts_kept():
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except KeyboardInterrupt:
        if ray.is_initialized():
            ray.shutdown()
        raise
    return True


def stop_ray() -> None:
    """Stop the Ray that `start_ray` started, with its processes."""
    ray.shutdown()


class _Worker:
    """One process with the client app and its data."""

    def __init__(
        self,
        make_apps: Sequence[Any],
        folders: Sequence[str],
        clients: int,
        node_config: Mapping[str, Any],
    ) -> None:
        # Results must not depend on how many threads a machine has.
        torch.set_num_threads(1)
        identify()
        # First, since what is put may be made of the user's own classes.
        search(folders)
        self._apps = ray.get(make_apps[0])()
        self._clients, self._node_config = clients, node_config
        # What is loaded stays: the garbage collector need not walk through it in the middle of a round.
        gc.freeze()

    def ready(self) -> bool:
        """Whether the app takes whole chunks, which keep nothing in their contexts."""
        return self._apps.batch is not None

    def run(self, shared: dict[int, ArrayRecord], chunk: bytes) -> tuple[list[Message], list[Context] | None]:
        messages, contexts = _Unpickler(io.BytesIO(chunk), shared).load()
        if self._apps.batch is not None:
            nodes = [message.metadata.dst_node_id for message in messages]
            contexts = [new_context(node, self._clients, self._node_config) for node in nodes]
        replies = deliver(self._apps, messages, contexts)
        return replies, None if self._apps.batch is not None else contexts


_Actor: Any = ray.remote(num_cpus=1)(_Worker)


@dataclass(kw_only=True)
class RayGrid(LocalGrid):
    """Sends chunks of clients to actors, each with one processor and one thread.

    Args:
        make_apps: Builds the client app inside each actor; it carries the data, which is put once.
        workers: How many actors.
        chunk: Messages in one chunk; by default one chunk of equal cost for each worker, since every chunk
            has a fixed price and a stack is cheaper the more clients it holds.
        cost: Relative cost of a node's work, for cutting chunks; equal by default.
    """

    make_apps: Callable[[], ClientApps]
    workers: int
    chunk: int | None = None
    cost: Callable[[int], float] | None = None

    def __post_init__(self) -> None:
        """Start the actors; they load while the caller goes on."""
        super().__post_init__()
        self._started_ray = start_ray(self.workers)
        # In a list, so that Ray does not fetch it before the worker knows where modules are.
        apps = [ray.put(self.make_apps)]
        self._actors = [
            _Actor.remote(apps, searched(), self.clients, self.node_config) for _ in range(self.workers)
        ]
        self._batched = False

    def wait_until_ready(self) -> None:
        """Wait until every actor has loaded its data.

        Raises:
            EngineError: An actor could not start.
        """
        try:
            ready = ray.get([actor.ready.remote() for actor in self._actors], timeout=_START_SECONDS)
        except ray.exceptions.GetTimeoutError as error:
            raise EngineError(
                f"the {self.workers} workers did not start in {_START_SECONDS:g} s: other actors may hold the cores"
            ) from error
        except ray.exceptions.RayError as error:
            raise EngineError(f"a worker could not start: {_cause(error)}") from error
        self._batched = all(ready)

    def exchange(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        """One task for each chunk; replies in the order of the messages, so that float sums repeat."""
        shared, tokens = _shared_arrays(messages)
        reference = ray.put(shared)
        waiting: dict[Any, Sequence[Message]] = {}
        for number, part in enumerate(self._cut(messages)):
            contexts = None if self._batched else [self.context(message) for message in part]
            actor = self._actors[number % len(self._actors)]
            waiting[actor.run.remote(reference, _pickle((part, contexts), tokens))] = part
        replies: list[Message] = []
        deadline = None if timeout is None else time.monotonic() + timeout
        while waiting:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            done, _ = ray.wait(list(waiting), timeout=left)
            if not done:
                break
            part = waiting.pop(done[0])
            try:
                arrived, contexts = ray.get(done[0])
            except ray.exceptions.RayError as error:
                raise EngineError(
                    f"a worker failed on {len(part)} clients: {_cause(error)}; resume the run to repeat the round"
                ) from error
            replies += arrived
            for context in contexts or ():
                self._contexts[context.node_id] = context
        return sorted(replies, key=lambda reply: int(reply.metadata.reply_to_message_id))

    def close(self) -> None:
        """Stop the actors, and Ray if this grid started it."""
        for actor in self._actors:
            ray.kill(actor)
        if self._started_ray:
            stop_ray()

    def _cut(self, messages: Sequence[Message]) -> list[Sequence[Message]]:
        """Chunks of neighbouring cost, so that they stack well, and of equal total, so that none is waited for."""
        if self.chunk is not None:
            return [messages[i : i + self.chunk] for i in range(0, len(messages), self.chunk)]
        weigh = self.cost or (lambda node: 1.0)
        costs = {id(message): weigh(message.metadata.dst_node_id) for message in messages}
        ordered = sorted(messages, key=lambda message: costs[id(message)], reverse=True)
        share = sum(costs.values()) / len(self._actors)
        chunks: dict[int, list[Message]] = {}
        total = 0.0
        for message in ordered:
            # The middle of a message's own cost decides, so that rounding does not favour either side.
            middle = total + costs[id(message)] / 2.0
            chunks.setdefault(math.floor(middle / share) if share > 0.0 else 0, []).append(message)
            total += costs[id(message)]
        return list(chunks.values())


def _shared_arrays(messages: Sequence[Message]) -> tuple[dict[int, ArrayRecord], dict[int, int]]:
    """Array records that several messages carry, and a token for each by identity."""
    records = [
        record
        for message in messages
        if message.has_content()
        for record in message.content.values()
        if isinstance(record, ArrayRecord)
    ]
    counts = Counter(id(record) for record in records)
    by_identity = {id(record): record for record in records if counts[id(record)] > 1}
    tokens = {identity: token for token, identity in enumerate(by_identity)}
    return {tokens[identity]: record for identity, record in by_identity.items()}, tokens


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, tokens: dict[int, int]) -> None:
        super().__init__(file, protocol=5)
        self._tokens = tokens

    def persistent_id(self, value: object) -> int | None:
        return self._tokens.get(id(value)) if isinstance(value, ArrayRecord) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, shared: dict[int, ArrayRecord]) -> None:
        super().__init__(file)
        self._shared = shared

    def persistent_load(self, token: int) -> ArrayRecord:
        return self._shared[token]


def _pickle(value: object, tokens: dict[int, int]) -> bytes:
    file = io.BytesIO()
    _Pickler(file, tokens).dump(value)
    return file.getvalue()


def _cause(error: Exception) -> str:
    """The last line that explains a Ray error, without its remote traceback."""
    cause = getattr(error, "cause", None) or error
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
