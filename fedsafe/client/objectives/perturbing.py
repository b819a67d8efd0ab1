"""Objectives that change each record before its gradient is taken: what trainers and such objectives ask of each other.

A trainer hands over a batch, a model that can be run and differentiated by its inputs, and draws of each client's own;
it gets a batch back whose gradient it then takes, clips and noises as that of any other.

Guarantees:
    What a record becomes depends on the record, on the model, on draws that no other record has, and on public
    settings. So clipping the gradient of what it becomes bounds the influence of the record, and a record-level claim
    holds as it does without: the change comes before the clip, and nothing is remembered from step to step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsafe.client.batches import Batch, floating, mapped
from fedsafe.client.objectives.plain import Objective
from fedsafe.rng import Stream

Law = Literal["uniform", "normal"]


class Differentiable(Protocol):
    """A model at the weights of this step; of one client, or stacked over several."""

    def outputs(self, inputs: Tensor) -> Tensor:
        """``(examples, ...)`` what the model gives, without gradients."""
        ...

    def input_gradients(self, objective: Objective, batch: Batch) -> list[Tensor]:
        """Gradients of each example's loss by its own floating inputs, one for each floating tensor of the batch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What a step knows besides its records and its model.

    Args:
        draws: ``(examples, width)`` of each record's own, as the objective asked for; zeros for padding.
        progress: ``(examples,)`` which part of all local steps of the run is behind this one, in [0, 1).
    """

    draws: Tensor
    progress: Tensor


@runtime_checkable
class Perturbing(Protocol):
    """An objective that changes records first.

    Called with a batch ``(inputs, targets)`` it gives the loss of the records as they are, which is what rounds report.
    """

    law: Law

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """``(examples,)`` losses, of a batch as it is or as :meth:`perturbed` gives it."""
        ...

    def width(self, batch: Batch) -> int:
        """How many draws each record needs."""
        ...

    def perturbed(self, batch: Batch, moment: Moment, model: Differentiable) -> Batch:
        """The batch whose gradient is taken, with one row per example as before."""
        ...

    def stand_in(self, batch: Batch) -> Batch:
        """A batch of that form without a model, for measuring and trying one."""
        ...


def perturbations(batches: Stream) -> Stream:
    """The stream of a client's perturbations in a round, a branch of that of its batches.

    However batches are drawn and cut, the two do not touch.
    """
    return batches.branch("perturbations")


def draw(stream: Stream, law: Law, records: int, width: int) -> NDArray[np.float32]:
    """``(records, width)`` draws in single precision: the next of a stream, so many words for each record.

    Uniform ones are multiples of 2^-24 in [0, 1); normal ones come from pairs of words (Box and Muller 1958). They are
    no privacy noise.
    """
    if not records * width:
        return np.empty((records, width), np.float32)
    words = stream.words(records * ((width + 1) // 2)).view(np.uint32).reshape(records, -1)
    uniform = (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    if law == "uniform":
        return np.ascontiguousarray(uniform[:, :width])
    half = uniform.shape[1] // 2
    radius = np.sqrt(-2.0 * np.log(1.0 - uniform[:, :half].astype(np.float64)))
    angle = uniform[:, half:].astype(np.float64) * (2.0 * np.pi)
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return np.ascontiguousarray(normal[:, :width], np.float32)


def draw_stacked(
    streams: Sequence[Stream], law: Law, counts: Sequence[int], rows: int, width: int
) -> NDArray[np.float32]:
    """``(clients * rows, width)`` draws of clients side by side, each from its own stream; zeros for padding.

    Args:
        streams: Of the first clients; the others have padding alone.
        law: Of the draws.
        counts: ``(clients,)`` records of each, which come first in its rows.
        rows: Of each client.
        width: Draws of each record.
    """
    drawn = np.zeros((len(counts), rows, width), np.float32)
    for own, stream, count in zip(drawn, streams, counts, strict=False):
        own[:count] = draw(stream, law, count, width)
    return drawn.reshape(len(counts) * rows, width)


class PlainModel:
    """An ordinary module as a :class:`Differentiable`.

    Args:
        module: Its parameters are read as they are.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:
        """See :class:`Differentiable`."""
        outputs: Tensor = self.module(inputs)
        return outputs

    def input_gradients(self, objective: Objective, batch: Batch) -> list[Tensor]:
        """See :class:`Differentiable`."""
        return input_gradients(lambda own: objective(self.module, own), batch)


def input_gradients(losses: "Losses", batch: Batch) -> list[Tensor]:
    """Gradients of each example's loss by its own floating inputs, zero where it does not depend on them.

    Args:
        losses: From a batch to ``(examples,)`` losses, each of its own example alone.
        batch: The examples.
    """
    copies = mapped(
        lambda part: part.detach().clone().requires_grad_() if part.is_floating_point() else part, batch
    )
    wanted = floating(copies)
    if not wanted:
        return []
    with torch.enable_grad():
        found = torch.autograd.grad(losses(copies).sum(), wanted, allow_unused=True)
    return [
        torch.zeros_like(part) if gradient is None else gradient
        for part, gradient in zip(wanted, found, strict=True)
    ]


class Losses(Protocol):
    """From a batch to losses."""

    def __call__(self, batch: Batch, /) -> Tensor:
        """``(examples,)`` losses."""
        ...


def tried_on(objective: Objective, batch: Batch) -> Batch:
    """What a model is measured and probed with: the batch itself, or what a perturbing objective takes in its place."""
    return objective.stand_in(batch) if isinstance(objective, Perturbing) else batch
