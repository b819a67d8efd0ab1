"""Records that are canaries, in the clients' own batches: they are sampled, clipped, noised and folded as all others.

A gradient canary has a gradient of its choice: it pulls at one parameter that is added to the model for it, which no
other record of its client touches, by a hundred times the clip. That is the strongest canary there is for DP-SGD,
whatever the optimiser, and it passes through every step of the engine.

The adversary is the claim's: it sees each upload of each client.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsafe.audit.canaries import RAW, Canaries, coins
from fedsafe.audit.setting import Setting, build_audited_trainer
from fedsafe.client import ClientJob, Objective, Trainer
from fedsafe.client.batches import Batch
from fedsafe.client.objectives import Differentiable, Law, Moment, Perturbing, bound_to
from fedsafe.federation import RoundOutcome
from fedsafe.params import Layout, Vector
from fedsafe.rng import public_generator

Sees = Callable[[Vector, ClientJob, Vector], None]


class WithCells(nn.Module):
    """A model, and beside it the parameters that gradient canaries pull at.

    Clients share the cells: each client's upload is seen by itself, so that one cell serves a canary of each.

    Args:
        audited: The model.
        cells: How many canaries one client has at most.
    """

    def __init__(self, audited: nn.Module, cells: int) -> None:
        super().__init__()
        self.audited = audited
        # Cell 0 is nobody's.
        self.cells = nn.Embedding(cells + 1, 1, _weight=torch.zeros(cells + 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """What the model gives."""
        outputs: Tensor = self.audited(x)
        return outputs


@dataclass(frozen=True)
class CanaryObjective:
    """The losses of a batch with canaries.

    Args:
        natural: The audited objective.
    """

    natural: Objective

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """``(examples,)`` losses of ``(x, y, counts, cell, pull)``: natural where it counts, and the pull at a cell.

        In the place of x and y there may be more, where the audited objective perturbs records.
        """
        *record, counts, cell, pull = batch
        # By name, since trainers put modules of their own in the place of these.
        audited, cells = (model.get_submodule(name) for name in ("audited", "cells"))
        pulled: Tensor = pull * cells(cell)[:, 0]
        return torch.where(counts > 0, self.natural(audited, tuple(record)), 0.0) - pulled


@dataclass(frozen=True)
class PerturbingCanaryObjective(CanaryObjective):
    """The same for an audited objective that perturbs records: canaries are perturbed as all others are.

    Args:
        natural: The audited objective.
    """

    natural: Perturbing

    @property
    def law(self) -> Law:
        """See :class:`~fedsafe.client.objectives.Perturbing`."""
        return self.natural.law

    def width(self, batch: Batch) -> int:
        """See :class:`~fedsafe.client.objectives.Perturbing`."""
        return self.natural.width(tuple(batch[:2]))

    def perturbed(self, batch: Batch, moment: Moment, model: Differentiable) -> Batch:
        """See :class:`~fedsafe.client.objectives.Perturbing`."""
        # What the whole model gives is what the audited part gives.
        x, y, *rest = batch
        return *self.natural.perturbed((x, y), moment, model), *rest

    def stand_in(self, batch: Batch) -> Batch:
        """See :class:`~fedsafe.client.objectives.Perturbing`."""
        x, y, *rest = batch
        return *self.natural.stand_in((x, y)), *rest


def canary_objective(audited: Objective, module: nn.Module) -> CanaryObjective:
    """The losses of a batch with canaries.

    Args:
        audited: The audited objective.
        module: The audited model.
    """
    audited = bound_to(audited, module)
    return PerturbingCanaryObjective(audited) if isinstance(audited, Perturbing) else CanaryObjective(audited)


class ObservedTrainer:
    """A trainer whose results are seen by somebody.

    Args:
        inner: Trains.
        sees: Is given the start, the job and the result of each client.
    """

    def __init__(self, inner: Trainer, sees: Sees) -> None:
        self.name, self.layout = inner.name, inner.layout
        self._inner, self._sees = inner, sees

    layout: Layout

    def train(self, parameters: Vector, jobs: Sequence[ClientJob]) -> NDArray[np.float32]:
        """See :class:`~fedsafe.client.trainer.Trainer`."""
        trained = self._inner.train(parameters, jobs)
        for job, row in zip(jobs, trained, strict=True):
            self._sees(parameters if job.start is None else job.start, job, row)
        return trained


class RecordCanaries(Canaries):
    """Canaries among the records, spread evenly over the clients.

    Args:
        setting: The run.
        canaries: How many.
        key: Secret of the coins.
        seed: Of what is public: which records input canaries are made of.
    """

    def __init__(self, setting: Setting, canaries: int, key: bytes, seed: int) -> None:
        self.included = coins(key, canaries)
        self.scores = np.zeros(canaries)
        self.plan = setting.plan
        clients, natural = len(setting.records), len(setting.y)
        module, x = setting.with_features()
        self._holder = np.arange(canaries) % clients
        self._mine = [np.flatnonzero(self._holder == client) for client in range(min(clients, canaries))]
        self._rows = natural + np.arange(canaries)
        model = WithCells(module, -(-canaries // clients))
        made_x, made_y, *parts = self._made(setting, x, public_generator(seed, "audit canaries"))
        data = [torch.cat([x, made_x]), torch.cat([setting.y, made_y])]
        before = (torch.ones(natural), torch.zeros(natural, dtype=torch.int64), torch.zeros(natural))
        data += [torch.cat([all_others, own]) for all_others, own in zip(before, parts, strict=True)]
        self.records = [np.asarray(rows, np.int64) for rows in setting.records]
        for client, mine in enumerate(self._mine):
            self.records[client] = np.append(self.records[client], self._rows[mine])
        self.trainer = self._trainer(setting, model, tuple(data))
        trainable = [p.detach().flatten() for p in model.parameters() if p.requires_grad]
        self.initial = torch.cat(trainable).numpy().astype(np.float32)

    def see(self, outcome: RoundOutcome) -> None:
        """Nothing more: every upload was seen when it was made."""

    def _made(self, setting: Setting, x: Tensor, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Inputs, targets, whether their loss counts, cell and pull of each canary: here, of gradient canaries."""
        templates = torch.from_numpy(np.array([setting.records[int(client)][0] for client in self._holder]))
        cell = 1 + np.arange(len(self.scores)) // len(setting.records)
        self._columns = sum(p.numel() for p in setting.module.parameters() if p.requires_grad) + cell
        pull = np.where(self.included, RAW * setting.plan.record.clip, 0.0)
        return (
            x[templates],
            setting.y[templates],
            torch.zeros(len(cell)),
            torch.from_numpy(cell),
            torch.from_numpy(pull.astype(np.float32)),
        )

    def _trainer(self, setting: Setting, model: WithCells, data: tuple[Tensor, ...]) -> Trainer:
        """What trains the model on ``(x, y, counts, cell, pull)``, and shows what is uploaded."""
        inner = build_audited_trainer(
            setting, model, canary_objective(setting.objective, setting.module), data
        )
        return ObservedTrainer(inner, self._sees)

    def _sees(self, start: Vector, job: ClientJob, trained: Vector) -> None:
        """How far each canary's cell has moved the way it pulls."""
        if job.client < len(self._mine):
            mine = self._mine[job.client]
            columns = self._columns[mine]
            self.scores[mine] += trained[columns].astype(np.float64) - start[columns].astype(np.float64)
