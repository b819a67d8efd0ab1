"""Trainers that take one client at a time and write out every example's gradient: oracles, and ways without rules.

Sampling, clipping, noise and steps come from the same streams as in the stacked engine, so that all trainers agree up
to rounding.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsafe.client.batches import Batch, chosen, moved
from fedsafe.client.objectives import Moment, Objective, Perturbing, PlainModel, draw, perturbations
from fedsafe.client.optimizers import Rows
from fedsafe.client.record_noise import grids_of, noised_on_grid, require_exact, to_record_grid
from fedsafe.client.stacked.model import layout_of
from fedsafe.client.trainer import ClientJob, LocalTraining
from fedsafe.params import Vector
from fedsafe.privacy.clipping import MARGIN
from fedsafe.rng import Stream, normal_rows

# Records whose gradients are summed in single precision: with more, the sum's rounding could pass the clip's margin.
_PART_ROWS = 4096
# Values of gradients that are written out at once.
_PART_VALUES = 2**25
# Rows that are rounded to a grid at once, in double precision.
_EXACT_ROWS = 64


class OneByOneTrainer(ABC):
    """A :class:`~fedsafe.client.trainer.Trainer` over per-example gradients that a subclass writes out.

    Args:
        module: The model.
        objective: Gives one loss per example.
        data: The records of all clients, a tree of tensors ``(records, ...)``; a job names its rows.
        training: How every client trains, unless its job says otherwise.
        device: Where it trains. Noise is made on the processor, whatever the device.
    """

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        data: Batch,
        training: LocalTraining,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.layout = layout_of(module)
        self.device = torch.device(device)
        self.objective = objective
        self.data = moved(data, self.device)
        self._training = training
        self._dtype = next(p.dtype for p in module.parameters() if p.requires_grad)
        # What a perturbing objective looks at: nothing here remembers its passes.
        self._plain = PlainModel(copy.deepcopy(module).to(self.device).train())

    @abstractmethod
    def gradients(self, vector: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Each example's gradient and loss.

        Args:
            vector: ``(parameters,)`` of the model.
            batch: At least one example.

        Returns:
            ``(examples, parameters)`` gradients and ``(examples,)`` losses.
        """

    def train(self, parameters: Vector, jobs: Sequence[ClientJob]) -> NDArray[np.float32]:
        """``(len(jobs), parameters)``: each client's parameters after its local steps."""
        trained = np.empty((len(jobs), self.layout.total), np.float32)
        for row, job in enumerate(jobs):
            start = parameters if job.start is None else job.start
            trained[row] = self._train_one(start, job)
        return trained

    def _train_one(self, parameters: Vector, job: ClientJob) -> NDArray[np.float32]:
        training = job.training or self._training
        start = torch.from_numpy(np.array(parameters)).to(self.device, self._dtype)
        vector = start.clone()
        optimizer = None if training.optimizer.plain else Rows([training.optimizer], vector[None])
        correction = None
        if job.correction is not None:
            correction = torch.from_numpy(job.correction.copy()).to(self.device, self._dtype)
        divisor = training.divisor(len(job.records))
        if training.on_grid:
            require_exact(training, len(job.records), self.layout.total)
        branch = perturbations(job.batches)
        for step, rows in enumerate(job.sample(training)):
            batches = self._batches(
                vector, torch.from_numpy(rows), branch, training.progress(job.round, step)
            )
            change = self._noised_sum(vector, batches, training, job.noise)
            rate = training.learning_rate_at(job.round, step)
            scale = 1.0 if optimizer is not None else rate
            change = change.mul_(scale / divisor).to(self._dtype)
            if training.proximal > 0.0:
                change.add_(vector - start, alpha=scale * training.proximal)
            if correction is not None:
                change.add_(correction, alpha=scale)
            if optimizer is not None:
                change = optimizer.change(vector[None], change[None], change.new_tensor([[rate]]))[0]
            vector.sub_(change)
        return vector.float().cpu().numpy()

    def clipped_sum(self, vector: Tensor, rows: Tensor, clip: float | None = None) -> Tensor:
        """``(parameters,)`` sum of clipped per-example gradients; in double precision where it was made of parts.

        Args:
            vector: ``(parameters,)`` of the model.
            rows: ``(examples,)`` records, of which there may be none.
            clip: Bound on one example's gradient; the trainer's own if left out.
        """
        clip = self._training.clip if clip is None else clip
        return self._clipped(vector, [chosen(self.data, part) for part in self._parts(rows)], clip)

    def _clipped(self, vector: Tensor, batches: Iterable[Batch], clip: float) -> Tensor:
        parts = [self._part(vector, batch, clip).sum(0) for batch in batches]
        if not parts:
            return torch.zeros_like(vector)
        return parts[0] if len(parts) == 1 else torch.stack([part.double() for part in parts]).sum(0)

    def _batches(self, vector: Tensor, rows: Tensor, branch: Stream, done: float) -> Iterator[Batch]:
        """The batches whose gradients are taken: of records as they are, or as a perturbing objective makes them.

        Args:
            vector: ``(parameters,)`` of the model.
            rows: ``(examples,)`` records of a step.
            branch: Of the client's perturbations.
            done: Which part of all local steps is behind this one.
        """
        objective = self.objective
        for part in self._parts(rows):
            batch = chosen(self.data, part)
            if isinstance(objective, Perturbing):
                trained = [p for p in self._plain.module.parameters() if p.requires_grad]
                nn.utils.vector_to_parameters(vector, trained)
                draws = torch.from_numpy(draw(branch, objective.law, len(part), objective.width(batch)))
                progress = torch.full((len(part),), done, dtype=torch.float64, device=self.device)
                moment = Moment(draws=draws.to(self.device), progress=progress)
                batch = objective.perturbed(batch, moment, self._plain)
            yield batch

    def _noised_sum(
        self, vector: Tensor, batches: Iterable[Batch], training: LocalTraining, stream: Stream
    ) -> Tensor:
        """``(parameters,)`` clipped sum with its noise, in the arithmetic that the client's training asks for."""
        if training.on_grid:
            exact = torch.zeros(1, len(vector), dtype=torch.float64, device=self.device)
            for batch in batches:
                for some in self._part(vector, batch, training.clip).split(_EXACT_ROWS):  # type: ignore[no-untyped-call]
                    # Each example is rounded by itself, and can only get shorter; whole numbers add up exactly.
                    exact += to_record_grid(some, grids_of([training])).sum(0)
            return noised_on_grid(exact, [training], [stream])[0]
        change = self._clipped(vector, batches, training.clip)
        if training.noise > 0.0:
            noise = torch.from_numpy(normal_rows([stream], self.layout.total)[0]).to(self.device)
            change = change.add_(noise, alpha=training.noise * training.clip)
        return change

    def _parts(self, rows: Tensor) -> list[Tensor]:
        """The rows, as many at once as their gradients have room; none of no row."""
        most = max(1, min(_PART_ROWS, _PART_VALUES // self.layout.total))
        parts: tuple[Tensor, ...] = rows.to(self.device).split(most)  # type: ignore[no-untyped-call]
        return [part for part in parts if len(part)]

    def _part(self, vector: Tensor, batch: Batch, clip: float) -> Tensor:
        gradients, losses = self.gradients(vector, batch)
        norms = torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64)
        keep = torch.isfinite(norms) & torch.isfinite(losses)
        factors = (clip * MARGIN / norms).clamp(max=1.0) if math.isfinite(clip) else torch.ones_like(norms)
        keep = keep & (factors >= torch.finfo(vector.dtype).tiny)
        factors = torch.where(keep, factors, 0.0).to(vector.dtype)
        return torch.where(keep[:, None], gradients * factors[:, None], 0.0)
