"""What a trainer is: many clients' local DP-SGD from one set of parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsafe.params import Layout, Vector
from fedsafe.privacy.sampling import poisson_batches
from fedsafe.rng import Stream


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """How every client trains.

    Args:
        learning_rate: Of plain SGD.
        steps: Steps in a round.
        rate: Poisson rate of records in a step.
        clip: Bound on one example's gradient; infinity removes it.
        noise: Noise multiplier; the noise on a step's sum has standard deviation ``noise * clip``.
        proximal: Pull of each step towards the broadcast parameters, mu of FedProx (Li et al. 2020): its gradient
            ``mu * (w - w_broadcast)`` joins the step after clipping and noise, so it costs no privacy.
    """

    learning_rate: float
    steps: int
    rate: float
    clip: float
    noise: float
    proximal: float = 0.0

    def step_size(self, records: int) -> float:
        """Learning rate over the public divisor, the expected batch (at least one record)."""
        return self.learning_rate / max(1.0, self.rate * records)


@dataclass(frozen=True, kw_only=True)
class ClientJob:
    """One client's part in one round.

    Args:
        client: The client's number.
        records: ``(n_k,)`` rows of the data that are this client's.
        batches: Stream of its Poisson batches.
        noise: Stream of its noise.
        correction: ``(parameters,)`` added to the gradient of each step after noise and divisor: SCAFFOLD's
            ``c - c_k`` (Karimireddy et al. 2020), made of released values only. None for none.
    """

    client: int
    records: NDArray[np.int64]
    batches: Stream
    noise: Stream
    correction: NDArray[np.float32] | None = None

    def sample(self, training: LocalTraining) -> list[NDArray[np.int64]]:
        """The rows of each step's batch, ``steps`` arrays."""
        chosen = poisson_batches(self.batches, len(self.records), training.rate, training.steps)
        return [self.records[mask] for mask in chosen]


class Trainer(Protocol):
    """Trains clients.

    Guarantees:
        A client's result depends on the broadcast parameters and its own job alone: not on which other clients
        are in the call, nor on their order, to the last bit.
    """

    name: str
    layout: Layout

    def train(self, parameters: Vector, jobs: Sequence[ClientJob]) -> NDArray[np.float32]:
        """``(len(jobs), parameters)``: each client's parameters after its local steps."""
        ...
