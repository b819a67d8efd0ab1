"""Trains many clients at once: equal capacities are stacked, and every client keeps its own noise."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsafe.client.batches import Batch, chosen, moved
from fedsafe.client.objectives import Objective
from fedsafe.client.optimizers import Rows
from fedsafe.client.stacked.alignment import aligned_rows, keep_freed_memory
from fedsafe.client.stacked.engine import clipped_sum, plain_sum
from fedsafe.client.stacked.model import StackedModel, layout_of, measure
from fedsafe.client.stacked.packing import Packed, Part, pack, room_of
from fedsafe.client.trainer import ClientJob, LocalTraining
from fedsafe.params import Vector
from fedsafe.rng import normal_rows


class StackedTrainer:
    """The :class:`~fedsafe.client.trainer.Trainer` for modules that can be stacked.

    Args:
        module: The model.
        objective: Gives one loss per example.
        data: The records of all clients, a tree of tensors ``(records, ...)``; a job names its rows.
        training: How every client trains, unless its job says otherwise.
        device: Where it trains. Noise is made on the processor, whatever the device.
        precision: Of the forward and backward passes, such as ``torch.bfloat16``; clipping, noise and steps stay in
            the parameters' own. None for the same. With another one each client trains alone.
        stack: How many clients share a stack at most; by default as many as fit the cache. It changes no result.
    """

    name = "stacked"

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        data: Batch,
        training: LocalTraining,
        *,
        device: torch.device | str = "cpu",
        precision: torch.dtype | None = None,
        stack: int | None = None,
    ) -> None:
        keep_freed_memory()
        self.layout = layout_of(module)
        self._device = torch.device(device)
        self._module = module
        self._objective = objective
        self._data = moved(data, self._device)
        self._training = training
        self._precision = precision
        self._shape = measure(module, objective, chosen(data, slice(2)))
        self._room = room_of(self._device)
        self._stack = stack

    def train(self, parameters: Vector, jobs: Sequence[ClientJob]) -> NDArray[np.float32]:
        """``(len(jobs), parameters)``: each client's parameters after its local steps."""
        trained = np.empty((len(jobs), self.layout.total), np.float32)
        models: dict[int, StackedModel] = {}
        # Products in half precision give a client other bits when there are more clients beside it.
        alone = self._precision is not None
        stacks = pack(jobs, self._training, self._shape.values, self._room, self._stack, alone=alone)
        for packed in stacks:
            model = models.get(packed.size)
            if model is None:
                shape = (packed.size, self.layout.total)
                weights = aligned_rows(*shape, self._shape.dtype, self._device)
                model = self._shape.stack(self._module, weights, precision=self._precision)
                models[packed.size] = model
            self._train_stack(model, parameters, [jobs[position] for position in packed.positions], packed)
            rows = model.parameters[: len(packed.positions)]
            trained[packed.positions] = rows.float().cpu().numpy()
        return trained

    @torch.no_grad()
    def _train_stack(
        self, model: StackedModel, parameters: Vector, jobs: Sequence[ClientJob], packed: Packed
    ) -> None:
        own = len(jobs)
        jobs = [*jobs, *[jobs[0]] * (packed.size - own)]  # what is computed and thrown away
        ways = [job.training or self._training for job in jobs]
        _load_starts(model.parameters, parameters, jobs)
        start = model.parameters.clone() if ways[0].proximal > 0.0 else None
        optimizer = None if ways[0].optimizer.plain else Rows([w.optimizer for w in ways], model.parameters)
        clip = self._clip_of(ways)
        scales = _column([way.noise * way.clip for way in ways], model.parameters) if ways[0].noise else None
        corrections = self._corrections(jobs[:own])
        divisors = [way.divisor(len(job.records)) for way, job in zip(ways, jobs, strict=True)]
        for step, parts in enumerate(packed.steps):
            change = self._sum(model, parts[0], clip)
            if len(parts) > 1:
                # In double precision: what is rounded is the noised sum.
                change = change.double()
            for part in parts[1:]:
                change.add_(self._sum(model, part, clip))
            if scales is not None:
                # Two operations: a fused one rounds differently at the end of a vector register.
                noise = torch.from_numpy(normal_rows([job.noise for job in jobs[:own]], self.layout.total))
                change[:own].add_(noise.to(self._device).mul_(scales[:own]))
            # What follows is no function of the records but through what is private already.
            rates = _rates(ways, jobs, step)
            if optimizer is None:
                change.mul_(_column([r / d for r, d in zip(rates, divisors, strict=True)], model.parameters))
            else:
                change = change.to(model.parameters.dtype).mul_(_column([1.0 / d for d in divisors], change))
                rates, steps = [1.0] * len(rates), _column(rates, model.parameters)
            if start is not None:
                pulls = [r * way.proximal for r, way in zip(rates, ways, strict=True)]
                change.add_((model.parameters - start).mul_(_column(pulls, model.parameters)))
            for row, correction in corrections:
                change[row].add_(correction.mul(rates[row]))
            if optimizer is not None:
                change = optimizer.change(model.parameters, change, steps)
            model.parameters.sub_(change)

    def _sum(self, model: StackedModel, part: Part, clip: float | Tensor) -> Tensor:
        rows, mask = (torch.from_numpy(array).to(self._device) for array in part)
        batch = chosen(self._data, rows.flatten())
        if not isinstance(clip, Tensor) and clip == math.inf:
            return plain_sum(model, self._objective, batch, mask)
        return clipped_sum(model, self._objective, batch, mask, clip)[0]

    def _clip_of(self, ways: Sequence[LocalTraining]) -> float | Tensor:
        clips = [way.clip for way in ways]
        if len(set(clips)) == 1:
            return clips[0]
        return torch.tensor(clips, dtype=torch.float64, device=self._device).unsqueeze(1)

    def _corrections(self, jobs: Sequence[ClientJob]) -> list[tuple[int, Tensor]]:
        """The rows that have a correction, and it."""
        return [
            (row, _tensor(job.correction, self._shape.dtype, self._device))
            for row, job in enumerate(jobs)
            if job.correction is not None
        ]


def _rates(ways: Sequence[LocalTraining], jobs: Sequence[ClientJob], step: int) -> list[float]:
    """Each row's learning rate in this step; most rows have the same."""
    known: dict[tuple[int, int], float] = {}
    rates = []
    for way, job in zip(ways, jobs, strict=True):
        key = (id(way), job.round)
        if key not in known:
            known[key] = way.learning_rate_at(job.round, step)
        rates.append(known[key])
    return rates


def _load_starts(rows: Tensor, broadcast: Vector, jobs: Sequence[ClientJob]) -> None:
    rows[:] = _tensor(broadcast, rows.dtype, rows.device)
    for row, job in enumerate(jobs):
        if job.start is not None:
            rows[row] = _tensor(job.start, rows.dtype, rows.device)


def _tensor(vector: Vector, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(vector)).to(device, dtype)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return like.new_tensor(values).unsqueeze(1)
