"""The clients of a planned run of FedSafe, as the checks talk to them: the real runtime and trainer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from flwr.app import Message
from numpy.typing import NDArray

from fedsafe.aggregation import Fold, Updates
from fedsafe.aggregation.base import Rule
from fedsafe.client import SGD, LocalTraining, Schedule, build_trainer, precompute
from fedsafe.engine.grid import SERVER_NODE, new_context
from fedsafe.federation import ClientRuntime
from fedsafe.federation.messages import TRAIN, instruction_content, pack_parameters, read_reply
from fedsafe.params import Vector
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream, new_key
from fedsafe.runs.client_config import local_training, objective_of
from fedsafe.runs.compose import Parts
from fedsafe.verify.loading import caught
from fedsafe.verify.messages import NodesOnly, numbers_in
from fedsafe.verify.node import Trained
from fedsafe.verify.records import Records

# More of them are trained as one chunk, as a simulation does.
_ALONE = 8


@dataclass(frozen=True, kw_only=True)
class _AsTrained(Rule):
    """Hands on each update as it is: record-level claims are about what leaves the client."""

    name: ClassVar[str] = "as_trained"

    @classmethod
    def from_plan(cls, plan: PrivacyPlan) -> "_AsTrained":
        return cls()

    def zero(self, parameters: int) -> Fold:
        return Fold(arrays={"rows": np.zeros((0, parameters))})

    def add(self, fold: Fold, updates: Updates) -> Fold:
        return Fold(arrays={"rows": np.concatenate([fold.arrays["rows"], updates.rows])})

    def merge(self, first: Fold, second: Fold) -> Fold:
        return Fold(arrays={"rows": np.concatenate([first.arrays["rows"], second.arrays["rows"]])})

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        rows: NDArray[np.float64] = fold.arrays["rows"].mean(axis=0)
        return rows


class PlanNode:
    """Clients who all hold the records that a check wants them to.

    The local optimiser is plain SGD here: whatever it does with noised gradients is post-processing.

    Args:
        parts: Of the experiment.
        plan: Calibrated.
    """

    steerable = True

    def __init__(self, parts: Parts, plan: PrivacyPlan) -> None:
        self._parts, self._plan, self._key = parts, plan, new_key()
        self.layout, self.initial = parts.layout, parts.initial
        few = torch.from_numpy(parts.task.train.x[:2].copy())
        # Fixed features are a public function: what is trained on is chosen behind them.
        self._objective = objective_of(parts.config.client, parts.task)
        self._module, x = precompute(parts.module, few, self._objective)
        self.inputs: tuple[int, ...] = tuple(x.shape[1:])
        self._targets = parts.task.train.y.dtype
        self._grid = NodesOnly(clients=1)

    @property
    def training(self) -> LocalTraining:
        """As planned, but for the optimiser."""
        config = self._parts.config
        planned = local_training(config.client, self._plan.record, config.rounds)
        return replace(planned, optimizer=SGD(), schedule=Schedule(), proximal=0.0)

    def restart(self) -> None:
        """Nothing but the key outlives a call anyway."""

    def train(
        self, clients: Sequence[int], round: int, model: Vector, records: Records, learning_rate: float
    ) -> list[Trained]:
        """A few one by one, as real clients; many as one chunk."""
        runtime = self._runtime(records, max(clients) + 1, learning_rate)
        messages = [self._message(client, round, model) for client in clients]
        contexts = [new_context(client + SERVER_NODE + 1, max(clients) + 1, {}, {}) for client in clients]
        if len(clients) <= _ALONE:
            pairs = zip(messages, contexts, strict=True)
            replies = [caught(lambda m=m, c=c: runtime.train(m, c)) for m, c in pairs]  # type: ignore[misc]
        else:
            replies = [caught(lambda: runtime.train_chunk(messages, contexts))]
        trained: list[Trained] = []
        for reply, error in replies:
            answer = None if error else read_reply(reply)
            if answer is None or answer.failures:
                said = error or (answer.error if answer is not None else "an error")
                trained.append(Trained(change=None, error=said))
                continue
            numbers: dict[str, Any] = numbers_in([reply.content]) if len(clients) <= _ALONE else {}
            trained += [Trained(change=row, numbers=numbers) for row in answer.fold.arrays["rows"]]
        return trained

    def _runtime(self, records: Records, clients: int, learning_rate: float) -> ClientRuntime:
        config = self._parts.config
        trainer = build_trainer(
            self._parts.trainer,
            self._module,
            self._objective,
            torch.from_numpy(records.x),
            torch.from_numpy(records.y.astype(self._targets)),
            replace(self.training, learning_rate=learning_rate),
            precision=torch.bfloat16 if config.client.precision == "bfloat16" else None,
        )
        return ClientRuntime(
            trainer=trainer,
            aggregator=_AsTrained(),
            records=[np.arange(len(records.x))] * clients,
            key=self._key,
            plan=self._plan.hash,
        )

    def _message(self, client: int, round: int, model: Vector) -> Message:
        content = instruction_content(pack_parameters(model, self.layout), round=round, plan=self._plan.hash)
        message = Message(
            content, dst_node_id=client + SERVER_NODE + 1, message_type=TRAIN, group_id=str(round)
        )
        message.metadata.__dict__["_message_id"] = f"{round}-{client}"
        return message
