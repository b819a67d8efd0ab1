"""Nodes as Flower has them, in this process: numbers that mean nothing, and contexts that stay with the node."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import tomli_w
from flwr.app import ConfigRecord, Context, Message, RecordDict
from tiny_federation import config

from fedsafe.apps import client, server
from fedsafe.apps.nodes import EXPERIMENT, JOIN
from fedsafe.apps.settings import for_flower
from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.engine.grid import identify
from fedsafe.federation.messages import instruction_content, pack_parameters, with_correction
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.compose import Parts, calibrate, compose
from fedsafe.runs.config import parse_config

RUN_CONFIG: dict[str, Any] = {
    "config": "",
    "overrides": "",
    "out": "",
    "wait-for-nodes": 0.01,
    "wait-for-replies": 30.0,
}


@dataclass(kw_only=True)
class FlowerNodes(InlineGrid):
    """A grid whose nodes say for themselves which client they are.

    Args:
        partitions: What each node has for a partition-id; None for none.
        own: Further node configuration, by position.
        see: Called with the messages of each exchange.
    """

    partitions: Sequence[Any]
    own: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    see: Callable[[Sequence[Message]], None] = lambda messages: None
    apps: ClientApps = field(default_factory=lambda: ClientApps(one=client.app))

    def context(self, message: Message) -> Context:
        context = super().context(message)
        place = message.metadata.dst_node_id - 2
        context.node_config = {"partition-id": self.partitions[place], **self.own.get(place, {})}
        if context.node_config["partition-id"] is None:
            del context.node_config["partition-id"]
        return context

    def exchange(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        self.see(messages)
        return super().exchange(messages, timeout)


def nodes(*partitions: Any, **more: Any) -> FlowerNodes:
    return FlowerNodes(clients=len(partitions), partitions=partitions, **more)


def serve(grid: FlowerNodes, **run_config) -> None:
    """The ServerApp over a grid, as ``flwr run`` calls it with this run configuration."""
    context = Context(
        run_id=1,
        node_id=1,
        node_config={},
        state=RecordDict(),
        run_config={**RUN_CONFIG, **{key.replace("_", "-"): value for key, value in run_config.items()}},
    )
    server.app(grid, context)


def toml(**changes: Any) -> str:
    """A tiny configuration of two clients, both in every round of two, with the changes given."""
    values = {"federation__clients": 2, "federation__cohort__rate": 1.0, "rounds": 2, **changes}
    return for_flower(parse_config(tomli_w.dumps(config(**values)))).to_toml()


@lru_cache(maxsize=32)
def composed(text: str) -> tuple[Parts, PrivacyPlan]:
    parts = compose(parse_config(text))
    return parts, calibrate(parts)


@dataclass
class Node:
    """One node: its context, and what the server may send to it."""

    text: str
    partition: Any = 0
    run: int = 7
    node_config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parts, self.plan = composed(self.text)
        config = {"partition-id": self.partition, **self.node_config}
        self.context = Context(
            run_id=self.run, node_id=5, node_config=config, state=RecordDict(), run_config={}
        )

    def join(self) -> Message:
        return client.app(self.message(RecordDict(), JOIN), self.context)

    def ask(
        self,
        *,
        round: int = 1,
        plan: str | None = None,
        shift: float = 0.0,
        kind: str = "train",
        correction: float | None = None,
        announced: dict[str, float] | None = None,
    ) -> Message:
        """A message of the server: the initial model, each value moved by ``shift``."""
        arrays = pack_parameters(self.parts.initial + self.parts.initial.dtype.type(shift), self.parts.layout)
        plan = self.plan.hash if plan is None else plan
        content = instruction_content(arrays, round=round, plan=plan, announced=announced)
        if correction is not None:
            content = with_correction(content, np.full(self.parts.layout.total, correction, np.float32))
        return client.app(self.message(content, kind), self.context)

    def restart(self) -> None:
        """The SuperNode ends and starts again: what its contexts remembered is gone."""
        self.context.state = RecordDict()
        new_process()

    def message(self, content: RecordDict, kind: str) -> Message:
        identify()
        content[EXPERIMENT] = ConfigRecord({"config": self.text, "folders": []})
        return Message(content, dst_node_id=2, message_type=kind, group_id="1")


def new_process() -> None:
    """What a new process has not: everything but the context."""
    client._parts.cache_clear()
    client._runtime.cache_clear()


def evaluated(**changes: Any) -> dict[str, Any]:
    """Changes of the tiny configuration for four rounds, every other one evaluated by the clients with noise."""
    return {
        "rounds": 4,
        "federation__client_validation": 0.3,
        "federation__evaluation": {"every": 2, "epsilon": 0.05},
        **changes,
    }


def refusal(reply: Message) -> str:
    assert reply.has_error(), "an answer was expected to be refused"
    return reply.error.reason or ""


def fold(reply: Message) -> bytes:
    """Every byte of the update in a reply."""
    assert not reply.has_error(), reply.error.reason
    arrays = reply.content.array_records["fold"]
    return b"".join(arrays[name].numpy().tobytes() for name in sorted(arrays))


def every_byte(reply: Message) -> bytes:
    """Whatever a reply says, in its metadata, its records and its arrays."""
    said = repr(vars(reply)).encode() + repr(reply.metadata).encode()
    if not reply.has_content():
        return said
    for record in reply.content.values():
        said += b"".join(
            value if isinstance(value, bytes) else str(value).encode() for value in record.values()
        )
    return said + (fold(reply) if "fold" in reply.content.array_records else b"")
