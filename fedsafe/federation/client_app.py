"""The client's side: one client from one message, or a whole chunk of clients from many."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedsafe.aggregation import Aggregator, DistributedMean, Fold, Updates
from fedsafe.client import ClientJob, Trainer
from fedsafe.errors import ConfigError, PlanViolation
from fedsafe.extensions import one_line
from fedsafe.federation.messages import (
    EVALUATE,
    Instruction,
    Reply,
    Upload,
    announced_digest,
    read_correction,
    read_instruction,
    release_digest,
    reply_message,
    upload_message,
)
from fedsafe.federation.scores import score_of_client, sum_of_scores
from fedsafe.params import Vector, input_digest
from fedsafe.privacy.levels import EvaluationPlan
from fedsafe.privacy.mechanisms import Grid
from fedsafe.rng import Stream, StreamId

Rows = NDArray[np.int64]
RowsOfClients = Mapping[int, Rows] | Sequence[Rows]
Corrections = Mapping[int, Vector | None]
# Losses and scores, each ``(rows,)`` float64, of some rows of the data.
Measured = Callable[[Rows], tuple[NDArray[np.float64], NDArray[np.float64]]]

# Updates are in memory, in double precision, for so many clients of a chunk at a time: more gain nothing.
_VALUES_AT_ONCE = 2**23
_MOST_AT_ONCE = 2048
_FEWEST_AT_ONCE = 32


class Measure(Protocol):
    """Judges a model on records, without training it."""

    def at(self, parameters: Vector) -> Measured:
        """What gives losses and scores of rows at these parameters, until it is asked for others."""
        ...


@dataclass(frozen=True, kw_only=True)
class ClientRuntime:
    """Everything that clients need to train and to evaluate, held by one worker.

    Args:
        trainer: Trains clients, alone or stacked.
        aggregator: Folds their updates.
        records: Rows of the data of each client, by client number.
        key: Secret of the noise and of the batches.
        plan: Hash of the privacy plan that the clients agreed to.
        measure: Judges the broadcast model on records; needed by aggregators that need losses, and to evaluate.
        validation: Rows of the data that each client evaluates on; None where there is no federated evaluation.
        evaluation: How scores are released, of the plan; None where there is no federated evaluation.
        between: Called after each part of a chunk, to let go of what it read.
        paired: As of `fedsafe.federation.NoisyAverage`: one stream for a client and round, whatever it meets.

    Raises:
        ConfigError: The aggregator needs losses, and nothing measures them.
    """

    trainer: Trainer
    aggregator: Aggregator
    records: RowsOfClients
    key: bytes = field(repr=False)
    plan: str
    measure: Measure | None = None
    validation: RowsOfClients | None = None
    evaluation: EvaluationPlan | None = None
    between: Callable[[], None] | None = None
    paired: bool = False
    _met: dict[tuple[str, int], bytes] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.aggregator.needs_losses and self.measure is None:
            raise ConfigError(
                f"the aggregator {self.aggregator.name} needs the clients' losses: give ClientRuntime a measure"
            )

    def train(self, message: Message, context: Context) -> Message:
        """Train the client of one message; the reply is a fold of one.

        Nothing but the fold leaves a real client: its processor time and what an exception says would be
        functions of its records that no budget was charged for.
        """
        instruction, corrections = self._read([message], [context])
        failed = "training failed"
        try:
            reply = self._trained(instruction, corrections)
        except Exception:  # failures of training are caught inside: this is the aggregator's
            failed = f"the aggregator {self.aggregator.name} failed on an update"
            nothing = self.aggregator.zero(self.trainer.layout.total)
            reply = Reply(fold=nothing, clients=0, failures=1, error="", cpu_seconds=0.0)
        return _alone(reply, failed, message)

    def upload(self, message: Message, context: Context) -> Message:
        """As :meth:`train`; where the rule can fold it, the reply is the trained model, in a quarter of the bytes."""
        if not getattr(self.aggregator, "folds_uploads", False):
            return self.train(message, context)
        instruction, corrections = self._read([message], [context])
        (client,) = corrections
        try:
            updates, trained = self._updates(instruction, corrections, [client])
        except PlanViolation:
            raise
        except Exception:
            nothing = self.aggregator.zero(self.trainer.layout.total)
            return _alone(
                Reply(fold=nothing, clients=0, failures=1, error="", cpu_seconds=0.0),
                "training failed",
                message,
            )
        return upload_message(Upload(parameters=trained[0], examples=int(updates.examples[0])), message)

    def train_chunk(self, messages: Sequence[Message], contexts: Sequence[Context]) -> Message:
        """Train the clients of many messages of one round; **one** reply holds the fold of all.

        A client that fails is counted, and adds nothing. Only processes that hold the whole chunk's secrets may
        call this: a simulation's worker, never a real client.
        """
        return reply_message(self._trained(*self._read(messages, contexts)), messages[0])

    def evaluate(self, message: Message, context: Context) -> Message:
        """Score the model of one message on its client's validation records; the reply is a sum over one."""
        return _alone(self._evaluated(*self._read([message], [context])), "evaluation failed", message)

    def evaluate_chunk(self, messages: Sequence[Message], contexts: Sequence[Context]) -> Message:
        """Score for the clients of many messages; **one** reply holds the sum. For simulation, as above."""
        return reply_message(self._evaluated(*self._read(messages, contexts)), messages[0])

    def shares(self, messages: Sequence[Message], contexts: Sequence[Context]) -> dict[int, Grid]:
        """What each client would send under distributed noise, for secure aggregation to mask.

        Raises:
            ConfigError: The aggregator's clients add no noise together.
        """
        if not isinstance(self.aggregator, DistributedMean):
            raise ConfigError(
                f"the clients of {self.aggregator.name} add no noise together: use distributed_mean"
            )
        instruction, corrections = self._read(messages, contexts)
        clients = sorted(corrections)
        updates, _ = self._updates(instruction, corrections, clients)
        rows = zip(clients, updates.rows, updates.draws or (), strict=True)
        return {client: self.aggregator.share_of(row, stream) for client, row, stream in rows}

    def answer(self, message: Message, context: Context) -> Message:
        """Train or evaluate, as the message asks."""
        evaluates = message.metadata.message_type == EVALUATE
        return (self.evaluate if evaluates else self.train)(message, context)

    def answer_chunk(self, messages: Sequence[Message], contexts: Sequence[Context]) -> Message:
        """Train or evaluate, as the messages ask; all of them ask the same."""
        evaluates = messages[0].metadata.message_type == EVALUATE
        return (self.evaluate_chunk if evaluates else self.train_chunk)(messages, contexts)

    def _trained(self, instruction: Instruction, corrections: Corrections) -> Reply:
        started = time.process_time()
        fold, failures, error = self._fold(instruction, corrections, sorted(corrections))
        return Reply(
            fold=fold,
            clients=len(corrections) - failures,
            failures=failures,
            error=error,
            cpu_seconds=time.process_time() - started,
        )

    def _evaluated(self, instruction: Instruction, clients: Corrections) -> Reply:
        started = time.process_time()
        if self.measure is None or self.validation is None or self.evaluation is None:
            raise PlanViolation("the server asks for an evaluation that is not in the plan of this client")
        measured = self.measure.at(instruction.parameters)
        digest = input_digest(instruction.parameters, self.plan)
        self._meets_once(EVALUATE, instruction.round, digest)
        scores, failures, first = [], 0, ""
        for client in sorted(clients):
            stream = self._stream("evaluation record noise", client, instruction.round, digest)
            try:
                rows = self.validation[client]
                if len(rows):
                    scores.append(score_of_client(measured(rows)[1], self.evaluation, stream))
            except Exception as error:
                failures, first = failures + 1, first or one_line(error)
        return Reply(
            fold=sum_of_scores(scores),
            clients=len(scores),
            failures=failures,
            error=first,
            cpu_seconds=time.process_time() - started,
        )

    def _read(
        self, messages: Sequence[Message], contexts: Sequence[Context]
    ) -> tuple[Instruction, Corrections]:
        """What all messages ask for, and each client with its correction."""
        instruction = read_instruction(messages[0], self.trainer.layout)
        for message in messages[1:]:
            if message.content["arrays"] is not messages[0].content["arrays"]:
                other = read_instruction(message, self.trainer.layout)
                if (
                    other.round != instruction.round
                    or other.announced != instruction.announced
                    or not np.array_equal(other.parameters, instruction.parameters)
                ):
                    raise PlanViolation(
                        "the messages of a chunk carry different models: send one round at a time"
                    )
        if instruction.plan != self.plan:
            raise PlanViolation(
                f"the server follows plan {instruction.plan[:12]}, this client agreed to {self.plan[:12]}"
            )
        clients = [int(context.node_config["partition-id"]) for context in contexts]
        corrections = [read_correction(message, self.trainer.layout) for message in messages]
        return instruction, dict(zip(clients, corrections, strict=True))

    def _fold(
        self, instruction: Instruction, corrections: Corrections, clients: Sequence[int]
    ) -> tuple[Fold, int, str]:
        """The fold, how many clients failed, and what the first said: however large the chunk, so many at a time."""
        fold, failures, first = self.aggregator.zero(self.trainer.layout.total), 0, ""
        most = max(_FEWEST_AT_ONCE, min(_MOST_AT_ONCE, _VALUES_AT_ONCE // self.trainer.layout.total))
        for start in range(0, len(clients), most):
            part, failed, text = self._fold_at_once(instruction, corrections, clients[start : start + most])
            fold, failures, first = self.aggregator.merge(fold, part), failures + failed, first or text
            if self.between is not None:
                self.between()
        return fold, failures, first

    def _fold_at_once(
        self, instruction: Instruction, corrections: Corrections, clients: Sequence[int]
    ) -> tuple[Fold, int, str]:
        try:
            updates, _ = self._updates(instruction, corrections, clients)
        except Exception as error:
            if len(clients) == 1:
                return self.aggregator.zero(self.trainer.layout.total), 1, one_line(error)
        else:
            # Outside of what may fail: a broken aggregator is no client's failure.
            return self.aggregator.add(self.aggregator.zero(self.trainer.layout.total), updates), 0, ""
        # Only one of them may be at fault: the others still count.
        fold, failures, first = self.aggregator.zero(self.trainer.layout.total), 0, ""
        for client in clients:
            part, failed, text = self._fold_at_once(instruction, corrections, [client])
            fold, failures, first = self.aggregator.merge(fold, part), failures + failed, first or text
        return fold, failures, first

    def _updates(
        self, instruction: Instruction, corrections: Corrections, clients: Sequence[int]
    ) -> tuple[Updates, NDArray[np.float32]]:
        """The updates, and the ``(clients, parameters)`` trained models that they are the difference of."""
        # Computed here from what arrived, never taken from the message: one stream meets one input.
        shared = announced_digest(input_digest(instruction.parameters, self.plan), instruction.announced)
        self._meets_once("train", instruction.round, shared)
        jobs, draws = [], []
        for client in clients:
            correction = corrections[client]
            digest = release_digest(shared, correction)
            jobs.append(
                ClientJob(
                    client=client,
                    records=self.records[client],
                    batches=self._stream("batches", client, instruction.round, digest),
                    noise=self._stream("record noise", client, instruction.round, digest),
                    round=instruction.round,
                    correction=correction,
                )
            )
            if self.aggregator.needs_draws:
                draws.append(self._stream("client draws", client, instruction.round, digest))
        trained = self.trainer.train(instruction.parameters, jobs)
        losses = None
        if self.aggregator.needs_losses and self.measure is not None:
            measured = self.measure.at(instruction.parameters)
            losses = np.array([_mean(measured(job.records)[0]) for job in jobs], np.float64)
        updates = Updates(
            clients=np.array(clients, np.int64),
            rows=trained.astype(np.float64) - instruction.parameters.astype(np.float64),
            examples=np.array([len(job.records) for job in jobs], np.float64),
            losses=losses,
            draws=draws or None,
            announced=instruction.announced,
        )
        return updates, trained

    def _meets_once(self, kind: str, round: int, digest: bytes) -> None:
        """A process that has answered a round does not answer it again from other inputs.

        Raises:
            PlanViolation: It was asked to.
        """
        if self._met.setdefault((kind, round), digest) != digest:
            raise PlanViolation(
                f"round {round} was already answered from other inputs here: a second answer under the same plan would "
                "be a release that nobody counted; start a new run"
            )

    def _stream(self, purpose: str, client: int, round: int, digest: bytes) -> Stream:
        met = b"" if self.paired else digest
        return Stream(self.key, StreamId(purpose=purpose, client=client, round=round, digest=met))


def make_client_app(runtime: Callable[[Context], ClientRuntime]) -> ClientApp:
    """The same client as an ordinary Flower ClientApp, for any runtime that Flower offers."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return runtime(context).train(message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return runtime(context).evaluate(message, context)

    return app


def _alone(reply: Reply, failed: str, message: Message) -> Message:
    return reply_message(replace(reply, cpu_seconds=0.0, error=failed if reply.failures else ""), message)


def _mean(losses: NDArray[np.float64]) -> float:
    """A client without records has no loss."""
    return float(losses.mean()) if len(losses) else 0.0
