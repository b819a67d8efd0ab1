"""Trains many clients at once: equal capacities are stacked, and every client keeps its own noise."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsafe.client.batches import Batch, chosen, moved
from fedsafe.client.objectives import Moment, Objective, Perturbing, draw_stacked, perturbations
from fedsafe.client.optimizers import Rows
from fedsafe.client.record_noise import grids_of, noised_on_grid, require_exact, to_record_grid
from fedsafe.client.stacked.alignment import aligned_rows, keep_freed_memory
from fedsafe.client.stacked.engine import clipped_sum, plain_sum
from fedsafe.client.stacked.model import StackedModel, layout_of, measure
from fedsafe.client.stacked.packing import Packed, Part, pack, room_of
from fedsafe.client.trainer import ClientJob, LocalTraining
from fedsafe.params import Vector
from fedsafe.rng import Stream, normal_rows


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
        for packed in self._stacks(jobs):
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

    def _stacks(self, jobs: Sequence[ClientJob]) -> Iterator[Packed]:
        """Stacks of clients whose noise is added in one arithmetic, and whose batches are drawn in one way."""
        alike: dict[tuple[bool, int | None, int], list[int]] = {}
        for position, job in enumerate(jobs):
            way = job.training or self._training
            if way.on_grid:
                require_exact(way, len(job.records), self.layout.total)
            alike.setdefault((way.on_grid, way.batch_size, way.steps), []).append(position)
        for (_, size, _), positions in alike.items():
            own = [jobs[position] for position in positions]
            for packed in self._packed(own) if size is None else self._packed_by_step(own):
                yield replace(packed, positions=[positions[place] for place in packed.positions])

    def _packed(self, jobs: Sequence[ClientJob]) -> Iterator[Packed]:
        # Products in half precision give a client other bits when there are more clients beside it.
        alone = self._precision is not None
        return pack(jobs, self._training, self._shape.values, self._room, self._stack, alone=alone)

    def _packed_by_step(self, jobs: Sequence[ClientJob]) -> Iterator[Packed]:
        """Batches of a fixed size, as many steps for each: what is drawn for a step is packed like a whole client."""
        ways = [job.training or self._training for job in jobs]
        drawn = [job.sample(way) for job, way in zip(jobs, ways, strict=True)]
        steps = []
        for batches in zip(*drawn, strict=True):
            whole = [
                replace(job, records=batch, training=replace(way, steps=1, rate=1.0, batch_size=None))
                for job, batch, way in zip(jobs, batches, ways, strict=True)
            ]
            steps.append(list(self._packed(whole)))
        # Every step has the same sizes, and so the same stacks.
        for stacks in zip(*steps, strict=True):
            yield replace(stacks[0], steps=[stack.steps[0] for stack in stacks])

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
        corrections = self._corrections(jobs[:own])
        divisors = [way.divisor(len(job.records)) for way, job in zip(ways, jobs, strict=True)]
        branches = [perturbations(job.batches) for job in jobs[:own]]
        for step, parts in enumerate(packed.steps):
            done = [way.progress(job.round, step) for way, job in zip(ways, jobs, strict=True)]
            change = self._sum(model, parts[0], clip, branches, done)
            if len(parts) > 1:
                # In double precision: what is rounded is the noised sum.
                change = change.double()
            for part in parts[1:]:
                change.add_(self._sum(model, part, clip, branches, done))
            if ways[0].noise:
                self._add_noise(change[:own], ways[:own], [job.noise for job in jobs[:own]])
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

    def _sum(
        self,
        model: StackedModel,
        part: Part,
        clip: float | Tensor,
        branches: Sequence[Stream],
        done: Sequence[float],
    ) -> Tensor:
        rows, mask = (torch.from_numpy(array).to(self._device) for array in part)
        batch = chosen(self._data, rows.flatten())
        if isinstance(self._objective, Perturbing):
            batch = self._perturbed(self._objective, model, batch, part[1], branches, done)
        if not isinstance(clip, Tensor) and clip == math.inf:
            return plain_sum(model, self._objective, batch, mask)
        return clipped_sum(model, self._objective, batch, mask, clip)[0]

    def _perturbed(
        self,
        objective: Perturbing,
        model: StackedModel,
        batch: Batch,
        mask: NDArray[np.bool_],
        branches: Sequence[Stream],
        done: Sequence[float],
    ) -> Batch:
        """The batch whose gradient is taken; what becomes of padding is dropped like all of it."""
        rows, counts = mask.shape[1], mask.sum(1).tolist()
        width = objective.width(batch)
        draws = torch.from_numpy(draw_stacked(branches, objective.law, counts, rows, width))
        progress = torch.tensor(done, dtype=torch.float64).repeat_interleave(rows)
        moment = Moment(draws=draws.to(self._device), progress=progress.to(self._device))
        return objective.perturbed(batch, moment, model)

    def _add_noise(self, sums: Tensor, ways: Sequence[LocalTraining], streams: Sequence[Stream]) -> None:
        if ways[0].on_grid:
            sums.copy_(noised_on_grid(to_record_grid(sums, grids_of(ways)), ways, streams))
            return
        # Two operations: a fused one rounds differently at the end of a vector register.
        noise = torch.from_numpy(normal_rows(streams, self.layout.total)).to(self._device)
        sums.add_(noise.mul_(_column([way.noise * way.clip for way in ways], noise)))

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
