"""Stacking: an ordinary module, run for many clients at once with each client's own parameters."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedsafe.client.stacked.layers import RULES, StackedLinear, Tap
from fedsafe.errors import ModelError
from fedsafe.params import Layout

# A matrix product takes another kernel, with other bits, where its operands are aligned differently. What is a
# multiple of this many values is aligned alike wherever it lies in a stack.
ALIGNMENT = 16


def aligned_rows(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """``(rows, columns)`` uninitialised values, every row aligned like the first."""
    width = ALIGNMENT * math.ceil(columns / ALIGNMENT)
    return torch.empty(rows, width, dtype=dtype)[:, :columns]


def layout_of(module: nn.Module) -> Layout:
    """Names and shapes of the parameters that are trained, in the module's order."""
    named = [(name, tuple(p.shape)) for name, p in module.named_parameters() if p.requires_grad]
    return Layout(names=tuple(name for name, _ in named), shapes=tuple(shape for _, shape in named))


def missing_rule(module: nn.Module) -> str | None:
    """Why a module cannot be stacked, or None.

    Parametric layers need a rule, and parameters that are frozen in part or shared between layers have none.
    """
    seen: dict[int, str] = {}
    for name, layer in module.named_modules():
        own = list(layer.named_parameters(recurse=False))
        if own and type(layer) not in RULES:
            return f"layer {name or 'the model itself'} ({type(layer).__name__}) has no stacked rule"
        for parameter_name, parameter in own:
            if not parameter.requires_grad:
                return f"parameter {name}.{parameter_name} is frozen"
            if id(parameter) in seen:
                return f"parameter {name}.{parameter_name} is shared with {seen[id(parameter)]}"
            seen[id(parameter)] = f"{name}.{parameter_name}"
    return None


class StackedModel:
    """A module whose parametric layers hold one set of weights per client.

    Every other operation, and the module's own ``forward``, runs unchanged on ``(clients * batch, ...)``.

    Args:
        module: The template; it is copied.
        parameters: ``(clients, parameters)``, in the order of :func:`layout_of`. The model reads this very
            tensor: training writes to it in place.

    Raises:
        ModelError: A layer has no rule.
    """

    def __init__(self, module: nn.Module, parameters: Tensor) -> None:
        reason = missing_rule(module)
        if reason is not None:
            raise ModelError(f"the model cannot be stacked: {reason}")
        layout = layout_of(module)
        self.parameters = parameters
        self.taps: list[Tap] = []
        self.module = _swap(copy.deepcopy(module), parameters, _columns(layout), self.taps)
        self.module.train()

    @property
    def clients(self) -> int:
        """How many clients are stacked."""
        return self.parameters.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        """``(clients * batch, ...)`` inputs to outputs, client-major."""
        output: Tensor = self.module(x)
        return output


def _columns(layout: Layout) -> dict[str, slice]:
    columns, start = {}, 0
    for name, size in zip(layout.names, layout.sizes, strict=True):
        columns[name] = slice(start, start + size)
        start += size
    return columns


def _swap(module: nn.Module, parameters: Tensor, columns: dict[str, slice], taps: list[Tap]) -> nn.Module:
    # One stacked layer for each original, even if it is registered or called twice.
    replaced: dict[int, nn.Module] = {}

    def visit(layer: nn.Module, prefix: str) -> nn.Module:
        if id(layer) in replaced:
            return replaced[id(layer)]
        rule = RULES.get(type(layer))
        if rule is not None:
            own = {name: columns[f"{prefix}{name}"] for name, _ in layer.named_parameters(recurse=False)}
            stacked: Any = rule(layer, parameters.shape[0], parameters, own, taps)  # type: ignore[arg-type]
            replaced[id(layer)] = stacked
            return stacked  # type: ignore[no-any-return]
        for name, child in list(layer.named_children()):
            setattr(layer, name, visit(child, f"{prefix}{name}."))
        return layer

    return visit(module, "")


def gradients_by_layer(
    taps: list[Tap], gradients: Sequence[Tensor | None], batch: int
) -> list[tuple[StackedLinear, Tensor, Tensor]]:
    """Inputs and gradients of each layer, its calls joined.

    The gradient of a weight that is used twice is the sum over its uses, and so must be its norm: the calls of a
    layer become further positions of the same example.

    Args:
        taps: In the order of the forward pass.
        gradients: Of the loss by each tap's output; None where the loss does not depend on it.
        batch: Examples for each client.

    Returns:
        For each layer: itself, inputs and gradients ``(clients, batch * positions, features)``.
    """
    calls: dict[StackedLinear, list[tuple[Tensor, Tensor]]] = {}
    for tap, gradient in zip(taps, gradients, strict=True):
        if gradient is not None:
            flat = gradient.reshape(tap.layer.clients, tap.inputs.shape[1], -1)
            calls.setdefault(tap.layer, []).append((tap.inputs, flat))
    return [(layer, *_join(pairs, batch)) for layer, pairs in calls.items()]


def _join(pairs: list[tuple[Tensor, Tensor]], batch: int) -> tuple[Tensor, Tensor]:
    if len(pairs) == 1:
        return pairs[0]
    inputs, gradients = (
        torch.cat([part.unflatten(1, (batch, -1)) for part in side], 2).flatten(1, 2)
        for side in zip(*pairs, strict=True)
    )
    return inputs, gradients
