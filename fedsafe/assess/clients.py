"""What a simulation knows of its clients, and no real server does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsafe.client import LocalTraining, Objective
from fedsafe.data import ClientRows, Examples
from fedsafe.errors import DataError
from fedsafe.params import Vector

Indices = NDArray[np.int64]

SIMULATORS_VIEW = "the simulator's view of private records: without noise, charged to no budget, not released"
"""What a finding says that touched records which a real server never sees."""


@dataclass(frozen=True, kw_only=True)
class ClientRecords:
    """Records, and which of them each client holds.

    Attributes:
        examples: The records of all clients, and perhaps others.
        rows: Rows of `examples`, one array for each client; one may be empty, and none is held twice.

    Raises:
        DataError: There is no client, or a row is not there.
    """

    examples: Examples
    rows: Sequence[Indices]

    def __post_init__(self) -> None:
        if not len(self.rows):
            raise DataError("records of clients need at least one client")
        last = ClientRows.of(self.rows).last
        if last >= len(self.examples):
            raise DataError(f"a client holds record {last}, but there are {len(self.examples)}")

    def __len__(self) -> int:
        """Number of clients, those without records counted."""
        return len(self.rows)

    @property
    def held(self) -> Indices:
        """Rows that a client holds, client by client."""
        return ClientRows.of(self.rows).together


class Again(Protocol):
    """Trains a federation anew where clients have other targets: same plan, rule and optimiser."""

    def __call__(self, targets: Sequence[NDArray[np.int64]], rounds: int, key: bytes) -> list[Vector]:
        """The model after so many rounds for each choice of targets, with the same cohorts, batches and start.

        Args:
            targets: Each ``(n,)``, of all training records.
            rounds: How many.
            key: Of cohorts, batches and noise; never the run's.
        """


@dataclass(frozen=True, kw_only=True)
class Federation:
    """How the clients of a run train, for training some of them again.

    Attributes:
        training: Steps, rate, learning rate, clip and noise of a client's part in one round.
        trainer: Name of the trainer, see `fedsafe.client.build_trainer`.
        objective: Gives one loss per example.
        initial: ``(parameters,)`` the model before round 1.
        participations: In how many rounds a client takes part, expected by the plan up to this round; from 1.
        delta: Of the record-level claim; None where there is none.
        own: What each client judges models on: records of its own that it does not train on. The clients are in
            the order of the subject's training records. None where there are none.
        broadcast: ``(parameters,)`` each, models that were broadcast after the first round's and before the judged one,
            oldest first; empty where they are not at hand.
        local: Names of the parameters, or of modules, that stay with each client, which finds them from its records;
            see `fedsafe.alignment.rewards.reconstruct`.
        again: Trains the whole federation anew, by its own rule; None where that cannot be done here.

    Raises:
        DataError: A client takes part in no round.
    """

    training: LocalTraining
    trainer: str
    objective: Objective
    initial: Vector
    participations: int
    delta: float | None = None
    own: ClientRecords | None = None
    broadcast: tuple[Vector, ...] = ()
    local: tuple[str, ...] = ()
    again: Again | None = None

    def __post_init__(self) -> None:
        if self.participations < 1:
            raise DataError(f"a client takes part in {self.participations} rounds; count from 1")
