"""Parameters that stay with their client, found anew in each round (Singhal et al., 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from fedsafe.client.trainer import ClientJob, LocalTraining, Trainer
from fedsafe.errors import ModelError
from fedsafe.params import Layout, Vector

_BRANCH = "local parameters"


@final
@dataclass(frozen=True)
class LocalParameters:
    """Which parameters of a model are each client's own.

    Args:
        layout: Of the whole model.
        names: Names of parameters, or of modules that have them.

    Raises:
        ModelError: A name is none of the model's, or nothing is left to share.
    """

    layout: Layout
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in self.names:
            if not any(_covers(name, own) for own in self.layout.names):
                raise ModelError(f"no parameter is called {name!r}: there are {', '.join(self.layout.names)}")
        if self.mask.all():
            raise ModelError("every parameter would stay local, and clients would share nothing: name fewer")

    def has(self, parameter: str) -> bool:
        """Whether a parameter of that name stays local."""
        return any(_covers(name, parameter) for name in self.names)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """``(parameters,)``, True where a parameter is local."""
        return np.repeat([self.has(own) for own in self.layout.names], self.layout.sizes)


@final
class ReconstructingTrainer:
    """A :class:`~fedsafe.client.trainer.Trainer` of clients that each have parameters of their own.

    A client remembers nothing. In each round it starts from the broadcast, takes ``steps`` steps of which it keeps the
    local parameters alone, and then trains everything from the broadcast's shared parameters and its own local ones:
    federated reconstruction (Singhal et al., 2021).

    Guarantees:
        What comes back has the start's values at every local parameter, whatever was trained: an update is zero there.
        All steps clip and noise the whole gradient, so what comes back is the result of ``steps`` and then as many
        steps of DP-SGD as the training has: a plan that counts both together covers it. The two parts draw batches and
        noise from streams of their own. A client's bits depend on its job alone, as with the trainer inside.

    Args:
        trainer: Trains both parts.
        local: Which parameters stay local.
        steps: Steps of the first part.
        training: How every client trains, unless its job says otherwise; without ``steps``.
    """

    def __init__(
        self, trainer: Trainer, local: LocalParameters, *, steps: int, training: LocalTraining
    ) -> None:
        self.name, self.layout = trainer.name, trainer.layout
        self._trainer, self._steps, self._training = trainer, steps, training
        self._mask = local.mask

    def train(self, parameters: Vector, jobs: Sequence[ClientJob]) -> NDArray[np.float32]:
        """``(len(jobs), parameters)``: each client's parameters after its local steps, local ones as at the start."""
        starts = np.stack([parameters if job.start is None else job.start for job in jobs])
        found = starts.copy()
        if self._steps:
            first = [self._first(job) for job in jobs]
            found[:, self._mask] = self._trainer.train(parameters, first)[:, self._mask]
        second = [replace(job, start=start) for job, start in zip(jobs, found, strict=True)]
        trained = self._trainer.train(parameters, second)
        trained[:, self._mask] = starts[:, self._mask]
        return trained

    def _first(self, job: ClientJob) -> ClientJob:
        return replace(
            job,
            training=replace(job.training or self._training, steps=self._steps),
            batches=job.batches.branch(_BRANCH),
            noise=job.noise.branch(_BRANCH),
            correction=None,
        )


def _covers(name: str, parameter: str) -> bool:
    return parameter == name or parameter.startswith(f"{name}.")
