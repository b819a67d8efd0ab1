"""Find out, before any record is touched, whether a model keeps its examples apart.

Per-example clipping bounds nothing if one example can move another's loss. The probe trains on random inputs and
refuses what it sees: an output or loss that moves when another example does, a buffer that moves at all, and
randomness inside ``forward`` (its draws would not be keyed to the client).
"""

import copy

import torch
from torch import Tensor, nn

from fedsafe.client.objectives import Objective
from fedsafe.client.stacked.model import StackedModel, layout_of
from fedsafe.errors import ModelError

_REMEDY = "replace BatchNorm by nn.GroupNorm or nn.LayerNorm, and keep batch statistics out of forward"
_BATCH = 5


@torch.no_grad()
def refuse_mixing(module: nn.Module, objective: Objective, inputs: tuple[int, ...], classes: int) -> None:
    """Raise if a model mixes the examples of a batch.

    Args:
        module: The model; it is copied.
        objective: Gives one loss per example.
        inputs: Shape of one example.
        classes: Number of classes.

    Raises:
        ModelError: With what was seen, and the remedy.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise ModelError(
                f"layer {name or 'model'} ({type(layer).__name__}) mixes the records of a batch, so one record's "
                f"influence has no bound: {_REMEDY}"
            )
    model = copy.deepcopy(module).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((_BATCH, *inputs), generator=generator)
    y = torch.arange(_BATCH) % classes
    try:
        losses, again = _losses(model, objective, x, y, 1), _losses(model, objective, x, y, 2)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ModelError(f"the model cannot run on inputs of shape {inputs}: {error}") from error
    if losses.shape != (_BATCH,):
        raise ModelError(f"the objective gives losses of shape {tuple(losses.shape)} for {_BATCH} examples")
    moved = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])]
    if moved:
        raise ModelError(
            f"buffer {moved[0]} moves in training, and would leave the client un-noised: {_REMEDY}"
        )
    if not _close(losses, again):
        raise ModelError(
            "the model draws random numbers in forward (dropout?): they would not be keyed to the client; set the "
            "probability to 0"
        )
    for changed in range(_BATCH):
        other = x.clone()
        other[changed] = 3.0 * torch.randn(inputs, generator=generator) + 1.0
        kept = torch.arange(_BATCH) != changed
        if not _close(_losses(model, objective, other, y, 1)[kept], losses[kept]):
            raise ModelError(
                "changing one example changes the loss of another, so one record's influence has no bound: "
                f"{_REMEDY}"
            )


@torch.no_grad()
def stacks_faithfully(module: nn.Module, inputs: tuple[int, ...]) -> bool:
    """Whether the stacked model gives each client exactly what its own module would.

    A ``forward`` that reshapes or normalises across its first dimension can keep examples apart and still mix the
    clients of a stack; one that reads a layer's weight directly cannot be stacked at all.
    """
    layout = layout_of(module)
    generator = torch.Generator().manual_seed(2)
    parameters = 0.1 * torch.randn((3, layout.total), generator=generator)
    x = torch.randn((3 * _BATCH, *inputs), generator=generator)
    try:
        stacked: Tensor = StackedModel(module, parameters)(x)
    except (RuntimeError, AttributeError, TypeError, ValueError, IndexError, ModelError):
        return False
    model = copy.deepcopy(module).train()
    for client in range(3):
        mine = slice(client * _BATCH, (client + 1) * _BATCH)
        nn.utils.vector_to_parameters(parameters[client], model.parameters())
        alone = model(x[mine])
        if stacked[mine].shape != alone.shape or not _close(stacked[mine], alone):
            return False
    return True


def _losses(model: nn.Module, objective: Objective, x: Tensor, y: Tensor, seed: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return objective(model, x, y).detach()


def _close(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-4, atol=1e-6)
