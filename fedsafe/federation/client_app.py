"""The client's side: one client from one message, or a whole chunk of clients from many."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedsafe.aggregation import Aggregator, Fold, Updates
from fedsafe.client import ClientJob, Trainer
from fedsafe.errors import PlanViolation
from fedsafe.federation.messages import (
    TrainInstruction,
    TrainReply,
    read_instruction,
    reply_message,
)
from fedsafe.params import input_digest
from fedsafe.rng import Stream, StreamId


@dataclass(frozen=True, kw_only=True)
class ClientRuntime:
    """Everything that clients need to train, held by one worker.

    Args:
        trainer: Trains clients, alone or stacked.
        aggregator: Folds their updates.
        records: Rows of the data of each client, by client number.
        key: Secret of the noise and of the batches.
        plan: Hash of the privacy plan that the clients agreed to.
    """

    trainer: Trainer
    aggregator: Aggregator
    records: Mapping[int, NDArray[np.int64]] | Sequence[NDArray[np.int64]]
    key: bytes = field(repr=False)
    plan: str

    def train(self, message: Message, context: Context) -> Message:
        """Train the client of one message; the reply is a fold of one.

        Nothing but the fold leaves a real client: its processor time and what an exception says would be
        functions of its records that no budget was charged for.
        """
        reply = self._train_messages([message], [context])
        alone = replace(reply, cpu_seconds=0.0, error="training failed" if reply.failures else "")
        return reply_message(alone, message)

    def train_chunk(self, messages: Sequence[Message], contexts: Sequence[Context]) -> Message:
        """Train the clients of many messages of one round; **one** reply holds the fold of all.

        A client that fails is counted, and adds nothing. Only processes that hold the whole chunk's secrets may
        call this: a simulation's worker, never a real client.
        """
        return reply_message(self._train_messages(messages, contexts), messages[0])

    def _train_messages(self, messages: Sequence[Message], contexts: Sequence[Context]) -> TrainReply:
        started = time.process_time()
        instruction = read_instruction(messages[0], self.trainer.layout)
        for message in messages[1:]:
            if message.content["arrays"] is not messages[0].content["arrays"]:
                other = read_instruction(message, self.trainer.layout)
                if other.round != instruction.round or not np.array_equal(
                    other.parameters, instruction.parameters
                ):
                    raise PlanViolation(
                        "the messages of a chunk carry different models: send one round at a time"
                    )
        clients = sorted(int(context.node_config["partition-id"]) for context in contexts)
        fold, failures, error = self._fold(instruction, clients)
        return TrainReply(
            fold=fold,
            clients=len(clients) - failures,
            failures=failures,
            error=error,
            cpu_seconds=time.process_time() - started,
        )

    def _fold(self, instruction: TrainInstruction, clients: Sequence[int]) -> tuple[Fold, int, str]:
        if instruction.plan != self.plan:
            raise PlanViolation(
                f"the server follows plan {instruction.plan[:12]}, this client agreed to {self.plan[:12]}"
            )
        try:
            return self._train(instruction, clients), 0, ""
        except Exception as error:
            if len(clients) == 1:
                return self.aggregator.zero(self.trainer.layout.total), 1, f"{type(error).__name__}: {error}"
        # Only one of them may be at fault: the others still count.
        fold, failures, first = self.aggregator.zero(self.trainer.layout.total), 0, ""
        for client in clients:
            part, failed, text = self._fold(instruction, [client])
            fold, failures, first = self.aggregator.merge(fold, part), failures + failed, first or text
        return fold, failures, first

    def _train(self, instruction: TrainInstruction, clients: Sequence[int]) -> Fold:
        # Computed here from what arrived, never taken from the message: one stream meets one input.
        digest = input_digest(instruction.parameters, self.plan)

        def stream(purpose: str, client: int) -> Stream:
            identity = StreamId(purpose=purpose, client=client, round=instruction.round, digest=digest)
            return Stream(self.key, identity)

        jobs = [
            ClientJob(
                client=client,
                records=self.records[client],
                batches=stream("batches", client),
                noise=stream("record noise", client),
            )
            for client in clients
        ]
        trained = self.trainer.train(instruction.parameters, jobs)
        updates = Updates(
            clients=np.array(clients, np.int64),
            rows=trained.astype(np.float64) - instruction.parameters.astype(np.float64),
            examples=np.array([len(job.records) for job in jobs], np.float64),
        )
        return self.aggregator.add(self.aggregator.zero(self.trainer.layout.total), updates)


def make_client_app(runtime: Callable[[Context], ClientRuntime]) -> ClientApp:
    """The same training as an ordinary Flower ClientApp, for any runtime that Flower offers."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return runtime(context).train(message, context)

    return app
