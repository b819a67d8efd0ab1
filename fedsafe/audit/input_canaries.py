"""Records with a wrong label: what an adversary can do who inserts records, and has no gradient of its choice.

The adversary knows the other records and which of them were in each batch, as whoever differential privacy holds
against may: a canary's own draws are independent of theirs. It trains each client again without canaries and without
noise, and looks for the canaries' gradients in what is left of the upload.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsafe.audit.record_canaries import RecordCanaries, Sees, WithCells, canary_objective
from fedsafe.audit.setting import Setting, build_audited_trainer
from fedsafe.client import ClientJob, Trainer
from fedsafe.client.batches import chosen
from fedsafe.client.functional_trainer import FunctionalTrainer
from fedsafe.client.one_by_one import OneByOneTrainer
from fedsafe.params import Layout, Vector

# Gradients of one client's canaries are alike: what they share is told apart as far as noise allows.
_RIDGE = 0.1


class InputCanaries(RecordCanaries):
    """Mislabelled records."""

    def _made(self, setting: Setting, x: Tensor, rng: np.random.Generator) -> tuple[Tensor, ...]:
        chosen = [rng.choice(setting.records[int(client)]) for client in self._holder]
        templates = torch.from_numpy(np.array(chosen, np.int64))
        targets = setting.y[templates]
        if setting.classes:
            shift = rng.integers(1, max(2, setting.classes), tuple(targets.shape))
            targets = (targets + torch.from_numpy(shift)) % setting.classes
        else:
            targets = torch.where(targets > 0, -1.0, 1.0).to(targets.dtype)
        self._gradients = _gradients_of(setting, (x[templates], targets))
        nothing = torch.zeros(len(templates))
        counts = torch.from_numpy(self.included.astype(np.float32))
        return x[templates], targets, counts, nothing.long(), nothing

    def _trainer(self, setting: Setting, model: WithCells, data: tuple[Tensor, ...]) -> Trainer:
        x, y, counts, cell, pull = data
        objective = canary_objective(setting.objective, setting.module)
        natural = counts.clone()
        natural[len(setting.y) :] = 0.0
        silent = replace(setting, training=replace(setting.training, noise=0.0))
        return _TrainerBesideAnother(
            build_audited_trainer(setting, model, objective, data),
            build_audited_trainer(silent, model, objective, (x, y, natural, cell, pull)),
            self._sees,
        )

    def _sees(self, start: Vector, job: ClientJob, trained: Vector) -> None:
        """How much of each canary's gradient is in what canaries and noise did to an upload.

        Args:
            start: Where the client started.
            job: Of the client.
            trained: What is left of its upload.
        """
        if job.client >= len(self._mine):
            return
        mine = self._mine[job.client]
        own = self._gradients.layout.total
        directions = self._gradients.gradients(
            torch.from_numpy(start[:own].copy()).to(self._gradients.device),
            chosen(self._gradients.data, torch.from_numpy(mine).to(self._gradients.device)),
        )[0]
        rows: NDArray[np.float64] = torch.nan_to_num(directions).double().cpu().numpy()
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        alike = rows @ rows.T + _RIDGE * np.eye(len(rows))
        self.scores[mine] -= np.linalg.solve(alike, rows @ trained[:own].astype(np.float64))


class _TrainerBesideAnother:
    """Trains each client twice on the same batches, and shows by how much the results differ.

    Args:
        inner: Trains what is uploaded.
        reference: Trains without canaries and noise.
        sees: Is given the start, the job and the difference of each client.
    """

    layout: Layout

    def __init__(self, inner: Trainer, reference: Trainer, sees: Sees) -> None:
        self.name, self.layout = inner.name, inner.layout
        self._inner, self._reference, self._sees = inner, reference, sees

    def train(self, parameters: Vector, jobs: Sequence[ClientJob]) -> NDArray[np.float32]:
        """See :class:`~fedsafe.client.trainer.Trainer`."""
        # Copied before anything is drawn: the same batches, and noise that nobody adds.
        again = [replace(job, batches=copy.copy(job.batches), noise=copy.copy(job.noise)) for job in jobs]
        trained = self._inner.train(parameters, jobs)
        expected = self._reference.train(parameters, again)
        for job, row, other in zip(jobs, trained, expected, strict=True):
            self._sees(parameters if job.start is None else job.start, job, row - other)
        return trained


def _gradients_of(setting: Setting, data: tuple[Tensor, Tensor]) -> OneByOneTrainer:
    """What gives the gradient of each canary."""
    module, _ = setting.with_features()
    if setting.trainer != "opacus":
        return FunctionalTrainer(module, setting.objective, data, setting.training, device=setting.device)
    # Opacus costs a second to import, and few models need it.
    from fedsafe.client.opacus_trainer import OpacusTrainer

    return OpacusTrainer(module, setting.objective, data, setting.training, device=setting.device)
