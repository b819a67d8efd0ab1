"""Flower's own grid, seen as FedSafe sees one: client k is at node k + 2, replies are in the order of the messages.

Flower gives nodes random numbers. Who is which client is what each node says when it is asked to join, before anything
is released (`fedsafe.apps.joining`). A node that is not let in is asked for nothing, and its client counts as absent.
"""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedsafe.aggregation.secure import VerifyingKey
from fedsafe.apps.joining import Joined, let_in, refusal_of
from fedsafe.apps.log import LOG
from fedsafe.apps.packing import pack_request, unpack_reply
from fedsafe.apps.peers import pinned_of
from fedsafe.engine import GridAround
from fedsafe.errors import EngineError
from fedsafe.extensions import searched
from fedsafe.federation.secure_messages import read_stage
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.compose import Parts

JOIN = "query.join"
EXPERIMENT = "experiment"
# The server's name of a run, which stays the same when the run is resumed.
RUN = "run"

_FIRST_NODE = 2
_POLL_SECONDS = 0.3


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """How one set of messages was answered. It tells of a secret cohort: private.

    Args:
        round: As the messages name it.
        kind: ``"train"``, ``"evaluate"`` or ``"join"``.
        asked: Nodes that were sent a message.
        replied: Nodes that sent what was asked for.
        refused: Reason to how many nodes gave it.
        failed: Nodes whose error is another one; the rest were silent.
        stage: Of a round of secure aggregation, which has five exchanges; empty elsewhere.
    """

    round: str
    kind: str
    asked: int
    replied: int
    refused: Mapping[str, int]
    failed: int
    stage: str = ""


class NodeGrid(GridAround):
    """A grid of joined nodes; every message to them carries the experiment, or what is short for it.

    Args:
        grid: Flower's.
        nodes: Flower's number of each client's node; None for a client that is asked for nothing.
        experiment: The configuration, for a process that has never heard of it.
        wait: Seconds to wait for the replies of a round.
        tell: Told, after each exchange, how many were asked, how many replied, and why others refused.
        gates: Those nodes that remember the experiment, and get messages that are packed.
        parameters: Of the model.
        pinned: The keys that clients sign with in secure aggregation, by client number.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Sequence[int | None],
        experiment: ConfigRecord,
        wait: float,
        tell: Callable[[Exchange], None] = lambda exchange: None,
        *,
        gates: Collection[int] = (),
        parameters: int = 0,
        pinned: Mapping[int, VerifyingKey] | None = None,
    ) -> None:
        super().__init__(grid)
        self.pinned: Mapping[int, VerifyingKey] = pinned or {}
        self._nodes, self._experiment, self._wait = tuple(nodes), experiment, wait
        self._tell, self._gates, self._parameters = tell, frozenset(gates), parameters

    @property
    def name_of_run(self) -> str:
        """The run's name to the nodes, for which they draw their noise."""
        return cast("str", self._experiment[RUN])

    def get_node_ids(self) -> Iterable[int]:
        """One for each client, in the order of the clients."""
        return range(_FIRST_NODE, _FIRST_NODE + len(self._nodes))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages, each of which is sent once; the number of one to nobody is empty."""
        messages = list(messages)
        places = [self._nodes[message.metadata.dst_node_id - _FIRST_NODE] for message in messages]
        sent = []
        for message, node in zip(messages, places, strict=True):
            if node is None:
                continue
            sent.append(message)
            message.metadata.dst_node_id = node
            # Many messages may share one content, and the nodes that they go to need not be alike.
            content = RecordDict({name: each for name, each in message.content.items() if name != EXPERIMENT})
            if node in self._gates:
                message.content = pack_request(content, self.name_of_run)
            else:
                message.content = RecordDict({**content, EXPERIMENT: self._experiment})
        numbers = iter(self._grid.push_messages(sent))
        return ["" if node is None else next(numbers) for node in places]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and wait for the replies, or until the shorter of both limits is over."""
        sent = list(messages)
        if not sent:
            return []
        asked = read_stage(sent[0])
        stage = "" if asked is None else asked.stage
        numbers = list(self.push_messages(sent))
        replies = collect(self._grid, numbers, self._wait if timeout is None else min(self._wait, timeout))
        self._tell(_exchange(sent, replies, stage))
        # The order of arrival is chance, and sums of floats should not be.
        return [unpack_reply(replies[number], self._parameters) for number in numbers if number in replies]


def new_run() -> str:
    """A name for a run that nobody can guess: who knows it may ask for the rounds of its plan, and for no others."""
    return secrets.token_hex(16)


def connect(
    grid: Grid,
    parts: Parts,
    *,
    run: str,
    wait_for_nodes: float,
    wait_for_replies: float,
    resumed: bool = False,
    tell: Callable[[Exchange], None] = lambda exchange: None,
    peers: Mapping[str, VerifyingKey] | None = None,
) -> Callable[[PrivacyPlan], Grid]:
    """Ask every node to join; they load their data and calibrate while the server does.

    A node whose own policy refuses, or that is not let in, is left out, and the run goes on: its client counts as
    absent.

    Args:
        grid: Flower's.
        parts: Of the run.
        run: Its name, from :func:`new_run`.
        wait_for_nodes: Seconds until every client must be connected, and then, where it is longer, to join.
        wait_for_replies: Seconds to wait for the replies to one set of messages.
        resumed: Whether nodes may have released something in this run before. Who does not remember it is left out.
        tell: As of :class:`NodeGrid`.
        peers: The keys that clients sign with in secure aggregation, by name.

    Returns:
        Waits until all have joined under the plan given, and gives the grid.

    Raises:
        ConfigError: Updates are to be summed behind masks, and fewer than two clients' keys are known.
        EngineError: Too few nodes or too many, or none of them takes part.
    """
    pinned = pinned_of(parts, peers or {})
    nodes = wait_until_connected(grid, len(parts.records), wait_for_nodes)
    experiment = ConfigRecord({"config": parts.config.to_toml(), "folders": searched(), RUN: run})
    asked = [
        Message(RecordDict({EXPERIMENT: experiment}), dst_node_id=node, message_type=JOIN, group_id="0")
        for node in nodes
    ]
    numbers = list(grid.push_messages(asked))

    def joined(plan: PrivacyPlan) -> Grid:
        # In the order of arrival, which decides between two that claim one place.
        # They calibrate their plans first, which takes longer than an exchange of a round may.
        replies = collect(grid, numbers, max(wait_for_nodes, wait_for_replies))
        asked_of = dict(zip(numbers, nodes, strict=True))
        order = [*(number for number in replies), *(number for number in numbers if number not in replies)]
        joined = let_in({asked_of[number]: replies.get(number) for number in order}, plan, resumed=resumed)
        if joined.turned_away:
            tell(_joining(len(nodes), joined))
        LOG.info("%d of %d nodes have joined under plan %s", len(joined.places), len(nodes), plan.hash[:12])
        # Who refuses has not said who it is: it is one of those that are left, and is asked in each round all the same.
        left = [client for client in range(len(nodes)) if client not in joined.places]
        places = {**dict(zip(left, joined.refusing, strict=False)), **joined.places}
        return NodeGrid(
            grid,
            [places.get(client) for client in range(len(nodes))],
            experiment,
            wait_for_replies,
            tell,
            gates=joined.gates,
            parameters=parts.layout.total,
            pinned=pinned,
        )

    return joined


def wait_until_connected(grid: Grid, clients: int, seconds: float) -> list[int]:
    """Flower's numbers of the nodes, once there is one for each client.

    Raises:
        EngineError: There are more, or still fewer after ``seconds``.
    """
    end, told = time.monotonic() + seconds, -1
    while True:
        nodes = sorted(grid.get_node_ids())
        if len(nodes) == clients:
            return nodes
        if len(nodes) > clients or time.monotonic() > end:
            waited = f" after {seconds:g} s" if len(nodes) < clients else ""
            raise EngineError(
                f"the configuration has {clients} clients, and {len(nodes)} nodes are connected{waited}: start "
                f"{clients} SuperNodes, simulate as many with --federation-config num-supernodes={clients}, or change "
                "federation.clients"
            )
        if len(nodes) != told:
            told = len(nodes)
            LOG.info("%d of %d nodes are connected; waiting for the others", told, clients)
        time.sleep(_POLL_SECONDS)


def collect(grid: Grid, numbers: Sequence[str], seconds: float) -> dict[str, Message]:
    """Replies by the number of the message that they answer, as far as they arrive within ``seconds``."""
    waiting, end = {number for number in numbers if number}, time.monotonic() + seconds
    replies: dict[str, Message] = {}
    while waiting:
        for reply in grid.pull_messages(sorted(waiting)):
            replies[reply.metadata.reply_to_message_id] = reply
        waiting -= replies.keys()
        if not waiting or time.monotonic() > end:
            break
        time.sleep(_POLL_SECONDS)
    return replies


def _exchange(sent: Sequence[Message], replies: Mapping[str, Message], stage: str) -> Exchange:
    errors = [reply for reply in replies.values() if reply.has_error()]
    refused = Counter(reason for reply in errors if (reason := refusal_of(reply)))
    return Exchange(
        round=sent[0].metadata.group_id,
        kind=sent[0].metadata.message_type,
        asked=len(sent),
        replied=len(replies) - len(errors),
        refused=dict(refused),
        failed=len(errors) - sum(refused.values()),
        stage=stage,
    )


def _joining(asked: int, joined: Joined) -> Exchange:
    return Exchange(
        round="0",
        kind="join",
        asked=asked,
        replied=len(joined.places),
        refused=dict(Counter([*joined.refusing.values(), *(why for why, _ in joined.turned_away.values())])),
        failed=0,
    )
