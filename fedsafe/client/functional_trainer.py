"""Per-example gradients by ``vmap(grad)``: for models that do not stack, but whose code is functional."""

import copy
import warnings
from typing import Literal

import torch
from torch import Tensor, nn

from fedsafe.client.batches import Batch, mapped
from fedsafe.client.objectives import Objective
from fedsafe.client.one_by_one import OneByOneTrainer
from fedsafe.client.trainer import LocalTraining


class FunctionalTrainer(OneByOneTrainer):
    """The :class:`~fedsafe.client.trainer.Trainer` for any module that ``torch.func`` can differentiate.

    Arguments as for :class:`~fedsafe.client.one_by_one.OneByOneTrainer`, and:

    Args:
        strict: Whether an operation that torch can only run example by example is an error: Opacus may be faster.
    """

    name = "vmap"

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        data: Batch,
        training: LocalTraining,
        *,
        device: torch.device | str = "cpu",
        strict: bool = False,
    ) -> None:
        super().__init__(module, objective, data, training, device=device)
        self._on_drop: Literal["error", "ignore"] = "error" if strict else "ignore"
        self._whole = _Loss(copy.deepcopy(module).to(self.device).train(), objective)
        self._frozen = {
            name: tensor.detach()
            for name, tensor in (*self._whole.named_parameters(), *self._whole.named_buffers())
            if not tensor.requires_grad
        }

    def gradients(self, vector: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :class:`~fedsafe.client.one_by_one.OneByOneTrainer`."""
        parts = vector.split(self.layout.sizes)  # type: ignore[no-untyped-call]
        shaped = zip(self.layout.names, self.layout.shapes, parts, strict=True)
        named = {f"module.{name}": part.view(shape) for name, shape, part in shaped}

        def loss(parameters: dict[str, Tensor], example: Batch) -> tuple[Tensor, Tensor]:
            one = mapped(lambda part: part.unsqueeze(0), example)
            value = torch.func.functional_call(self._whole, (parameters, self._frozen), (one,))[0]
            return value, value

        each = torch.func.vmap(torch.func.grad(loss, has_aux=True), in_dims=(None, 0), randomness="different")
        with warnings.catch_warnings():
            warnings.filterwarnings(self._on_drop, message="There is a performance drop")
            gradients, losses = each(named, batch)
        flat = [gradients[f"module.{name}"].flatten(1) for name in self.layout.names]
        return torch.cat(flat, 1).detach(), losses.detach()


class _Loss(nn.Module):
    def __init__(self, module: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.module = module
        self._objective = objective

    def forward(self, batch: Batch) -> Tensor:
        return self._objective(self.module, batch)
