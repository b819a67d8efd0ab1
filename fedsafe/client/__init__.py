"""The client: local DP-SGD, for many clients at once where the model allows it."""

import torch
from torch import nn

from fedsafe.client.objectives import Objective, build_objective
from fedsafe.client.probe import refuse_mixing, stacks_faithfully
from fedsafe.client.stacked import StackedTrainer, layout_of, missing_rule
from fedsafe.client.trainer import ClientJob, LocalTraining, Trainer
from fedsafe.errors import ModelError

__all__ = [
    "ClientJob",
    "LocalTraining",
    "Objective",
    "Trainer",
    "build_objective",
    "build_trainer",
    "choose_trainer",
    "layout_of",
]


def choose_trainer(module: nn.Module, objective: Objective, inputs: tuple[int, ...], classes: int) -> str:
    """``"stacked"`` where every layer has a rule and the stack is faithful, else ``"opacus"``.

    Raises:
        ModelError: The model mixes the examples of a batch.
    """
    if not layout_of(module).total:
        raise ModelError("the model has no trainable parameter")
    refuse_mixing(module, objective, inputs, classes)
    if missing_rule(module) is None and stacks_faithfully(module, inputs):
        return "stacked"
    return "opacus"


def build_trainer(
    name: str,
    module: nn.Module,
    objective: Objective,
    x: torch.Tensor,
    y: torch.Tensor,
    training: LocalTraining,
) -> Trainer:
    """The trainer of that name, over the records of all clients.

    Raises:
        ModelError: The module cannot be differentiated per example.
    """
    if name == "stacked":
        return StackedTrainer(module, objective, x, y, training)
    # Opacus costs a second to import, and few models need it.
    from fedsafe.client.opacus_trainer import OpacusTrainer

    return OpacusTrainer(module, objective, x, y, training)
