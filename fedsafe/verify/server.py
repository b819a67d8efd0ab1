"""What the checks of a client-level claim talk to: something that asks clients and releases a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedsafe.engine.grid import SERVER_NODE, LocalGrid, error_reply, new_context
from fedsafe.errors import ConfigError
from fedsafe.params import Layout, Vector
from fedsafe.verify.declared import DeclaredClaim
from fedsafe.verify.loading import Target, caught, made

Numbers = Mapping[str, float]

# Of a model that is nobody's: two layers, so that a clip for each tensor can be told from one for all.
LAYOUT = Layout(
    names=("hidden.weight", "hidden.bias", "output.weight", "output.bias"),
    shapes=((24, 16), (24,), (8, 24), (8,)),
)


@dataclass(frozen=True, kw_only=True)
class ClientReply:
    """What one client sends back.

    Args:
        update: ``(parameters,)`` to add to the broadcast model.
        examples: How many records it says that it has.
        loss: Its training loss.
        failed: It sends an error instead.
    """

    update: Vector
    examples: int = 10
    loss: float = 1.0
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Who was asked in a round.

    Args:
        members: Numbers of the clients, from 0.
        numbers: What the messages told the clients besides the model.
        error: What was raised instead.
    """

    members: tuple[int, ...] = ()
    numbers: Numbers = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Released:
    """What a round released.

    Args:
        change: ``(parameters,)`` new model less broadcast one; None if there is no new model.
        numbers: What was released besides.
        error: Why there is no new model.
    """

    change: NDArray[np.float64] | None
    numbers: Numbers = field(default_factory=dict)
    error: str = ""


class Session(Protocol):
    """A server process."""

    def ask(self, round: int, model: Vector) -> Asked:
        """Draw a cohort and send it the model."""
        ...

    def give(self, round: int, replies: Sequence[ClientReply | None]) -> Released:
        """Answer for each member, in their order (None: it does not reply), and get the new model."""
        ...


class Server(Protocol):
    """What is checked."""

    layout: Layout

    def start(self) -> Session:
        """A run of its own, before its first round."""
        ...

    def fresh(self, rng: np.random.Generator) -> tuple[Session, int]:
        """A session whose adaptive parts are as at the start, and a round that it can be asked for: cheap."""
        ...

    def restart(self, session: Session) -> Session:
        """The same run in a new process."""
        ...


@dataclass(kw_only=True)
class NodesOnly(LocalGrid):
    """A grid that knows its nodes, and delivers nothing."""

    def exchange(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        """Nobody answers here: the session does."""
        raise NotImplementedError("only configure_train and aggregate_train are called")

    def push(self, messages: Sequence[Message]) -> None:
        """Messages get their ids, and go nowhere."""

    def pull(self, numbers: Sequence[str]) -> list[Message]:
        """Nothing has arrived."""
        return []


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
        """Made again by its function; any round will do."""
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
        result, error = caught(lambda: self._strategy.aggregate_train(round, given))
        if error:
            return Released(change=None, error=error)
        arrays, metrics = result
        numbers = {} if metrics is None else numbers_in([RecordDict({"metrics": metrics})])
        if arrays is None or not len(arrays):
            return Released(change=None, numbers=numbers, error="no new model")
        new, error = caught(lambda: unpacked(arrays, self._layout))
        if error:
            return Released(change=None, numbers=numbers, error=error)
        return Released(change=new - self._model.astype(np.float64), numbers=numbers)

    def _answer(self, message: Message, reply: ClientReply) -> Message:
        if reply.failed:
            return error_reply(message, 1, "the client failed")

        def train(asked: Message, context: Context) -> Message:
            sent = next(iter(asked.content.array_records.values()))
            arrays = self._arrays(reply, sent)
            metrics = MetricRecord({"num-examples": reply.examples, "train_loss": reply.loss})
            return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=asked)

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


def packed(vector: Vector, layout: Layout) -> ArrayRecord:
    """A vector as named arrays."""
    return ArrayRecord(
        {name: Array(np.ascontiguousarray(value)) for name, value in layout.split(vector).items()}
    )


def unpacked(arrays: ArrayRecord, layout: Layout) -> NDArray[np.float64]:
    """``(parameters,)`` of named arrays.

    Raises:
        ValueError: A name or shape is not the model's.
    """
    parts = []
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        if name not in arrays:
            raise ValueError(f"the released model has no {name!r}")
        value = arrays[name].numpy()
        if value.shape != shape:
            raise ValueError(f"{name!r} has shape {value.shape}, not {shape}")
        parts.append(np.asarray(value, np.float64).ravel())
    return np.concatenate(parts)


def arrays_of(source: Callable[[], Any]) -> tuple[Layout, Vector]:
    """Names, shapes and initial values of what a claim's model function returns.

    Raises:
        ConfigError: It returns neither a module, nor a state dict, nor an ArrayRecord.
    """
    given, error = caught(source)
    state = given.state_dict() if hasattr(given, "state_dict") else given
    if error or not hasattr(state, "items"):
        raise ConfigError(
            f"the claim's model function gave {error or type(given).__name__}, not a module, state dict or ArrayRecord"
        )
    values = {name: np.asarray(value.numpy(), np.float32) for name, value in state.items()}
    layout = Layout(names=tuple(values), shapes=tuple(value.shape for value in values.values()))
    return layout, layout.join(values)


def numbers_in(contents: Any) -> dict[str, float]:
    """Every number in the metrics and configurations of messages, by name; lists entry by entry."""
    found: dict[str, float] = {}
    for content in contents:
        for records in (content.metric_records, content.config_records):
            for record in records.values():
                for name, value in record.items():
                    for suffix, single in _singles(value):
                        found[f"{name}{suffix}"] = single
    return found


def _singles(value: Any) -> list[tuple[str, float]]:
    if isinstance(value, list):
        return [(f"[{i}]", float(v)) for i, v in enumerate(value) if isinstance(v, int | float)]
    return [("", float(value))] if isinstance(value, int | float) else []
