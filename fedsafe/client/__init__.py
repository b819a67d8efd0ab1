"""The client: local DP-SGD, for many clients at once where the model allows it."""

import torch
from torch import nn

from fedsafe.client.features import precompute
from fedsafe.client.functional_trainer import FunctionalTrainer
from fedsafe.client.local import LocalParameters, ReconstructingTrainer
from fedsafe.client.objectives import Objective, bound_to, build_objective, tried_on
from fedsafe.client.optimizers import SGD, Adam, Schedule
from fedsafe.client.probe import (
    PROBE_BATCH,
    PROBE_CLIENTS,
    PROBE_CLIP,
    probe_data,
    refuse_mixing,
    refuse_other_outputs,
    refuse_other_parameters,
    refuse_precision,
    refuse_wrong_gradients,
    stacks_faithfully,
)
from fedsafe.client.record_noise import record_grid_bits
from fedsafe.client.stacked import StackedTrainer, layout_of
from fedsafe.client.trainer import ClientJob, LocalTraining, Trainer
from fedsafe.data import Signature
from fedsafe.errors import ModelError

__all__ = [
    "SGD",
    "Adam",
    "ClientJob",
    "LocalParameters",
    "LocalTraining",
    "Objective",
    "ReconstructingTrainer",
    "Schedule",
    "Trainer",
    "build_objective",
    "build_trainer",
    "choose_trainer",
    "layout_of",
    "precompute",
    "record_grid_bits",
    "refuse_precision",
]


def choose_trainer(module: nn.Module, objective: Objective, signature: Signature) -> str:
    """The fastest trainer that is faithful to a model: ``"stacked"``, then ``"vmap"``, then ``"opacus"``.

    Args:
        module: The model.
        objective: Gives one loss per example.
        signature: What the task's inputs, outputs and targets are.

    Raises:
        ModelError: The model has other parameters or outputs, mixes the examples of a batch, or nobody can tell
            the gradient of one record.
    """
    refuse_other_parameters(module)
    refuse_other_outputs(module, signature)
    refuse_mixing(module, objective, signature)
    objective = bound_to(objective, module)
    # What is trained is the head alone: what comes before it stays as it is, whatever rules its layers have.
    x, y = probe_data(signature, PROBE_CLIENTS * PROBE_BATCH)
    module, x = precompute(module, x, objective)
    if stacks_faithfully(module, objective, (x, y)):
        return "stacked"
    few = tried_on(objective, (x[:6], y[:6]))
    probing = LocalTraining(learning_rate=1.0, steps=1, rate=1.0, clip=PROBE_CLIP, noise=0.0)
    functional = FunctionalTrainer(module, objective, few, probing, strict=True)
    try:
        refuse_wrong_gradients(module, objective, few, functional.clipped_sum)
        return "vmap"
    except ModelError:
        # Opacus knows layers that vmap cannot enter, such as recurrent ones.
        from fedsafe.client.opacus_trainer import OpacusTrainer

        trainer = OpacusTrainer(module, objective, few, probing)
        refuse_wrong_gradients(module, objective, few, trainer.clipped_sum)
        return "opacus"


def build_trainer(
    name: str,
    module: nn.Module,
    objective: Objective,
    x: torch.Tensor,
    y: torch.Tensor,
    training: LocalTraining,
    *,
    device: str = "cpu",
    precision: torch.dtype | None = None,
    stack: int | None = None,
) -> Trainer:
    """The trainer of that name, over the records of all clients.

    Args:
        name: What :func:`choose_trainer` gave for the module.
        module: The model, or what :func:`precompute` gave for it.
        objective: Gives one loss per example of ``(x, y)``.
        x: ``(records, ...)`` inputs of all clients, of that module.
        y: ``(records, ...)`` targets.
        training: How every client trains.
        device: ``"cpu"`` or ``"cuda"``.
        precision: Of the stacked trainer's forward and backward passes, if not the parameters'.
        stack: How many clients it stacks at most; it changes no result.

    Raises:
        ModelError: The module cannot be differentiated per example.
    """
    objective = bound_to(objective, module)
    module, x = precompute(module, x, objective)
    if name == "stacked":
        return StackedTrainer(
            module, objective, (x, y), training, device=device, precision=precision, stack=stack
        )
    if name == "vmap":
        return FunctionalTrainer(module, objective, (x, y), training, device=device)
    # Opacus costs a second to import, and few models need it.
    from fedsafe.client.opacus_trainer import OpacusTrainer

    return OpacusTrainer(module, objective, (x, y), training, device=device)
