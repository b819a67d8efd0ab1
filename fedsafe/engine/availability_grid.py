"""A Flower grid whose clients are not always there, under a virtual clock."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from flwr.app import Message
from flwr.serverapp import Grid

from fedsafe.engine.availability import Availability
from fedsafe.engine.grid import GridAround
from fedsafe.errors import EngineError

Times = Callable[[str, str], float]


@dataclass(frozen=True, kw_only=True)
class Realised:
    """What happened in some exchanges. It follows from who was asked: private where cohorts are.

    Args:
        asked: Messages that were to be sent.
        missing: Those of them that were not answered: the client was not there, dropped out, or would be late.
        seconds: Virtual seconds that the server waited.
    """

    asked: int
    missing: int
    seconds: float


class AvailabilityGrid(GridAround):
    """Delivers to another grid the messages that a model of availability says are answered in time.

    The others are not delivered, and nothing comes back for them; what a client would have done is not computed, so
    that the state of its app stays as it was. Every registered node is listed, whether it is there or not.

    Args:
        grid: Carries messages. Client k of the model is its k-th node, in ascending order.
        availability: The model.
        times: Virtual time of each kind and group of messages, where rounds begin at times fixed before; if left out,
            each set of messages is sent when the server has waited for the one before.
        began: Virtual time of the first set of messages, where ``times`` is left out.
    """

    def __init__(
        self, grid: Grid, availability: Availability, *, times: Times | None = None, began: float = 0.0
    ) -> None:
        super().__init__(grid)
        self._availability, self._times = availability, times
        self._now = began
        self._asked = self._missing = self._undelivered = 0
        self._seconds = 0.0
        # For each kind of message and node, the group it was last asked for and how often before.
        self._last: dict[tuple[str, int], tuple[str, int]] = {}

    @property
    def now(self) -> float:
        """Virtual seconds: when the server has waited for the last set of messages."""
        return self._now

    def take_realised(self) -> Realised:
        """What happened since this was last asked for."""
        found = Realised(asked=self._asked, missing=self._missing, seconds=self._seconds)
        self._asked, self._missing, self._seconds = 0, 0, 0.0
        return found

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send those that are answered; the others get a number that no reply ever has."""
        sent = list(messages)
        delivered = self._answered(sent)
        numbers = iter(self._grid.push_messages([m for m, d in zip(sent, delivered, strict=True) if d]))
        return [next(numbers) if d else self._number_of_none() for d in delivered]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send those that are answered, and wait for the replies."""
        sent = list(messages)
        delivered = [m for m, d in zip(sent, self._answered(sent), strict=True) if d]
        return self._grid.send_and_receive(delivered, timeout=timeout) if delivered else []

    @cached_property
    def _clients(self) -> dict[int, int]:
        nodes = sorted(self._grid.get_node_ids())
        if len(nodes) != self._availability.clients:
            raise EngineError(
                f"the model of availability is for {self._availability.clients} clients, {len(nodes)} nodes are "
                "registered"
            )
        return {node: client for client, node in enumerate(nodes)}

    def _answered(self, sent: Sequence[Message]) -> list[bool]:
        """Whether each message is answered in time; moves the clock."""
        groups: dict[tuple[str, str, int], list[int]] = {}
        for position, message in enumerate(sent):
            kind, group = message.metadata.message_type, message.metadata.group_id
            node = message.metadata.dst_node_id
            last, count = self._last.get((kind, node), (group, -1))
            again = count + 1 if last == group else 0
            self._last[kind, node] = group, again
            groups.setdefault((kind, group, again), []).append(position)
        answered = [False] * len(sent)
        ends, waited = [], 0.0
        for (kind, group, again), positions in groups.items():
            begins = self._now if self._times is None else self._times(kind, group)
            clients = [self._client_of(sent[position]) for position in positions]
            exchange = self._availability.ask(clients, kind=kind, group=group, seconds=begins, again=again)
            for position, counted in zip(positions, exchange.counted.tolist(), strict=True):
                answered[position] = counted
            waits = exchange.seconds if self._times is None else self._availability.allotted(kind)
            ends.append(begins + waits)
            waited = max(waited, exchange.seconds)
        self._now = max(ends, default=self._now)
        self._seconds += waited
        self._asked += len(sent)
        self._missing += len(sent) - sum(answered)
        return answered

    def _client_of(self, message: Message) -> int:
        node = message.metadata.dst_node_id
        if node not in self._clients:
            raise EngineError(f"node {node} was not registered when the run began: ask one that was")
        return self._clients[node]

    def _number_of_none(self) -> str:
        self._undelivered += 1
        return f"undelivered-{self._undelivered}"
