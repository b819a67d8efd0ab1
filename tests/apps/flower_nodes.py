"""Nodes as Flower has them, in this process: numbers that mean nothing, and contexts that stay with the node."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tomli_w
from flwr.app import ConfigRecord, Context, Message, RecordDict
from tiny_federation import config

from fedsafe.apps import client
from fedsafe.apps.nodes import EXPERIMENT, JOIN
from fedsafe.apps.settings import for_flower
from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.engine.grid import identify
from fedsafe.federation.messages import instruction_content, pack_parameters
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


def toml(**changes: Any) -> str:
    """A tiny configuration of two clients, both in every round of two, with the changes given."""
    values = {"federation__clients": 2, "federation__cohort__rate": 1.0, "rounds": 2, **changes}
    return for_flower(parse_config(tomli_w.dumps(config(**values)))).to_toml()


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
        self, *, round: int = 1, plan: str | None = None, shift: float = 0.0, kind: str = "train"
    ) -> Message:
        arrays = pack_parameters(self.parts.initial + self.parts.initial.dtype.type(shift), self.parts.layout)
        content = instruction_content(arrays, round=round, plan=self.plan.hash if plan is None else plan)
        return client.app(self.message(content, kind), self.context)

    def message(self, content: RecordDict, kind: str) -> Message:
        identify()
        content[EXPERIMENT] = ConfigRecord({"config": self.text, "folders": []})
        return Message(content, dst_node_id=2, message_type=kind, group_id="1")


def refusal(reply: Message) -> str:
    assert reply.has_error(), "an answer was expected to be refused"
    return reply.error.reason or ""


def fold(reply: Message) -> bytes:
    """Every byte of the update in a reply."""
    assert not reply.has_error(), reply.error.reason
    arrays = reply.content.array_records["fold"]
    return b"".join(arrays[name].numpy().tobytes() for name in sorted(arrays))
