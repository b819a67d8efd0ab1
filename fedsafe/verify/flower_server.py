"""Any Flower strategy, as the checks talk to it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedsafe.engine.grid import SERVER_NODE, error_reply, new_context
from fedsafe.params import Layout, Vector
from fedsafe.verify.declared import DeclaredClaim
from fedsafe.verify.loading import Target, caught, made
from fedsafe.verify.messages import NodesOnly, arrays_of, numbers_in, packed, unpacked
from fedsafe.verify.server import LAYOUT, Asked, ClientReply, Released, Session


class FlowerServer:
    """Any Flower strategy.

    Args:
        target: Names it.
        claim: What is claimed of it.
    """

    def __init__(self, target: Target, claim: DeclaredClaim) -> None:
        self._target, self._claim = target, claim
        self.layout, self._initial = LAYOUT, None
        if claim.model is not None:
            self.layout, self._initial = arrays_of(target.sibling(claim.model))
        self._made()

    def start(self) -> Session:
        """Imported afresh."""
        self._target.restart()
        return self._made()

    def fresh(self, rng: np.random.Generator) -> tuple[Session, int]:
        """Made again by its function; any round will do, unless the noise of rounds is correlated."""
        if self._claim.banded is not None:
            return self._made(), 1
        return self._made(), int(rng.integers(1, self._claim.rounds + 1))

    def restart(self, session: Session) -> Session:
        """What it remembers outside of the process is its own affair."""
        return self.start()

    def _made(self) -> Session:
        found = self._target.get()
        if isinstance(found, Strategy):
            # An instance remembers earlier rounds: only another import gives another one.
            self._target.restart()
            found = self._target.get()
        strategy = made(found, Strategy, self._target.name)
        mods = [self._target.sibling(name) for name in self._claim.strategy.mods]
        return _FlowerSession(strategy, self._claim, self.layout, mods)


class _FlowerSession:
    def __init__(self, strategy: Strategy, claim: DeclaredClaim, layout: Layout, mods: Sequence[Any]) -> None:
        self._strategy, self._claim, self._layout = strategy, claim, layout
        self._grid = NodesOnly(clients=claim.population)
        self._model = np.zeros(layout.total, np.float32)
        self._messages: list[Message] = []
        self._packed: dict[tuple[int, int], dict[str, Array]] = {}
        self._mods = mods

    def ask(self, round: int, model: Vector) -> Asked:
        self._model = model
        record = packed(model, self._layout)
        messages, error = caught(
            lambda: list(self._strategy.configure_train(round, record, ConfigRecord(), self._grid))
        )
        if error:
            self._messages = []
            return Asked(error=error)
        self._grid.push_messages(messages)
        self._messages = [m for m in messages if m.metadata.message_id]
        members = tuple(m.metadata.dst_node_id - SERVER_NODE - 1 for m in self._messages)
        return Asked(members=members, numbers=numbers_in(m.content for m in self._messages[:1]))

    def give(self, round: int, replies: Sequence[ClientReply | None]) -> Released:
        self._packed.clear()
        given = [
            self._answer(message, reply)
            for message, reply in zip(self._messages, replies, strict=True)
            if reply is not None
        ]
        uploads = self._uploads(given) if self._claim.mechanism == "local" else ()
        result, error = caught(lambda: self._strategy.aggregate_train(round, given))
        if error:
            return Released(change=None, error=error, uploads=uploads)
        arrays, metrics = result
        numbers = {} if metrics is None else numbers_in([RecordDict({"metrics": metrics})])
        if arrays is None or not len(arrays):
            return Released(change=None, numbers=numbers, error="no new model", uploads=uploads)
        new, error = caught(lambda: unpacked(arrays, self._layout))
        if error:
            return Released(change=None, numbers=numbers, error=error, uploads=uploads)
        return Released(change=new - self._model.astype(np.float64), numbers=numbers, uploads=uploads)

    def _uploads(self, given: Sequence[Message]) -> list[NDArray[np.float64] | None]:
        """What each member sent, as it left the client and its mods."""
        sent = {message.metadata.reply_to_message_id: message for message in given}
        return [self._upload(sent.get(message.metadata.message_id)) for message in self._messages]

    def _upload(self, message: Message | None) -> NDArray[np.float64] | None:
        if message is None or message.has_error():
            return None
        # The last one: a mod that sees to the first record alone lets the rest pass.
        arrays = list(message.content.array_records.values())[-1]
        values, error = caught(lambda: unpacked(arrays, self._layout))
        if error:
            return None
        model = self._model.astype(np.float64) if self._claim.reply == "model" else 0.0
        change: NDArray[np.float64] = values - model
        return change

    def _answer(self, message: Message, reply: ClientReply) -> Message:
        if reply.failed:
            return error_reply(message, 1, "the client failed")

        def train(asked: Message, context: Context) -> Message:
            sent = next(iter(asked.content.array_records.values()))
            arrays = self._arrays(reply, sent)
            metrics = MetricRecord({"num-examples": reply.examples, "train_loss": reply.loss})
            more = {f"arrays-{copy}": ArrayRecord(dict(arrays)) for copy in range(2, reply.copies + 1)}
            return Message(RecordDict({"arrays": arrays, **more, "metrics": metrics}), reply_to=asked)

        if not self._mods:
            return train(message, _NOWHERE)
        app = ClientApp(mods=list(self._mods))
        app.train()(train)
        context = new_context(message.metadata.dst_node_id, self._claim.population, {}, {})
        answered, error = caught(lambda: app(message, context))
        # A mod that raises is a client that fails.
        return error_reply(message, 1, error) if error else answered

    def _arrays(self, reply: ClientReply, sent: ArrayRecord) -> ArrayRecord:
        """A record of its own around arrays that equal replies to one model share: they are immutable bytes."""
        key = id(reply), id(sent)
        if key not in self._packed:
            values = reply.update
            if self._claim.reply == "model":
                with np.errstate(all="ignore"):
                    values = (unpacked(sent, self._layout) + reply.update).astype(np.float32)
            self._packed[key] = dict(packed(values, self._layout))
        return ArrayRecord(self._packed[key])


_NOWHERE = new_context(SERVER_NODE + 1, 1, {}, {})
