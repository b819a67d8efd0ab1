"""Stacking: an ordinary module, run for many clients at once with each client's own parameters."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fedsafe.client.objectives import Objective
from fedsafe.client.stacked.alignment import aligned_rows
from fedsafe.client.stacked.layers import RULES, Call, Slots, Tap, Tapped
from fedsafe.errors import ModelError
from fedsafe.params import Layout


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
        if own and (reason := _no_rule(layer)):
            return f"layer {name or 'the model itself'} ({type(layer).__name__}) has no stacked rule{reason}"
        for parameter_name, parameter in own:
            if not parameter.requires_grad:
                return f"parameter {name}.{parameter_name} is frozen"
            if id(parameter) in seen:
                return f"parameter {name}.{parameter_name} is shared with {seen[id(parameter)]}"
            seen[id(parameter)] = f"{name}.{parameter_name}"
    return None


def _no_rule(layer: nn.Module) -> str | None:
    rule = RULES.get(type(layer))
    if rule is None:
        return " at all"
    reason = rule.unsupported(layer)
    return f" for {reason}" if reason else None


class StackedModel:
    """A module whose parametric layers hold one set of weights per client.

    Every other operation, and the module's own ``forward``, runs unchanged on ``(clients * batch, ...)``.

    Args:
        module: The template; it is copied.
        parameters: ``(clients, parameters)``, in the order of :func:`layout_of`. The model reads this very
            tensor: training writes to it in place.
        channels_last: Whether layers may give images with channels innermost in memory.

    Raises:
        ModelError: A layer has no rule.
    """

    def __init__(self, module: nn.Module, parameters: Tensor, *, channels_last: bool = True) -> None:
        reason = missing_rule(module)
        if reason is not None:
            raise ModelError(f"the model cannot be stacked: {reason}")
        self.parameters = parameters
        slots = Slots(parameters, _columns(layout_of(module)), [], channels_last)
        self.taps = slots.taps
        self.module = _swap(copy.deepcopy(module), slots)
        self.module.train()

    @property
    def clients(self) -> int:
        """How many clients are stacked."""
        return self.parameters.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        """``(clients * batch, ...)`` inputs to outputs, client-major."""
        output: Tensor = self.module(x)
        return output


@dataclass(frozen=True, kw_only=True)
class StackShape:
    """What the stacking of a model depends on, found out once by a trial on zeros.

    Args:
        channels_last: Whether the model's own code takes images with channels innermost in memory.
        values: How many values its layers keep for one example.
        dtype: Of its parameters.
    """

    channels_last: bool
    values: int
    dtype: torch.dtype


def measure(module: nn.Module, objective: Objective, x: Tensor, y: Tensor) -> StackShape:
    """Try a stack of two clients on zeros of the shape of these records.

    Raises:
        ModelError: A layer has no rule.
        Exception: Whatever the model's own code raises.
    """
    dtype = next(module.parameters()).dtype
    parameters = aligned_rows(2, layout_of(module).total, dtype)
    initial = torch.cat([p.detach().flatten() for p in module.parameters()])
    parameters[:] = initial
    zeros = x.new_zeros(2, *x.shape[1:]), y.new_zeros(2, *y.shape[1:])
    for channels_last in (True, False):
        model = StackedModel(module, parameters, channels_last=channels_last)
        try:
            with torch.enable_grad():
                objective(model.module, *zeros)
        except (RuntimeError, ModelError):
            # A `view` of channels-last memory, for one; anything else comes again.
            if not channels_last:
                raise
            continue
        break
    kept = sum(part.numel() for tap in model.taps for part in (tap.inputs, tap.handle))
    return StackShape(channels_last=channels_last, values=max(1, kept // 2), dtype=dtype)


def _columns(layout: Layout) -> dict[str, slice]:
    columns, start = {}, 0
    for name, size in zip(layout.names, layout.sizes, strict=True):
        columns[name] = slice(start, start + size)
        start += size
    return columns


def _swap(module: nn.Module, slots: Slots) -> nn.Module:
    # One stacked layer for each original, even if it is registered or called twice.
    replaced: dict[int, nn.Module] = {}

    def visit(layer: nn.Module, prefix: str) -> nn.Module:
        if id(layer) in replaced:
            return replaced[id(layer)]
        names = [name for name, _ in layer.named_parameters(recurse=False)]
        if names:
            own = {name: slots.columns[f"{prefix}{name}"] for name in names}
            replaced[id(layer)] = RULES[type(layer)](layer, replace(slots, columns=own))
            return replaced[id(layer)]
        for name, child in list(layer.named_children()):
            setattr(layer, name, visit(child, f"{prefix}{name}."))
        return layer

    return visit(module, "")


def calls_by_layer(taps: list[Tap], gradients: Sequence[Tensor | None]) -> dict[Tapped, list[Call]]:
    """The calls of each layer that the loss depends on.

    Args:
        taps: In the order of the forward pass.
        gradients: Of the loss by each tap's handle; None where the loss does not depend on it.
    """
    calls: dict[Tapped, list[Call]] = {}
    for tap, gradient in zip(taps, gradients, strict=True):
        if gradient is not None:
            calls.setdefault(tap.layer, []).append(Call(tap.inputs, gradient))
    return calls
