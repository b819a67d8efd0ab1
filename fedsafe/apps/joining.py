"""Who takes part in a run on nodes: each node says which client it is, and to which plan and code it came.

What a node says is its own word. It is held to what can be: a client that there is, not yet another node's place, the
same plan and the same code. Whatever else it says leaves it out, and stops nobody else's run: two nodes with one
client's records would break the claim, and one that comes to another plan would refuse every round.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Message

import fedsafe
from fedsafe.apps.code import code_digest
from fedsafe.apps.log import LOG
from fedsafe.apps.refusals import refusal_in
from fedsafe.errors import EngineError
from fedsafe.privacy.plan import PrivacyPlan

JOINED = "joined"
# Where a node keeps what it released.
DURABLE, MEMORY = "durable", "memory"


@dataclass(frozen=True, kw_only=True)
class Joined:
    """How the nodes answered.

    Args:
        places: Client to its node.
        gates: Nodes that keep a ledger on their disk.
        refusing: Node to the reason that it gives, of the fixed list.
        turned_away: Node to a reason in a word, and a line for the server's log.
    """

    places: Mapping[int, int]
    gates: frozenset[int]
    refusing: Mapping[int, str]
    turned_away: Mapping[int, tuple[str, str]]


class _TurnedAway(Exception):
    """A reason in a word, and a line."""

    def __init__(self, reason: str, line: str) -> None:
        super().__init__(line)
        self.reason, self.line = reason, line


def let_in(answers: Mapping[int, Message | None], plan: PrivacyPlan, *, resumed: bool = False) -> Joined:
    """Give each node that joins its client's place.

    Args:
        answers: Each node's, in the order of arrival: of two that claim one place, the first has it. None for a node
            that did not answer.
        plan: The server's.
        resumed: Whether nodes may have released something in this run before, which they must remember then.

    Raises:
        EngineError: Nobody takes part; it says why.
    """
    places: dict[int, int] = {}
    gates, refusing, away = set(), {}, {}
    for node, answer in answers.items():
        refusal = refusal_of(answer)
        if refusal:
            refusing[node] = refusal
            LOG.warning("node %d refuses to take part: %s; the run goes on without it", node, refusal)
            continue
        try:
            client, durable = _said(answer, plan, len(answers), resumed=resumed)
            if client in places:
                raise _TurnedAway(
                    "place_taken",
                    f"nodes {places[client]} and {node} both say that they are client {client}, and the first keeps "
                    "the place: give each SuperNode a partition-id of its own, or look for who claims another one's",
                )
        except _TurnedAway as found:
            away[node] = (found.reason, found.line)
            LOG.warning("node %d is left out: %s; the run goes on without it", node, found.line)
            continue
        places[client] = node
        if durable:
            gates.add(node)
    if not places:
        lines = [line for _, line in away.values()]
        raise EngineError(f"every node refuses: {'; '.join(sorted({*refusing.values(), *lines}))}")
    return Joined(places=places, gates=frozenset(gates), refusing=refusing, turned_away=away)


def refusal_of(answer: Message | None) -> str:
    """The reason of the fixed list that a reply gives; empty if none."""
    refusal = refusal_in(answer.error) if answer is not None and answer.has_error() else None
    return "" if refusal is None else refusal.value


def _said(answer: Message | None, plan: PrivacyPlan, clients: int, *, resumed: bool) -> tuple[int, bool]:
    """Which client a node is, and whether it keeps a ledger."""
    if answer is None:
        raise _TurnedAway("no_answer", "it did not say whether it joins; see its own log")
    if answer.has_error():
        raise _TurnedAway(
            "could_not_join", f"it could not join: {' '.join((answer.error.reason or '').split())[:500]}"
        )
    try:
        said = answer.content.config_records[JOINED]
        client, agreed, version, code = (said[name] for name in ("client", "plan", "fedsafe", "code"))
        durable = said.get("ledger") == DURABLE
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _TurnedAway("not_understood", "it said something else than who it is") from None
    if type(client) is not int or not 0 <= client < clients:
        raise _TurnedAway("no_such_client", f"it says that it is client {client!r:.40} of {clients}")
    if not (isinstance(agreed, str) and isinstance(version, str) and isinstance(code, str)):
        raise _TurnedAway("not_understood", f"client {client} said its plan or version in another form")
    if resumed and not durable:
        raise _TurnedAway(
            "no_ledger",
            f"client {client} has no ledger on its disk: its answer to the interrupted round would have other noise; "
            "only runs of nodes behind a gate (fedsafe deploy) can be resumed, so start a new run",
        )
    if version != fedsafe.__version__:
        raise _TurnedAway(
            "other_code",
            f"client {client} runs fedsafe {_short(version)}, the server {fedsafe.__version__}: install the same "
            "everywhere",
        )
    if code != code_digest():
        raise _TurnedAway(
            "other_code",
            f"client {client} runs other code than the server, though both are fedsafe {version}: install the same "
            "everywhere, and start `flwr run` in a folder without another copy (its simulation engine prefers that)",
        )
    if agreed != plan.hash:
        raise _TurnedAway(
            "other_plan",
            f"client {client} comes to plan {_short(agreed)}, the server to {plan.hash[:12]}: its configuration, task "
            "or software is another one",
        )
    return client, durable


def _short(said: str) -> str:
    """A node's word, in a line of a log."""
    return "".join(sign for sign in said[:12] if sign.isprintable())
