"""What a finished round leaves behind."""

from dataclasses import dataclass
from typing import ClassVar

from fedsafe.aggregation import OptimizerState, State
from fedsafe.errors import EngineError
from fedsafe.params import Vector
from fedsafe.privacy.chain import Head


@dataclass(frozen=True)
class RoundCost:
    """What a round took.

    Args:
        cpu_seconds: Processor time of all clients' training.
        failures: Clients that failed, refused or did not reply.
        aborted: Why a secure sum was not unmasked; None where it was, or where there is none.
        refused: What a secure sum has not taken, and of whom.
    """

    cpu_seconds: float
    failures: int
    aborted: str | None
    refused: tuple[str, ...] = ()


@dataclass
class Tries:
    """Rounds in a row that had no sum: after three, a run is not expected to get one."""

    in_vain: int = 0
    most: ClassVar[int] = 3

    def after(self, round: int, cost: RoundCost) -> None:
        """Count a round.

        Raises:
            EngineError: So many in a row were ended without a sum.
        """
        self.in_vain = 0 if cost.aborted is None else self.in_vain + 1
        if self.in_vain == self.most:
            raise EngineError(
                f"{self.most} rounds in a row were ended without a sum, and the model stays as it is; round {round}: "
                f"{cost.aborted}; see to it, and resume the run"
            )


@dataclass(frozen=True, kw_only=True)
class RoundOutcome:
    """What a finished round leaves behind.

    Args:
        round: The round, from 1.
        parameters: The new global model.
        optimizer_state: The server optimiser's state.
        aggregator_state: What the aggregator remembers, if it is one that does. It reveals cohorts: private.
        head: The ledger after the round.
        cpu_seconds: Processor time of all clients' training. It varies with the cohort: private.
        seconds: Wall time from sampling the cohort to the new model. Private for the same reason.
        failures: Clients that failed or did not reply, and counted as zero. Private too.
        evaluation: Mean score of the new model on the clients' validation records, where the plan has an evaluation
            after this round. It is an estimate: its noise can carry it outside of [0, 1].
        stopped: Why the rounds that are planned after this one are left out; None where they are not.
        aborted: Why the round's secure sum was not unmasked, and the model stayed as it was. What it says of clients
            is private, that it happened is not.
        refused: What the round's secure sum has not taken, and of which clients: private.
    """

    round: int
    parameters: Vector
    optimizer_state: OptimizerState
    aggregator_state: State | None
    head: Head
    cpu_seconds: float
    seconds: float
    failures: int
    evaluation: float | None = None
    stopped: str | None = None
    aborted: str | None = None
    refused: tuple[str, ...] = ()
