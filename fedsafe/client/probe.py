"""Find out, before any record is touched, whether a model keeps its examples apart.

Per-example clipping bounds nothing if one example can move another's loss, or if what is clipped is not the gradient
of one example. The probe runs the model on random inputs, at its initial weights and at random ones (a layer that
starts at zero hides what comes before it), in batches of several sizes, and refuses what it sees. It is a test, not
a proof: the claim lists it as an assumption.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fedsafe.client.batches import Batch, chosen, examples
from fedsafe.client.features import precompute
from fedsafe.client.objectives import Objective, bound_to, tried_on
from fedsafe.client.stacked.engine import clipped_sum
from fedsafe.client.stacked.model import measure
from fedsafe.data import Signature
from fedsafe.errors import ModelError

_REMEDY = (
    "replace BatchNorm by nn.GroupNorm or nn.LayerNorm, keep what is computed over a batch out of forward, and let "
    "the objective compare no two examples"
)
PROBE_BATCH = 5
PROBE_CLIENTS = 3
_BATCHES = (PROBE_BATCH, 40, 257)
_NEEDS = {
    "binary": "one logit for two classes",
    "multiclass": "one logit for each class",
    "regression": "one number",
    "next_token": "one logit for each token, at each position",
}
PROBE_CLIP = 0.5

# Flat parameters and rows of the probe's data to the clipped sum of their gradients.
ClippedSum = Callable[[Tensor, Tensor], Tensor]


def probe_data(signature: Signature, count: int) -> tuple[Tensor, Tensor]:
    """Random inputs ``(count, *inputs)`` and targets that fit a task, the same every time."""
    generator = torch.Generator().manual_seed(1)
    shape = (count, *signature.inputs)
    if signature.vocabulary is None:
        x = torch.randn(shape, generator=generator)
    else:
        x = torch.randint(0, signature.vocabulary, shape, generator=generator)
    if signature.kind == "regression":
        return x, torch.rand(count, generator=generator) * 2.0 - 1.0
    if signature.kind == "next_token":
        positions = signature.outputs[0]
        return x, torch.randint(0, signature.classes, (count, positions), generator=generator)
    return x, torch.arange(count) % signature.classes


def _changed(x: Tensor, y: Tensor, signature: Signature, example: int) -> tuple[Tensor, Tensor]:
    """The same batch, but for one example whose input and target are others everywhere."""
    generator = torch.Generator().manual_seed(3 + example)
    x, y = x.clone(), y.clone()
    if signature.vocabulary is None:
        x[example] = 3.0 * torch.randn(x.shape[1:], generator=generator) + 1.0
    else:
        x[example] = _other_numbers(x[example], signature.vocabulary, generator)
    if signature.kind == "regression":
        y[example] = -y[example]
    else:
        y[example] = _other_numbers(y[example], signature.classes, generator)
    return x, y


def _other_numbers(numbers: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return (numbers + torch.randint(1, max(2, count), numbers.shape, generator=generator)) % count


def refuse_other_parameters(module: nn.Module) -> None:
    """Raise if a model has no trainable parameters in single precision.

    Raises:
        ModelError: With the first parameter that is something else.
    """
    for name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise ModelError(
                f"parameter {name} has no shape yet (a lazy layer): run the model once on one record first, or give "
                "the layer its number of inputs"
            )
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise ModelError(
                f"parameter {name} is of type {parameter.dtype}, and training is in torch.float32: call .float() on "
                "the model"
            )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ModelError("the model has no trainable parameter")


@torch.no_grad()
def refuse_other_outputs(module: nn.Module, signature: Signature) -> None:
    """Raise if a model cannot run, or does not give finite values ``(examples, *outputs)``.

    Raises:
        ModelError: With what it gave.
    """
    x, _ = probe_data(signature, PROBE_BATCH)
    try:
        with torch.random.fork_rng(devices=[]):
            outputs = copy.deepcopy(module).train()(x)
    except (Exception, SystemExit) as error:
        what = "inputs" if signature.vocabulary is None else "tokens"
        raise ModelError(
            f"the model cannot run on {what} of shape {signature.inputs}: {_named(error)}"
        ) from error
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    wanted = (len(x), *signature.outputs)
    if shape != wanted:
        raise ModelError(
            f"the model gives {shape} for {len(x)} examples, the task needs {wanted}: {_NEEDS[signature.kind]}"
        )
    if not outputs.is_floating_point() or not torch.isfinite(outputs).all():
        raise ModelError("the model gives outputs that are not finite: look at its initial weights")


@torch.no_grad()
def refuse_mixing(module: nn.Module, objective: Objective, signature: Signature) -> None:
    """Raise if a model mixes the examples of a batch, moves a buffer, or draws random numbers.

    Args:
        module: The model; it is copied.
        objective: Gives one loss per example.
        signature: What the task's inputs and targets are.

    Raises:
        ModelError: With what was seen, and the remedy.
    """
    model = copy.deepcopy(module).train()
    for name, layer in model.named_modules():
        # One that stays in evaluation mode, with public statistics, mixes nothing; what it does is tried below.
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training:
            raise ModelError(
                f"layer {name or 'model'} ({type(layer).__name__}) mixes the records of a batch, so one record's "
                f"influence has no bound: {_REMEDY}"
            )
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for vector in _parameter_vectors(module):
        _load(model, vector)
        for batch in _BATCHES:
            _refuse_mixing_of(model, objective, signature, batch)
    moved = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])]
    if moved:
        raise ModelError(
            f"buffer {moved[0]} moves in training, and would leave the client un-noised: {_REMEDY}"
        )


def _refuse_mixing_of(model: nn.Module, objective: Objective, signature: Signature, batch: int) -> None:
    x, y = probe_data(signature, batch)
    losses, again = _losses(model, objective, x, y, 1), _losses(model, objective, x, y, 2)
    if losses.shape != y.shape[:1]:
        raise ModelError(f"the objective gives losses of shape {tuple(losses.shape)} for {len(y)} examples")
    if losses.isnan().any():
        raise ModelError(
            f"the model or the objective gives losses that are not finite ({int(losses.isnan().sum())} of {len(y)} "
            "random examples give nan): look for roots, logarithms and quotients of what may be zero or negative"
        )
    if not _close(losses, again):
        raise ModelError(
            "the model gives other values when it is run again (dropout, or a forward that changes its input or its "
            "own state): set the probability of dropout to 0, and change nothing in place"
        )
    # Of a large batch one example will do: it is for what only happens there.
    for changed in range(0, batch, max(1, batch // 5)) if batch < _BATCHES[-1] else (batch // 2,):
        others = _changed(x, y, signature, changed)
        kept = torch.arange(batch) != changed
        if not _close(_losses(model, objective, *others, 1)[kept], losses[kept]):
            raise ModelError(
                "changing one example changes the loss of another, so one record's influence has no bound: "
                f"{_REMEDY}"
            )
    for count in (1, PROBE_BATCH):
        if not _close(_losses(model, objective, x[:count], y[:count], 1), losses[:count]):
            raise ModelError(
                f"the loss of an example is another one in a batch of {batch} than in one of {count}, so one record's "
                f"influence has no bound: {_REMEDY}"
            )


def stacks_faithfully(module: nn.Module, objective: Objective, data: Batch) -> bool:
    """Whether the stacked engine gives each client what a loop over its examples would.

    A ``forward`` that reshapes across its first dimension can keep examples apart and still mix the clients of a
    stack; an operation in place can change what a layer left behind; one that reads a layer's weight directly
    cannot be stacked at all.

    Args:
        module: The model.
        objective: Gives one loss per example.
        data: ``PROBE_CLIENTS * PROBE_BATCH`` examples from :func:`probe_data`, or features of them.
    """
    # A client that is alone takes other kernels.
    return all(_stacks(module, objective, data, clients) for clients in (1, PROBE_CLIENTS))


def _stacks(module: nn.Module, objective: Objective, data: Batch, clients: int) -> bool:
    batch = PROBE_BATCH
    data = chosen(data, slice(clients * batch))
    parameters = torch.stack(list(_parameter_vectors(module))[-clients:])
    mask = torch.ones(clients, batch, dtype=torch.bool)
    try:
        model = measure(module, objective, data).stack(module, parameters.clone())
        data = tried_on(objective, data)
        sums, _ = clipped_sum(model, objective, data, mask, PROBE_CLIP)
    except (Exception, SystemExit):  # whatever the model's own code raises
        return False
    alone = [
        _loop_over_examples(module, objective, vector, chosen(data, slice(row * batch, (row + 1) * batch)))
        for row, vector in enumerate(parameters)
    ]
    return all(_agree(found, expected) for found, expected in zip(sums, alone, strict=True))


def refuse_precision(
    module: nn.Module, objective: Objective, signature: Signature, precision: torch.dtype
) -> None:
    """Raise if a model that stacks cannot run forward and backward in another precision.

    Args:
        module: The model.
        objective: Gives one loss per example.
        signature: What the task's inputs and targets are.
        precision: Such as ``torch.bfloat16``.

    Raises:
        ModelError: With what the model's code said.
    """
    x, y = probe_data(signature, PROBE_BATCH)
    objective = bound_to(objective, module)
    module, x = precompute(module, x, objective)
    parameters = next(_parameter_vectors(module)).unsqueeze(0)
    mask = torch.ones(1, PROBE_BATCH, dtype=torch.bool)
    try:
        model = measure(module, objective, (x, y)).stack(module, parameters, precision=precision)
        clipped_sum(model, objective, tried_on(objective, (x, y)), mask, PROBE_CLIP)
    except (Exception, SystemExit) as error:  # whatever the model's own code raises
        raise ModelError(
            f"the model cannot train in {str(precision).removeprefix('torch.')}: {_named(error)}; leave "
            "client.precision out"
        ) from error


def refuse_wrong_gradients(module: nn.Module, objective: Objective, data: Batch, clipped: ClippedSum) -> None:
    """Raise if a trainer's clipped sum is not the one of a loop over examples.

    Args:
        module: The model.
        objective: Gives one loss per example.
        data: Examples from :func:`probe_data`.
        clipped: The trainer's clipped sum over rows of the data, at a clip of ``PROBE_CLIP``.

    Raises:
        ModelError: The trainer would clip something else than the gradient of one record.
    """
    for vector in _parameter_vectors(module):
        for count in (1, examples(data)):
            rows = torch.arange(count)
            try:
                found = clipped(vector.clone(), rows)
            except ModelError:
                raise
            except (Exception, SystemExit) as error:
                raise ModelError(
                    f"the model cannot be differentiated per example: {_named(error)}"
                ) from error
            if not _agree(found, _loop_over_examples(module, objective, vector, chosen(data, rows))):
                raise ModelError(
                    "the gradient of one record cannot be told apart in this model (in-place operations, a weight "
                    "used outside its layer, or examples along another dimension than the first?): write it with "
                    "nn.Module layers that keep the first dimension"
                )


def _loop_over_examples(module: nn.Module, objective: Objective, vector: Tensor, data: Batch) -> Tensor:
    """The clipped sum, one example and one backward pass at a time."""
    model = copy.deepcopy(module).train()
    _load(model, vector)
    trainable = [p for p in model.parameters() if p.requires_grad]
    total = torch.zeros_like(vector)
    with torch.enable_grad():
        for example in range(examples(data)):
            loss = objective(model, chosen(data, slice(example, example + 1))).sum()
            parts = torch.autograd.grad(loss, trainable, allow_unused=True)
            gradient = torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).flatten()
                    for p, g in zip(trainable, parts, strict=True)
                ]
            )
            total += gradient * min(1.0, PROBE_CLIP / max(float(gradient.norm()), 1e-30))
    return total


def _parameter_vectors(module: nn.Module) -> Iterator[Tensor]:
    """The initial weights, and two random vectors."""
    trainable = [p.detach().flatten() for p in module.parameters() if p.requires_grad]
    initial = torch.cat(trainable)
    yield initial.clone()
    generator = torch.Generator().manual_seed(2)
    for scale in (0.1, 0.5):
        yield initial + scale * torch.randn(initial.shape, generator=generator)


@torch.no_grad()
def _load(model: nn.Module, vector: Tensor) -> None:
    nn.utils.vector_to_parameters(vector, [p for p in model.parameters() if p.requires_grad])


def _losses(model: nn.Module, objective: Objective, x: Tensor, y: Tensor, seed: int) -> Tensor:
    try:
        with torch.random.fork_rng(devices=[]):
            # The probe is on the CPU; `torch.manual_seed` would format the stack for each idle accelerator.
            torch.default_generator.manual_seed(seed)
            return objective(model, (x, y)).detach()
    except ModelError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(f"the model cannot run on {len(x)} examples: {_named(error)}") from error


def _named(error: BaseException) -> str:
    """The error in one line: a model's own code may raise anything."""
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0] if first else 'no message'}"


def _close(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-4, atol=1e-6)


def _agree(found: Tensor, expected: Tensor) -> bool:
    """Up to the margin of the clip, by which our clip and the loop's differ."""
    return bool((found - expected).norm() <= 5e-3 * expected.norm() + 1e-6)
