"""What every kind of canary has in common: a coin for each, and a score that grows where it seems to be in."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsafe.client import Trainer
from fedsafe.federation import RoundOutcome
from fedsafe.params import Vector
from fedsafe.privacy.audit import CosineEstimate
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream, StreamId

# A canary pulls this many clips: what clipping does to it is part of what is audited.
RAW = 100.0


@dataclass(frozen=True, kw_only=True)
class CosineFigures:
    """The cosine test of canary clients.

    Args:
        sum_of_rounds: Estimate from each direction's cosine with the sum of all rounds: neither bound.
        largest_of_rounds: Estimate from the largest cosine with any round, as in the paper: neither bound.
        bound: What the former cosines prove, if the canaries' cosines are independent.
    """

    sum_of_rounds: CosineEstimate
    largest_of_rounds: CosineEstimate
    bound: float


class Canaries(ABC):
    """Canaries in a run.

    A canary whose coin fell on tails is there as well, and does nothing: the numbers of records and of clients are
    public, and may not tell.

    Attributes:
        plan: The plan that the run follows: a canary's influence is bounded by the same mechanism.
        trainer: What trains clients, canaries included.
        initial: ``(parameters,)`` the model before round 1.
        records: Rows of each client.
        included: ``(canaries,)`` the coins. Nothing but the data, and the count of right guesses, may read them.
        scores: ``(canaries,)``, from what the adversary of the claim sees.
    """

    plan: PrivacyPlan
    trainer: Trainer
    initial: Vector
    records: list[NDArray[np.int64]]
    included: NDArray[np.bool_]
    scores: NDArray[np.float64]

    @abstractmethod
    def see(self, outcome: RoundOutcome) -> None:
        """What the adversary learns from a finished round."""

    def cosines(self, delta: float, confidence: float) -> CosineFigures | None:
        """What the cosine test says, for canaries that have directions.

        Args:
            delta: Of all figures.
            confidence: Of the bound among them.
        """
        return None


def coins(key: bytes, canaries: int) -> NDArray[np.bool_]:
    """``(canaries,)`` fair coins, from a stream of their own."""
    stream = Stream(key, StreamId(purpose="audit coins", client=-1, round=0, digest=b""))
    return stream.bernoulli(0.5, (canaries,))
