"""Trains many clients at once: equal capacities are stacked, and every client keeps its own noise."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsafe.client.objectives import Objective
from fedsafe.client.stacked.engine import clipped_sum
from fedsafe.client.stacked.model import StackedModel, aligned_rows, layout_of
from fedsafe.client.trainer import ClientJob, LocalTraining
from fedsafe.params import Vector
from fedsafe.privacy.sampling import batch_capacity
from fedsafe.rng import normal_rows


class StackedTrainer:
    """The :class:`~fedsafe.client.trainer.Trainer` for modules whose layers all have a stacked rule.

    Args:
        module: The model.
        objective: Gives one loss per example.
        x: ``(records, ...)`` inputs of all clients; a job names its rows.
        y: ``(records,)`` labels.
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

    def train(self, parameters: Vector, jobs: Sequence[ClientJob]) -> NDArray[np.float32]:
        """``(len(jobs), parameters)``: each client's parameters after its local steps."""
        training = self._training
        batches = [job.sample(training) for job in jobs]
        capacities: dict[int, list[int]] = {}
        for position, (job, steps) in enumerate(zip(jobs, batches, strict=True)):
            largest = max((len(step) for step in steps), default=0)
            capacity = batch_capacity(len(job.records), training.rate, largest)
            capacities.setdefault(capacity, []).append(position)
        trained = np.empty((len(jobs), self.layout.total), np.float32)
        start = torch.from_numpy(np.ascontiguousarray(parameters)).to(self._x.dtype)
        for capacity, positions in capacities.items():
            stack = [jobs[position] for position in positions]
            rows, mask = _pad([batches[position] for position in positions], stack, capacity)
            trained[positions] = self._train_stack(start, stack, rows, mask).float().numpy()
        return trained

    @torch.no_grad()
    def _train_stack(self, start: Tensor, jobs: Sequence[ClientJob], rows: Tensor, mask: Tensor) -> Tensor:
        """Clients of equal capacity; ``rows`` and ``mask`` are ``(steps, stack, capacity)``."""
        training = self._training
        stacked = rows.shape[1]
        parameters = aligned_rows(stacked, len(start), start.dtype)
        parameters[:] = start
        model = StackedModel(self._module, parameters)
        sizes = [training.step_size(len(job.records)) for job in jobs]
        sizes += sizes[:1] * (stacked - len(jobs))
        scale = start.new_tensor(sizes).unsqueeze(1)
        streams = [job.noise for job in jobs]
        for step_rows, step_mask in zip(rows, mask, strict=True):
            flat = step_rows.flatten()
            x, y = self._x[flat], self._y[flat]
            sums, _ = clipped_sum(model, self._objective, x, y, step_mask, training.clip)
            if training.noise > 0.0:
                # Two operations: a fused one rounds differently at the end of a vector register.
                noise = torch.from_numpy(normal_rows(streams, self.layout.total))
                sums[: len(jobs)].add_(noise.mul_(training.noise * training.clip))
            model.parameters.sub_(sums.mul_(scale))
        return model.parameters[: len(jobs)]


# Elementwise kernels treat 32 values at a time and finish the rest one by one, where exp and log have other bits.
_KERNEL_WIDTH = 32


def _stack_size(clients: int, capacity: int) -> int:
    """How many rows of clients to stack, so that no client's bits depend on how many there are.

    A multiple of the kernels' width leaves no remainder to treat differently; and a matrix product over one stack
    takes another kernel than over several.
    """
    multiple = _KERNEL_WIDTH // math.gcd(capacity, _KERNEL_WIDTH)
    return max(2, multiple * math.ceil(clients / multiple))


def _pad(
    batches: list[list[NDArray[np.int64]]], jobs: Sequence[ClientJob], capacity: int
) -> tuple[Tensor, Tensor]:
    """Rows and masks ``(steps, stack, capacity)``; padding repeats a client's own first record, unused."""
    steps, stacked = len(batches[0]), _stack_size(len(jobs), capacity)
    rows = np.empty((steps, stacked, capacity), np.int64)
    mask = np.zeros((steps, stacked, capacity), bool)
    for position in range(stacked):
        rows[:, position] = jobs[min(position, len(jobs) - 1)].records[0]
    for position, client in enumerate(batches):
        for step, batch in enumerate(client):
            rows[step, position, : len(batch)] = batch
            mask[step, position, : len(batch)] = True
    return torch.from_numpy(rows), torch.from_numpy(mask)
