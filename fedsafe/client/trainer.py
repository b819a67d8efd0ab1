"""What a trainer is: many clients' local DP-SGD from one set of parameters, or from one of each client's own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsafe.client.fixed_batches import fixed_batches
from fedsafe.client.optimizers import SGD, LocalOptimizer, Schedule
from fedsafe.params import Layout, Vector
from fedsafe.privacy.sampling import poisson_batches
from fedsafe.rng import Stream


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """How a client trains.

    Args:
        learning_rate: Of the optimiser, before its schedule.
        steps: Steps in a round.
        rate: Poisson rate of records in a step.
        clip: Bound on one example's gradient; infinity removes it.
        noise: Noise multiplier; the noise on a step's sum has standard deviation ``noise * clip``.
        proximal: Pull of each step towards the broadcast parameters, mu of FedProx (Li et al. 2020): its gradient
            ``mu * (w - w_broadcast)`` joins the step after clipping and noise, so it costs no privacy.
        optimizer: What a step does with the noised gradient. Its state starts from nothing in each round.
        schedule: Of the learning rate, over the steps of all rounds.
        rounds: How many rounds there are, for the schedule.
        grid_bits: The clipped sum and its noise are multiples of ``2^-grid_bits``, added exactly, as
            ``record_noise.py`` says; None adds noise in single precision. Without noise it changes nothing.
        batch_size: So many records without replacement in each step, in place of Poisson batches: the guarantee is then
            one under replace-one adjacency, and ``rate`` is not read (``fixed_batches.py``). None for Poisson.
    """

    learning_rate: float
    steps: int
    rate: float
    clip: float
    noise: float
    proximal: float = 0.0
    optimizer: LocalOptimizer = field(default_factory=SGD)
    schedule: Schedule = field(default_factory=Schedule)
    rounds: int = 1
    grid_bits: int | None = None
    batch_size: int | None = None

    @property
    def on_grid(self) -> bool:
        """Whether noise is added on a grid."""
        return self.grid_bits is not None and self.noise > 0.0

    def divisor(self, records: int) -> float:
        """The public divisor of a step's sum: the expected batch, at least one record."""
        return max(1.0, self.rate * records) if self.batch_size is None else float(self.batch_size)

    def learning_rate_at(self, round: int, step: int) -> float:
        """Learning rate of a step.

        Args:
            round: From 1.
            step: From 0, within the round.
        """
        return self.learning_rate * self.schedule.factor(
            self.progress(round, step), 1.0 / (self.rounds * self.steps)
        )

    def progress(self, round: int, step: int) -> float:
        """Which part of all local steps of the run is behind a step, in [0, 1).

        Args:
            round: From 1.
            step: From 0, within the round.
        """
        return ((round - 1) * self.steps + step) / (self.rounds * self.steps)


@dataclass(frozen=True, kw_only=True)
class ClientJob:
    """One client's part in one round.

    Args:
        client: The client's number.
        records: ``(n_k,)`` rows of the data that are this client's.
        batches: Stream of its batches.
        noise: Stream of its noise.
        round: The round, from 1.
        correction: ``(parameters,)`` added to the gradient of each step after noise and divisor: SCAFFOLD's
            ``c - c_k`` (Karimireddy et al. 2020), made of released values only. None for none.
        training: How this client trains, if not as the trainer's others do.
        start: ``(parameters,)`` where this client starts, if not from the broadcast parameters: another run's model,
            or one with parameters that stay at the client.
    """

    client: int
    records: NDArray[np.int64]
    batches: Stream
    noise: Stream
    round: int = 1
    correction: NDArray[np.float32] | None = None
    training: LocalTraining | None = None
    start: Vector | None = None

    def sample(self, training: LocalTraining) -> list[NDArray[np.int64]]:
        """The rows of each step's batch, ``steps`` arrays.

        Args:
            training: How this client trains.

        Raises:
            ConfigError: A batch of a fixed size would have more records than the client.
        """
        if training.batch_size is not None:
            rows = fixed_batches(self.batches, len(self.records), training.batch_size, training.steps)
            return list(self.records[rows])
        chosen = poisson_batches(self.batches, len(self.records), training.rate, training.steps)
        return [self.records[mask] for mask in chosen]


class Trainer(Protocol):
    """Trains clients.

    Guarantees:
        A client's result depends on its own job and, where it has no start of its own, on the broadcast parameters:
        not on which other clients are in the call, nor on their order, to the last bit.
    """

    name: str
    layout: Layout

    def train(self, parameters: Vector, jobs: Sequence[ClientJob]) -> NDArray[np.float32]:
        """``(len(jobs), parameters)``: each client's parameters after its local steps."""
        ...
