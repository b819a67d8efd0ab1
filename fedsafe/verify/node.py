"""What the checks of a record-level claim talk to: clients that train on records of the checks' choosing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedsafe.engine.grid import SERVER_NODE, new_context
from fedsafe.errors import ConfigError
from fedsafe.params import Layout, Vector
from fedsafe.verify.declared import ClientHooks, DeclaredClaim
from fedsafe.verify.loading import Target, caught, made
from fedsafe.verify.messages import NodesOnly, arrays_of, numbers_in, packed, unpacked
from fedsafe.verify.records import Records, replaced, shape_of


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a client sent back.

    Args:
        change: ``(parameters,)`` trained less broadcast model; None if there is none.
        numbers: Metrics and settings that came with it.
        error: Why there is no model.
    """

    change: NDArray[np.float64] | None
    numbers: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


class Node(Protocol):
    """Clients under test."""

    layout: Layout
    initial: Vector
    inputs: tuple[int, ...]
    # Whether the learning rate can be chosen: sampling shows only where the model hardly moves.
    steerable: bool

    def train(
        self, clients: Sequence[int], round: int, model: Vector, records: Records, learning_rate: float
    ) -> list[Trained]:
        """Let some clients, who all hold these records, train."""
        ...

    def restart(self) -> None:
        """Start the process of the clients again."""
        ...


class FlowerNode:
    """Any Flower ClientApp.

    Args:
        target: Names it.
        claim: What is claimed of it, and how it gets its records.
    """

    def __init__(self, target: Target, claim: DeclaredClaim) -> None:
        self._target, self._claim, self._hooks = target, claim, _hooks(claim)
        # Messages need somebody who sends them.
        self._grid = NodesOnly(clients=1)
        self._contexts: dict[int, Context] = {}
        self._given: Records | None = None
        self._seen: Any = None
        self._install()
        self.layout, self.initial = arrays_of(target.sibling(claim.model or ""))
        self.inputs = self._look()
        self.steerable = self._hooks.learning_rate_key is not None

    def train(
        self, clients: Sequence[int], round: int, model: Vector, records: Records, learning_rate: float
    ) -> list[Trained]:
        """One message after another."""
        self._given = records
        return [self._train(client, round, model, learning_rate) for client in clients]

    def restart(self) -> None:
        """Import the app afresh; ``context.state`` stays with each client."""
        self._target.restart()
        self._install()

    def close(self) -> None:
        """Give the app its own records back: whoever imports it after this finds it as it was."""
        for module in self._target.modules:
            _put(module, self._ours, self._original)

    def _install(self) -> None:
        """Put our records in the place of the app's, wherever the app has the function's name."""
        original = self._target.sibling(self._hooks.data)

        def load(*args: Any, **options: Any) -> Any:
            if self._given is None:
                self._seen = original(*args, **options)
                return self._seen
            return replaced(self._seen, self._given)

        self._original, self._ours = original, load
        for module in self._target.modules:
            _put(module, original, load)
        found = made(self._target.get(), ClientApp, self._target.name)
        self._app = found

    def _look(self) -> tuple[int, ...]:
        """Shape of one record, from what the app's own function returns when the app calls it."""
        trained = self._train(0, 1, self.initial, self._claim.learning_rate or 1.0)
        self._contexts.clear()
        if self._seen is None:
            raise ConfigError(
                f"{self._target.name} did not call {self._hooks.data} in a train message"
                + (f": {trained.error}" if trained.error else "")
                + "; name in client.data the function that gives it its records"
            )
        return shape_of(self._seen)

    def _train(self, client: int, round: int, model: Vector, learning_rate: float) -> Trained:
        claim, key = self._claim, self._hooks.learning_rate_key
        steered = {} if key is None else {key: learning_rate}
        asked = {"server-round": round, **claim.config}
        if key is not None and key in asked:
            asked |= steered
        content = RecordDict({"arrays": packed(model, self.layout), "config": ConfigRecord(asked)})
        node = client + SERVER_NODE + 1
        message = Message(content, dst_node_id=node, message_type="train", group_id=str(round))
        self._grid.push_messages([message])
        # The grid gives ids to its own nodes only.
        message.metadata.__dict__["_message_id"] = f"{round}-{client}"
        if client not in self._contexts:
            self._contexts[client] = new_context(node, max(2, client + 1), {}, {})
        context = self._contexts[client]
        context.run_config = {**claim.run_config, **steered}
        reply, error = caught(lambda: self._app(message, context))
        if error or reply.has_error():
            return Trained(change=None, error=error or str(reply.error.reason))
        arrays = list(reply.content.array_records.values())
        numbers = numbers_in([reply.content])
        if len(arrays) != 1:
            return Trained(
                change=None, numbers=numbers, error=f"the reply holds {len(arrays)} ArrayRecords, not one"
            )
        values, error = caught(lambda: unpacked(arrays[0], self.layout))
        if error:
            return Trained(change=None, numbers=numbers, error=error)
        sent = model.astype(np.float64) if claim.reply == "model" else 0.0
        return Trained(change=values - sent, numbers=numbers)


def _hooks(claim: DeclaredClaim) -> ClientHooks:
    if claim.client is None:
        raise ConfigError(
            'a claim about a ClientApp needs [client] with data = "module:function" (docs/verify.md)'
        )
    return claim.client


def _put(module: ModuleType, original: Any, ours: Any) -> None:
    for name, value in list(vars(module).items()):
        if value is original:
            setattr(module, name, ours)
