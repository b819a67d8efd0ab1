"""One client at a time with Opacus's per-example gradients: the oracle, and the way for modules without rules.

Sampling, clipping, noise and divisor are ours and come from the same streams, so this trainer and the stacked one
agree up to rounding.
"""

import copy
import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule
from opacus.layers import DPLSTM
from torch import Tensor, nn

from fedsafe.client.objectives import Objective
from fedsafe.client.stacked.model import layout_of
from fedsafe.client.trainer import ClientJob, LocalTraining
from fedsafe.errors import ModelError
from fedsafe.params import Vector
from fedsafe.privacy.clipping import MARGIN
from fedsafe.rng import normal_rows


class OpacusTrainer:
    """The :class:`~fedsafe.client.trainer.Trainer` for any module that Opacus can differentiate per example.

    Args:
        module: The model.
        objective: Gives one loss per example.
        x: ``(records, ...)`` inputs of all clients; a job names its rows.
        y: ``(records, ...)`` targets.
        training: How every client trains.

    Raises:
        ModelError: Opacus cannot take the module either.
    """

    name = "opacus"

    def __init__(
        self, module: nn.Module, objective: Objective, x: Tensor, y: Tensor, training: LocalTraining
    ) -> None:
        self.layout = layout_of(module)
        try:
            with torch.random.fork_rng(devices=[]):  # Opacus's layers draw weights, which are replaced
                model = _with_open_recurrences(copy.deepcopy(module))
            self._model = GradSampleModule(model, loss_reduction="sum", strict=True)
        except (NotImplementedError, ValueError) as error:
            raise ModelError(f"the model cannot be trained privately: {error}") from error
        self._model.train()
        named = dict(model.named_parameters())
        self._trainable = [named[name] for name in self.layout.names]
        self._objective = objective
        self._x, self._y = x, y
        self._training = training

    def train(self, parameters: Vector, jobs: Sequence[ClientJob]) -> NDArray[np.float32]:
        """``(len(jobs), parameters)``: each client's parameters after its local steps."""
        trained = np.empty((len(jobs), self.layout.total), np.float32)
        for row, job in enumerate(jobs):
            trained[row] = self._train_one(parameters, job)
        return trained

    def _train_one(self, parameters: Vector, job: ClientJob) -> NDArray[np.float32]:
        training = self._training
        size = training.step_size(len(job.records))
        start = torch.from_numpy(parameters.copy()).to(self._trainable[0].dtype)
        vector = start.clone()
        correction = None if job.correction is None else torch.from_numpy(job.correction.copy())
        for batch in job.sample(training):
            total = self.clipped_sum(vector, torch.from_numpy(batch))
            if training.noise > 0.0:
                noise = torch.from_numpy(normal_rows([job.noise], self.layout.total)[0])
                total.add_(noise, alpha=training.noise * training.clip)
            total.mul_(size)
            if training.proximal > 0.0:
                total.add_(vector - start, alpha=training.learning_rate * training.proximal)
            if correction is not None:
                total.add_(correction, alpha=training.learning_rate)
            vector.sub_(total)
        return vector.float().numpy()

    def clipped_sum(self, vector: Tensor, rows: Tensor) -> Tensor:
        """``(parameters,)`` sum of clipped per-example gradients at ``vector`` over the records ``rows``."""
        if not len(rows):
            return torch.zeros_like(vector)
        nn.utils.vector_to_parameters(vector, self._trainable)
        self._model.zero_grad(set_to_none=True)
        losses = self._objective(self._model, self._x[rows], self._y[rows])
        with warnings.catch_warnings():
            # Inputs need no gradient, and Opacus's hooks do without one.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            losses.sum().backward()  # type: ignore[no-untyped-call]
        samples = [p.grad_sample if hasattr(p, "grad_sample") else None for p in self._trainable]
        wrong = [tuple(g.shape) for g in samples if g is not None and g.shape[0] != len(rows)]
        if wrong:
            raise ModelError(
                f"a layer saw {wrong[0][0]} examples in a batch of {len(rows)}, so the gradient of one record is not "
                "known: keep the first dimension of every input as it is"
            )
        gradients = torch.cat(
            [
                vector.new_zeros(len(rows), p.numel()) if g is None else g.flatten(1)
                for p, g in zip(self._trainable, samples, strict=True)
            ],
            dim=1,
        )
        norms = torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64)
        keep = torch.isfinite(norms) & torch.isfinite(losses.detach())
        clip = self._training.clip * MARGIN
        factors = (clip / norms).clamp(max=1.0) if math.isfinite(clip) else torch.ones_like(norms)
        keep = keep & (factors >= torch.finfo(vector.dtype).tiny)
        factors = torch.where(keep, factors, 0.0).to(vector.dtype)
        return torch.where(keep[:, None], gradients * factors[:, None], 0.0).sum(0)


def _with_open_recurrences(module: nn.Module) -> nn.Module:
    """The same module with every ``nn.LSTM`` in Opacus's form, which has the same parameters and names."""
    if type(module) is nn.LSTM:
        opened = DPLSTM(
            module.input_size,
            module.hidden_size,
            module.num_layers,
            bias=module.bias,
            batch_first=module.batch_first,
            dropout=module.dropout,
            bidirectional=module.bidirectional,
            proj_size=module.proj_size,
        )
        opened.load_state_dict(module.state_dict())
        return opened.to(module.weight_ih_l0.dtype)  # type: ignore[no-any-return]
    for name, child in list(module.named_children()):
        setattr(module, name, _with_open_recurrences(child))
    return module
