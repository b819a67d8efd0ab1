"""A Flower grid inside one program, and the private touches of Flower that it needs.

``Message`` reads who is sending from ``TaskIdentity``; a message's id can only be set where the SuperLink would: in the
metadata's own dictionary; and records are copied by theirs. All are kept here, so that an upgrade of Flower breaks one
file.
"""

import copy
import itertools
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedsafe.extensions import one_line

RUN_ID = 1
SERVER_NODE = 1

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
    """Run a chunk of messages where this function is called.

    An exception becomes an error reply, and what the app had changed in the context until then is forgotten, as it is
    where Flower itself runs the app.
    """
    if apps.batch is not None:
        return [apps.batch(messages, contexts)]
    replies = []
    for message, context in zip(messages, contexts, strict=True):
        kept = _detached_records(context.state), dict(context.node_config), dict(context.run_config)
        try:
            reply = _detached(apps.one(_detached(message), context))
        except Exception as error:
            context.state, context.node_config, context.run_config = kept
            reply = error_reply(message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, one_line(error))
        replies.append(reply)
    return replies


def error_reply(message: Message, code: int, reason: str) -> Message:
    """What comes back in place of an answer."""
    return Message(Error(code=code, reason=reason), reply_to=message)


def expired(message: Message) -> Message | None:
    """The reply to a message whose time is over before it was delivered, as Flower's own link gives it."""
    metadata = message.metadata
    if metadata.created_at + metadata.ttl > time.time():
        return None
    return error_reply(
        message,
        ErrorCode.MESSAGE_UNAVAILABLE,
        f"the message expired before it was delivered: its ttl is {metadata.ttl:g} s",
    )


def _detached(message: Message) -> Message:
    """What a wire would give: records of its own, so that an app that changes them changes nobody else's.

    Array values are immutable bytes, and stay shared.
    """
    received = copy.copy(message)
    if message.has_content():
        received.content = _detached_records(message.content)
    return received


def _detached_records(records: RecordDict) -> RecordDict:
    own = records.copy()
    # Values of the same types need no new checks, which cost more than the copies.
    vars(own)["_data"].update({name: _own(record) for name, record in records.items()})
    return own


def _own(record: Any) -> Any:
    """As deepcopy gives it, in a twentieth of the time."""
    if type(record) not in (ArrayRecord, ConfigRecord, MetricRecord):
        return copy.deepcopy(record)
    own = record.copy()
    values = vars(own)["_data"]
    for name, value in record.items():
        if isinstance(value, Array):
            values[name] = Array.__new__(Array)
            vars(values[name]).update(vars(value))
        elif isinstance(value, list):
            values[name] = value.copy()
    return own


def new_context(
    node: int, clients: int, node_config: Mapping[str, Any], run_config: Mapping[str, Any]
) -> Context:
    """The context that a node starts with."""
    config = {"partition-id": node - SERVER_NODE - 1, "num-partitions": clients, **node_config}
    return Context(
        run_id=RUN_ID, node_id=node, node_config=config, state=RecordDict(), run_config=dict(run_config)
    )


@dataclass(kw_only=True)
class Tally:
    """What went through a grid: messages that were sent, replies that the app took, errors among these."""

    messages: int = 0
    replies: int = 0
    errors: int = 0


class MessagingGrid(Grid):
    """What every grid makes messages by."""

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


class GridAround(MessagingGrid):
    """A grid that hands what it does not change on to another one.

    Args:
        grid: The other one.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def set_run(self, run: Run) -> None:
        """Set the run that the grid operates in."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run that the grid operates in."""
        return self._grid.run

    def get_node_ids(self) -> Iterable[int]:
        """Every registered node."""
        return self._grid.get_node_ids()

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that have arrived and were not pulled before."""
        return self._grid.pull_messages(message_ids)


@dataclass(kw_only=True)
class LocalGrid(MessagingGrid):
    """What every grid of ours shares: nodes 2, 3, ... for clients 0, 1, ..., and ids.

    Args:
        clients: How many nodes there are.
        node_config: Further entries of every node's configuration.
        run_config: The configuration of the run, which every node's context has.
    """

    clients: int
    node_config: dict[str, Any] = field(default_factory=dict)
    run_config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        identify()
        self._run = Run.create_empty(RUN_ID)
        self._numbers = itertools.count(1)  # atomic: an app may send from many threads
        self.tally = Tally()

    @abstractmethod
    def exchange(self, messages: Sequence[Message], timeout: float | None) -> Iterable[Message]:
        """Deliver messages and give the replies that arrive in time."""

    @abstractmethod
    def push(self, messages: Sequence[Message]) -> None:
        """Deliver messages whose replies will be pulled."""

    @abstractmethod
    def pull(self, numbers: Sequence[str]) -> list[Message]:
        """Replies to these messages that have arrived and were not pulled before."""

    def set_run(self, run: Run) -> None:
        """Set the run that the grid operates in."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that the grid operates in."""
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        """Every node, whether busy or not."""
        return range(SERVER_NODE + 1, SERVER_NODE + 1 + self.clients)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver messages and wait for the replies."""
        sent = self._number(messages)
        return self._counted(self.exchange(sent, timeout)) if sent else []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages; each reply can be pulled when it is there."""
        sent = self._number(messages)
        if sent:
            self.push(sent)
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to these messages that have arrived and were not pulled before."""
        return self._counted(self.pull(list(message_ids)))

    def _counted(self, replies: Iterable[Message]) -> Iterable[Message]:
        if not isinstance(replies, list):
            return self._counted_as_they_arrive(replies)
        self.tally.replies += len(replies)
        self.tally.errors += sum(reply.has_error() for reply in replies)
        return replies

    def _counted_as_they_arrive(self, replies: Iterable[Message]) -> Iterator[Message]:
        for reply in replies:
            self.tally.replies += 1
            self.tally.errors += reply.has_error()
            yield reply

    def _number(self, messages: Iterable[Message]) -> list[Message]:
        """Give ids to those that have a node to go to; Flower's own grid, too, passes over the others."""
        nodes = self.get_node_ids()
        sent = [message for message in messages if message.metadata.dst_node_id in nodes]
        for message in sent:
            message.metadata.__dict__["_message_id"] = str(next(self._numbers))
        self.tally.messages += len(sent)
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

    def __post_init__(self) -> None:
        super().__post_init__()
        self._contexts: dict[int, Context] = {}
        self._waiting: dict[str, Message] = {}

    def exchange(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        """Run chunk after chunk."""
        late = {id(message): expired(message) for message in messages}
        alive = [message for message in messages if late[id(message)] is None]
        size = self.chunk or max(1, len(alive))
        replies: list[Message] = [reply for reply in late.values() if reply is not None]
        for start in range(0, len(alive), size):
            part = alive[start : start + size]
            replies += deliver(self.apps, part, [self.context(message) for message in part])
        return in_order(replies)

    def push(self, messages: Sequence[Message]) -> None:
        """Deliver at once; the replies wait."""
        for reply in self.exchange(messages, None):
            self._waiting[reply.metadata.reply_to_message_id] = reply

    def pull(self, numbers: Sequence[str]) -> list[Message]:
        """Replies that wait."""
        return [self._waiting.pop(number) for number in numbers if number in self._waiting]

    def context(self, message: Message) -> Context:
        """The context of a message's node; what the app keeps in it is there in the next round."""
        node = message.metadata.dst_node_id
        if node not in self._contexts:
            self._contexts[node] = new_context(node, self.clients, self.node_config, self.run_config)
        return self._contexts[node]


def in_order(replies: Iterable[Message]) -> list[Message]:
    """In the order of the messages, so that an app's float sums repeat."""
    return sorted(replies, key=lambda reply: int(reply.metadata.reply_to_message_id))
