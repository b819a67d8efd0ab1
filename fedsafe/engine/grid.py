"""A Flower grid inside one program, and the two private touches of Flower that it needs.

``Message`` reads who is sending from ``TaskIdentity``, and a message's id can only be set where the SuperLink
would: in the metadata's own dictionary. Both are kept here, so that an upgrade of Flower breaks one file.
"""

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1
SERVER_NODE = 1
_CLIENT_FAILED = 0  # Flower's code for an unknown error

ClientCall = Callable[[Message, Context], Message]
BatchCall = Callable[[Sequence[Message], Sequence[Context]], Message]


@dataclass(frozen=True, kw_only=True)
class ClientApps:
    """What a worker can run.

    Args:
        one: Any Flower ClientApp: a message and a context to a reply.
        batch: One reply for a whole chunk of messages, or None where the app has no such entry point.
    """

    one: ClientCall
    batch: BatchCall | None = None


def identify(node: int = SERVER_NODE) -> None:
    """Tell Flower, in this process, who makes messages."""
    TaskIdentity.run_id = RUN_ID
    TaskIdentity.task_id = RUN_ID
    TaskIdentity.node_id = node


def deliver(apps: ClientApps, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
    """Run a chunk of messages where this function is called; an exception becomes an error reply."""
    if apps.batch is not None:
        return [apps.batch(messages, contexts)]
    replies = []
    for message, context in zip(messages, contexts, strict=True):
        try:
            reply = _detached(apps.one(_detached(message), context))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            reply = Message(Error(code=_CLIENT_FAILED, reason=reason), reply_to=message)
        replies.append(reply)
    return replies


def _detached(message: Message) -> Message:
    """What a wire would give: records of its own, so that an app that changes them changes nobody else's.

    Array values are immutable bytes, and stay shared.
    """
    received = copy.copy(message)
    if message.has_content():
        received.content = copy.deepcopy(message.content)
    return received


def new_context(node: int, clients: int, node_config: Mapping[str, Any]) -> Context:
    """The context that a node starts with."""
    config = {"partition-id": node - SERVER_NODE - 1, "num-partitions": clients, **node_config}
    return Context(run_id=RUN_ID, node_id=node, node_config=config, state=RecordDict(), run_config={})


@dataclass(kw_only=True)
class LocalGrid(Grid):
    """What every grid of ours shares: nodes 2, 3, ... for clients 0, 1, ..., ids, and contexts that persist.

    Args:
        clients: How many nodes there are.
        node_config: Further entries of every node's configuration.
    """

    clients: int
    node_config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        identify()
        self._run = Run.create_empty(RUN_ID)
        self._sent = 0
        self._contexts: dict[int, Context] = {}
        self._waiting: dict[str, Message] = {}

    @abstractmethod
    def exchange(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        """Deliver messages and return the replies that arrived in time."""

    def set_run(self, run: Run) -> None:
        """Set the run that the grid operates in."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that the grid operates in."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message from the server."""
        return Message(
            content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl
        )

    def get_node_ids(self) -> Iterable[int]:
        """Every node, whether busy or not."""
        return range(SERVER_NODE + 1, SERVER_NODE + 1 + self.clients)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver at once; the replies wait to be pulled."""
        sent = self._number(messages)
        for reply in self.exchange(sent, None):
            self._waiting[reply.metadata.reply_to_message_id] = reply
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to these messages that were not pulled before."""
        return [self._waiting.pop(number) for number in message_ids if number in self._waiting]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver messages and wait for the replies."""
        sent = self._number(messages)
        return self.exchange(sent, timeout) if sent else []

    def context(self, message: Message) -> Context:
        """The context of a message's node; what the app keeps in it is there in the next round."""
        node = message.metadata.dst_node_id
        if node not in self._contexts:
            self._contexts[node] = new_context(node, self.clients, self.node_config)
        return self._contexts[node]

    def _number(self, messages: Iterable[Message]) -> list[Message]:
        sent = list(messages)
        for message in sent:
            self._sent += 1
            message.metadata.__dict__["_message_id"] = str(self._sent)
        return sent


@dataclass(kw_only=True)
class InlineGrid(LocalGrid):
    """Runs clients in this process: the slow oracle of every other grid, with real tracebacks.

    Args:
        apps: What to run.
        chunk: Messages in one chunk; the whole cohort by default.
    """

    apps: ClientApps
    chunk: int | None = None

    def exchange(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        """Run chunk after chunk."""
        size = self.chunk or max(1, len(messages))
        replies: list[Message] = []
        for start in range(0, len(messages), size):
            part = messages[start : start + size]
            replies += deliver(self.apps, part, [self.context(message) for message in part])
        return replies
