"""The strategy: Poisson cohort, ledger, messages, merge, noise, server momentum."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from fedsafe.aggregation import Aggregator
from fedsafe.errors import EngineError
from fedsafe.federation.messages import (
    TRAIN,
    TrainReply,
    instruction_content,
    pack_parameters,
    read_reply,
    unpack_parameters,
)
from fedsafe.params import Layout, Vector, input_digest
from fedsafe.privacy.ledger import Head, Ledger
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.privacy.sampling import poisson_cohort
from fedsafe.rng import Stream, StreamId

_SERVER = -1


@dataclass(frozen=True, kw_only=True)
class ServerOptimizer:
    """SGD with momentum on the averaged update: post-processing, which costs no privacy.

    Args:
        learning_rate: Factor on the averaged update.
        momentum: In [0, 1); 0 is plain averaging.
    """

    learning_rate: float
    momentum: float

    def step(
        self, parameters: Vector, velocity: NDArray[np.float64], update: NDArray[np.float64]
    ) -> tuple[Vector, NDArray[np.float64]]:
        """New parameters and velocity, both ``(parameters,)`` (Hsu et al., 2019)."""
        velocity = self.momentum * velocity + update
        moved = parameters.astype(np.float64) + self.learning_rate * velocity
        return moved.astype(np.float32), velocity


@dataclass(frozen=True, kw_only=True)
class RoundOutcome:
    """What a finished round leaves behind.

    Args:
        round: The round, from 1.
        parameters: The new global model.
        velocity: The server optimiser's state.
        head: The ledger after the round.
        cpu_seconds: Processor time of all clients' training. It varies with the cohort: private.
        seconds: Wall time from sampling the cohort to the new model. Private for the same reason.
        failures: Clients that failed or did not reply, and counted as zero. Private too.
    """

    round: int
    parameters: Vector
    velocity: NDArray[np.float64]
    head: Head
    cpu_seconds: float
    seconds: float
    failures: int


class NoisyAverage(Strategy):
    """One round: sample, reserve, send, merge, add noise, divide by a public constant, step.

    Args:
        plan: What may be released.
        aggregator: Turns replies into one update.
        layout: Of the model.
        optimizer: The server's.
        ledger: Reserved before any message leaves.
        key: Secret of cohorts and noise.
        velocity: State of the server's optimiser, when a run is resumed.
    """

    def __init__(
        self,
        *,
        plan: PrivacyPlan,
        aggregator: Aggregator,
        layout: Layout,
        optimizer: ServerOptimizer,
        ledger: Ledger,
        key: bytes,
        velocity: NDArray[np.float64] | None = None,
    ) -> None:
        self.plan = plan
        self.aggregator = aggregator
        self.layout = layout
        self.optimizer = optimizer
        self.ledger = ledger
        self.velocity = np.zeros(layout.total) if velocity is None else velocity
        self._key = key
        self._parameters = np.zeros(layout.total, np.float32)
        self._digest = b""
        self._head = ledger.head
        self._nodes: Sequence[int] = ()
        self._messages: list[Message] = []
        self._replies: list[TrainReply] = []

    def summary(self) -> None:
        """Nothing is logged: the run record says everything."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the cohort, reserve its spend, and only then make the messages."""
        self._register(grid)
        self._parameters = unpack_parameters(arrays, self.layout)
        self._digest = input_digest(self._parameters, self.plan.hash)
        drawn = poisson_cohort(self._stream("cohort", server_round), self.plan.clients, self.plan.client.rate)
        cohort = self.ledger.within_cap(drawn.tolist(), server_round)
        self._head = self.ledger.reserve(round=server_round, digest=self._digest, cohort=cohort)
        content = instruction_content(arrays, round=server_round, plan=self.plan.hash)
        self._messages = [
            Message(content, dst_node_id=self._nodes[client], message_type=TRAIN, group_id=str(server_round))
            for client in cohort
        ]
        return self._messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Merge the folds, add noise, step. An absent client counts as zero, an empty cohort still moves."""
        # The grid numbers messages when it sends them. Each may be answered once: a second answer to one message
        # would count its clients twice.
        open_numbers = {message.metadata.message_id for message in self._messages}
        self._replies, errors = [], []
        for message in replies:
            reply = read_reply(message)
            if reply is None:
                errors.append(message.error.reason)
            elif message.metadata.reply_to_message_id in open_numbers:
                open_numbers.remove(message.metadata.reply_to_message_id)
                self._replies.append(reply)
                errors += [reply.error] if reply.error else []
        if self._messages and not sum(reply.clients for reply in self._replies):
            first = errors[0] if errors else "nothing: no client replied"
            raise EngineError(f"every client of round {server_round} failed; the first said: {first}")
        fold = self.aggregator.zero(self.layout.total)
        for reply in self._replies:
            fold = self.aggregator.merge(fold, reply.fold)
        update = self.aggregator.finish(fold, self._stream("client noise", server_round))
        self._parameters, self.velocity = self.optimizer.step(self._parameters, self.velocity, update)
        return pack_parameters(self._parameters, self.layout), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """No federated evaluation: what leaves a client would have to be noised and charged."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """No federated evaluation."""
        return None

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: object = None,
        *,
        first_round: int = 1,
        on_round: Callable[[RoundOutcome], bool] | None = None,
    ) -> Result:
        """Run rounds ``first_round`` to ``num_rounds``.

        Flower's own loop always counts from 1, which would make a resumed run release round 1 again.

        Args:
            grid: Carries the messages.
            initial_arrays: The model before ``first_round``.
            num_rounds: The last round.
            timeout: Seconds to wait for the replies of a round.
            train_config: Not used: everything is in the plan.
            evaluate_config: Not used: there is no federated evaluation.
            evaluate_fn: Not used: ``on_round`` judges the model.
            first_round: Where to start.
            on_round: Called with each outcome; False stops the run.
        """
        arrays, result = initial_arrays, Result()
        for current in range(first_round, num_rounds + 1):
            started = time.perf_counter()
            messages = self.configure_train(current, arrays, ConfigRecord(), grid)
            replies = grid.send_and_receive(messages=messages, timeout=timeout)
            updated, _ = self.aggregate_train(current, replies)
            arrays = result.arrays = updated if updated is not None else arrays
            outcome = RoundOutcome(
                round=current,
                parameters=self._parameters,
                velocity=self.velocity,
                head=self._head,
                cpu_seconds=sum(reply.cpu_seconds for reply in self._replies),
                seconds=time.perf_counter() - started,
                failures=len(self._messages) - sum(reply.clients for reply in self._replies),
            )
            if on_round is not None and not on_round(outcome):
                break
        return result

    def _register(self, grid: Grid) -> None:
        """Fix the population at the start: amplification counts on it."""
        if self._nodes:
            return
        nodes = sorted(grid.get_node_ids())
        if len(nodes) != self.plan.clients:
            raise EngineError(f"the plan is for {self.plan.clients} clients, {len(nodes)} are registered")
        self._nodes = nodes

    def _stream(self, purpose: str, server_round: int) -> Stream:
        identity = StreamId(purpose=purpose, client=_SERVER, round=server_round, digest=self._digest)
        return Stream(self._key, identity)
