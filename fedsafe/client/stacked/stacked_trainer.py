"""Trains many clients at once: equal capacities are stacked, and every client keeps its own noise."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsafe.client.objectives import Objective
from fedsafe.client.stacked.alignment import aligned_rows
from fedsafe.client.stacked.engine import clipped_sum
from fedsafe.client.stacked.model import StackedModel, layout_of, measure
from fedsafe.client.stacked.packing import Packed, Part, pack
from fedsafe.client.trainer import ClientJob, LocalTraining
from fedsafe.params import Vector
from fedsafe.rng import normal_rows


class StackedTrainer:
    """The :class:`~fedsafe.client.trainer.Trainer` for modules whose layers all have a stacked rule.

    Args:
        module: The model.
        objective: Gives one loss per example.
        x: ``(records, ...)`` inputs of all clients; a job names its rows.
        y: ``(records, ...)`` targets.
        training: How every client trains.
    """

    name = "stacked"

    def __init__(
        self, module: nn.Module, objective: Objective, x: Tensor, y: Tensor, training: LocalTraining
    ) -> None:
        self.layout = layout_of(module)
        self._module = module
        self._objective = objective
        self._x, self._y = x, y
        self._training = training
        self._shape = measure(module, objective, x, y)

    def train(self, parameters: Vector, jobs: Sequence[ClientJob]) -> NDArray[np.float32]:
        """``(len(jobs), parameters)``: each client's parameters after its local steps."""
        trained = np.empty((len(jobs), self.layout.total), np.float32)
        start = torch.from_numpy(np.array(parameters)).to(self._shape.dtype)
        models: dict[int, StackedModel] = {}
        for packed in pack(jobs, self._training, self._shape.values):
            model = models.get(packed.size)
            if model is None:
                weights = aligned_rows(packed.size, len(start), start.dtype)
                model = StackedModel(self._module, weights, channels_last=self._shape.channels_last)
                models[packed.size] = model
            self._train_stack(model, start, [jobs[position] for position in packed.positions], packed)
            trained[packed.positions] = model.parameters[: len(packed.positions)].float().numpy()
        return trained

    @torch.no_grad()
    def _train_stack(
        self, model: StackedModel, start: Tensor, jobs: Sequence[ClientJob], packed: Packed
    ) -> None:
        training = self._training
        model.parameters[:] = start
        sizes = [training.step_size(len(job.records)) for job in jobs]
        sizes += sizes[:1] * (packed.size - len(jobs))
        scale = start.new_tensor(sizes).unsqueeze(1)
        streams = [job.noise for job in jobs]
        corrections = _corrections(jobs, start)
        for parts in packed.steps:
            change = self._sum(model, parts[0])
            if len(parts) > 1:
                # In double precision: what is rounded is the noised sum.
                change = change.double()
            for part in parts[1:]:
                change.add_(self._sum(model, part))
            if training.noise > 0.0:
                # Two operations: a fused one rounds differently at the end of a vector register.
                noise = torch.from_numpy(normal_rows(streams, self.layout.total))
                change[: len(jobs)].add_(noise.mul_(training.noise * training.clip))
            change.mul_(scale)
            # What follows is no function of the records but through what is private already.
            if training.proximal > 0.0:
                change.add_((model.parameters - start).mul_(training.learning_rate * training.proximal))
            for row, correction in corrections:
                change[row].add_(correction.mul(training.learning_rate))
            model.parameters.sub_(change)

    def _sum(self, model: StackedModel, part: Part) -> Tensor:
        rows, mask = (torch.from_numpy(array) for array in part)
        flat = rows.flatten()
        return clipped_sum(model, self._objective, self._x[flat], self._y[flat], mask, self._training.clip)[0]


def _corrections(jobs: Iterable[ClientJob], start: Tensor) -> list[tuple[int, Tensor]]:
    """The rows that have a correction, and it."""
    return [
        (row, torch.from_numpy(np.array(job.correction)).to(start.dtype))
        for row, job in enumerate(jobs)
        if job.correction is not None
    ]
