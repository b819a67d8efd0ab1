"""Training on records plus Gaussian noise, as the base classifier of randomised smoothing needs (Cohen et al. 2019)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsafe.client.batches import Batch
from fedsafe.client.objectives.inputs import InputBounds
from fedsafe.client.objectives.perturbing import Differentiable, Law, Moment
from fedsafe.client.objectives.plain import Objective


@dataclass(frozen=True, kw_only=True)
class GaussianAugmentation:
    """The loss at each record plus fresh noise in each step, on the features that may move.

    As in smoothing, noise is not cut at the public bounds.

    Args:
        natural: The loss.
        bounds: Of the inputs.
        sigma: Standard deviation of the noise on each feature, in encoded units.
    """

    natural: Objective
    bounds: InputBounds
    sigma: float
    law: Law = "normal"

    def width(self, batch: Batch) -> int:
        """See :class:`~fedsafe.client.objectives.perturbing.Perturbing`."""
        return self.bounds.width

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """``(examples,)`` losses of ``(inputs, targets)``, with noise or without."""
        return self.natural(model, batch)

    def perturbed(self, batch: Batch, moment: Moment, model: Differentiable) -> Batch:
        """See :class:`~fedsafe.client.objectives.perturbing.Perturbing`."""
        x, y = batch
        noise = moment.draws.to(x).view_as(x) * self.sigma
        return x + torch.where(self.bounds.free.to(x.device), noise, 0.0), y

    def stand_in(self, batch: Batch) -> Batch:
        """See :class:`~fedsafe.client.objectives.perturbing.Perturbing`."""
        return batch
