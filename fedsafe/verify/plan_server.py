"""The server of a planned run of FedSafe, as the checks talk to it: the real strategy, ledger and aggregator."""

import secrets
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from numpy.typing import NDArray

from fedsafe.aggregation import SERVER_OPTIMIZERS, LocalGaussian, State, build_aggregator
from fedsafe.engine.grid import SERVER_NODE, new_context
from fedsafe.federation import ClientRuntime, NoisyAverage
from fedsafe.federation.messages import pack_parameters, read_reply
from fedsafe.federation.server_noise import server_noise
from fedsafe.params import Vector
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.mechanisms import from_grid
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream, new_key
from fedsafe.runs.compose import Parts
from fedsafe.verify.loading import caught
from fedsafe.verify.messages import NodesOnly, numbers_in, unpacked
from fedsafe.verify.scripted import ScriptedCounts, ScriptedTrainer
from fedsafe.verify.server import LAYOUT, Asked, ClientReply, Released, Session


class PlanServer:
    """Runs of a plan, each with a key and a ledger of its own.

    The server's optimiser is plain averaging here: whatever moves the model by the released sum is post-processing.

    Args:
        parts: Of the experiment; the model is the checks' own.
        plan: Calibrated.
    """

    layout = LAYOUT

    def __init__(self, parts: Parts, plan: PrivacyPlan) -> None:
        self.parts, self.plan = parts, plan
        # Up to here no client can have reached its cap, which would leave it out of a cohort that it was drawn for.
        self.rounds = min(plan.rounds, plan.record.max_participations)
        self._folder = tempfile.TemporaryDirectory(prefix="fedsafe-verify-")
        self._ledgers: list[Ledger] = []
        self._current: _PlanSession | None = None

    def start(self) -> Session:
        """Another key, another ledger."""
        return self._started()

    def fresh(self, rng: np.random.Generator) -> tuple[Session, int]:
        """The next round of a run, and of another one when its plan is used up."""
        if self._current is None or self._current.asked >= self.rounds or self._current.adapts:
            self._current = self._started()
        return self._current, self._current.asked + 1

    def restart(self, session: Session) -> Session:
        """The same key and ledger."""
        if not isinstance(session, _PlanSession):
            raise TypeError("only a session of this server can be restarted")
        session.ledger.close()
        ledger = Ledger.open(session.path, self.plan, key_fingerprint="verify")
        self._ledgers.append(ledger)
        again = _PlanSession(self, session.path, ledger, session.key)
        # As a checkpoint carries it.
        again.restore(session.state, server_noise(session.key, ledger))
        return again

    def close(self) -> None:
        """Remove the ledgers."""
        for ledger in self._ledgers:
            ledger.close()
        self._folder.cleanup()

    def __enter__(self) -> "PlanServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _started(self) -> "_PlanSession":
        path = Path(self._folder.name) / f"{secrets.token_hex(8)}.sqlite"
        ledger = Ledger.create(path, self.plan, key_fingerprint="verify")
        self._ledgers.append(ledger)
        return _PlanSession(self, path, ledger, new_key())


class _PlanSession:
    def __init__(self, server: PlanServer, path: Path, ledger: Ledger, key: bytes) -> None:
        self.path, self.ledger, self.key, self.asked = path, ledger, key, 0
        self._rounds, self._population = server.rounds, server.plan.clients
        config = server.parts.config
        self._aggregators = [
            build_aggregator(config.server.aggregator, server.plan, learning_rate=config.client.plain_rate)
            for _ in range(2)
        ]
        self._strategy = NoisyAverage(
            plan=server.plan,
            aggregator=self._aggregators[0],
            layout=LAYOUT,
            optimizer=SERVER_OPTIMIZERS["sgd"](learning_rate=1.0, momentum=0.0),
            ledger=ledger,
            key=key,
            # Where clients may be absent, a round that nobody answers is one like any other.
            present=lambda round: 1.0,
        )
        self._grid = NodesOnly(clients=server.plan.clients)
        self._training = ScriptedTrainer(layout=LAYOUT)
        self._clients = ClientRuntime(
            trainer=self._training,
            aggregator=self._aggregators[1],
            records=ScriptedCounts(self._training),
            key=key,
            plan=server.plan.hash,
        )
        self._messages: list[Message] = []
        self._model = np.zeros(LAYOUT.total, np.float32)

    @property
    def adapts(self) -> bool:
        """Whether a round depends on the rounds before it."""
        return self._aggregators[0].remembers

    @property
    def state(self) -> State:
        """What the rule at the server remembers."""
        return self._aggregators[0].state()

    def restore(self, state: State, noise: Callable[[int], Stream]) -> None:
        """Remember it, and the noise of earlier rounds."""
        self._aggregators[0].restore(state)
        self._aggregators[0].recall(LAYOUT.total, noise)

    def ask(self, round: int, model: Vector) -> Asked:
        if round > self._rounds:
            return Asked(error=f"round {round} is one of those in which a client may have reached its cap")
        self._model = model
        arrays = pack_parameters(model, LAYOUT)
        messages, error = caught(
            lambda: list(self._strategy.configure_train(round, arrays, ConfigRecord(), self._grid))
        )
        if error:
            return Asked(error=error)
        self.asked = round
        self._grid.push_messages(messages)
        self._messages = messages
        members = tuple(message.metadata.dst_node_id - SERVER_NODE - 1 for message in messages)
        return Asked(members=members, numbers=numbers_in(message.content for message in messages[:1]))

    def give(self, round: int, replies: Sequence[ClientReply | None]) -> Released:
        given = [
            self._answer(message, reply)
            for message, reply in zip(self._messages, replies, strict=True)
            if reply is not None
        ]
        uploads = self._uploads(given)
        result, error = caught(lambda: self._strategy.aggregate_train(round, given))
        if error:
            return Released(change=None, error=error, uploads=uploads)
        arrays, metrics = result
        if arrays is None or metrics is not None:
            return Released(change=None, error="no model, or metrics beside it", uploads=uploads)
        return Released(change=unpacked(arrays, LAYOUT) - self._model.astype(np.float64), uploads=uploads)

    def _answer(self, message: Message, reply: ClientReply) -> Message:
        """What a worker does with a trained update."""
        context = new_context(message.metadata.dst_node_id, self._population, {}, {})
        self._training.reply = reply
        answer = self._clients.train(message, context)
        for copy in range(2, reply.copies + 1):
            answer.content[f"fold-{copy}"] = ArrayRecord(dict(answer.content.array_records["fold"]))
        return answer

    def _uploads(self, given: Sequence[Message]) -> list[NDArray[np.float64] | None]:
        """What each member's own noise is in, as the server gets it."""
        rule = self._aggregators[1]
        if not isinstance(rule, LocalGaussian):
            return []
        sent = {message.metadata.reply_to_message_id: read_reply(message) for message in given}
        replies = [sent.get(message.metadata.message_id) for message in self._messages]
        return [
            None if reply is None or reply.failures else from_grid(reply.fold.arrays["total"], rule.bits)
            for reply in replies
        ]
