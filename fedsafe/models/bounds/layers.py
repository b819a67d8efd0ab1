"""Which layers and functions have bounds, and the operations that they are."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsafe.models.bounds.activations import MaxPooling, Rectifier, Sigmoidal
from fedsafe.models.bounds.operations import Combine, Convolution, Dense, Operation, Reshape, ScaleShift

Shape = tuple[int, ...]


class Unsupported(Exception):
    """A step without bounds; the message says why, and `trace` says which."""


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, second = value
    return int(first), int(second)


def _linear(layer: nn.Linear, before: Shape) -> Operation:
    bias = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias
    return Dense(weight=layer.weight, bias=bias)


def _convolution(layer: nn.Conv2d, before: Shape) -> Operation:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise Unsupported(f"padding {layer.padding!r} by {layer.padding_mode}")
    bias = layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias
    return Convolution(
        weight=layer.weight,
        bias=bias,
        sides=(before[1], before[2]),
        stride=_pair(layer.stride),
        padding=_pair(layer.padding),
        dilation=_pair(layer.dilation),
        groups=layer.groups,
    )


def _mean(before: Shape, kernel: tuple[int, int], stride: tuple[int, int], padding: Any = 0) -> Operation:
    channels, *sides = before
    weight = torch.full((channels, 1, *kernel), 1.0 / (kernel[0] * kernel[1]))
    return Convolution(
        weight=weight,
        bias=torch.zeros(channels),
        sides=(sides[0], sides[1]),
        stride=stride,
        padding=_pair(padding),
        dilation=(1, 1),
        groups=channels,
    )


def _average(layer: nn.AvgPool2d, before: Shape) -> Operation:
    padded = _pair(layer.padding) != (0, 0)
    if layer.ceil_mode or layer.divisor_override or (padded and not layer.count_include_pad):
        raise Unsupported("windows of unequal weight")
    kernel = _pair(layer.kernel_size)
    return _mean(before, kernel, _pair(layer.stride or kernel), layer.padding)


def _adaptive_average(layer: nn.AdaptiveAvgPool2d, before: Shape) -> Operation:
    wanted: Any = layer.output_size
    sides = (wanted, wanted) if wanted is None or isinstance(wanted, int) else tuple(wanted)
    out = tuple(before[i + 1] if side is None else int(side) for i, side in enumerate(sides))
    if before[1] % out[0] or before[2] % out[1]:
        raise Unsupported("windows of unequal size")
    kernel = (before[1] // out[0], before[2] // out[1])
    return _mean(before, kernel, kernel)


def _maximum(layer: nn.MaxPool2d, before: Shape) -> Operation:
    if layer.ceil_mode or layer.return_indices or _pair(layer.dilation) != (1, 1):
        raise Unsupported("ceil_mode, return_indices or dilation")
    kernel = _pair(layer.kernel_size)
    return MaxPooling(
        kernel=kernel,
        stride=_pair(layer.stride or kernel),
        padding=_pair(layer.padding),
        sides=(before[1], before[2]),
    )


def _batch_norm(layer: Any, before: Shape) -> Operation:
    if layer.training or layer.running_mean is None:
        raise Unsupported("it uses the statistics of a batch")
    scale = (layer.running_var + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    shift = -layer.running_mean * scale + (0 if layer.bias is None else layer.bias)
    parts = (layer.running_mean * scale).abs() + (0 if layer.bias is None else layer.bias.abs())
    shape = (-1, *([1] * (len(before) - 1)))
    return ScaleShift(scale=scale.reshape(shape), shift=shift.reshape(shape), parts=parts.reshape(shape))


def scale_shift(scale: Any, shift: Any) -> Operation:
    """``scale * x + shift``, for numbers or tensors that broadcast against one example."""
    scale, shift = (
        v if isinstance(v, Tensor) else torch.tensor(v, dtype=torch.float64) for v in (scale, shift)
    )
    return ScaleShift(scale=scale, shift=shift)


def _same(layer: nn.Module, before: Shape) -> Operation:
    return Reshape(before=before, after=before)


def _dropout(layer: nn.Module, before: Shape) -> Operation:
    if layer.training:
        raise Unsupported("it is random in training mode")
    return Reshape(before=before, after=before)


MODULES: Mapping[type[nn.Module], Callable[[Any, Shape], Operation]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.AvgPool2d: _average,
    nn.AdaptiveAvgPool2d: _adaptive_average,
    nn.MaxPool2d: _maximum,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda layer, before: Rectifier(),
    nn.Tanh: lambda layer, before: Sigmoidal(logistic=False),
    nn.Sigmoid: lambda layer, before: Sigmoidal(logistic=True),
    nn.Identity: _same,
    nn.Dropout: _dropout,
    nn.Dropout2d: _dropout,
}
"""Layers of one input: type to what makes an operation of the layer and the shape of one example.

`nn.Flatten` and other reshapings are known by what they do.
"""

_ACTIVATIONS: Mapping[Any, Callable[[], Operation]] = {
    functional.relu: Rectifier,
    torch.relu: Rectifier,
    "relu": Rectifier,
    torch.tanh: lambda: Sigmoidal(logistic=False),
    "tanh": lambda: Sigmoidal(logistic=False),
    torch.sigmoid: lambda: Sigmoidal(logistic=True),
    functional.sigmoid: lambda: Sigmoidal(logistic=True),
    functional.tanh: lambda: Sigmoidal(logistic=False),
    "sigmoid": lambda: Sigmoidal(logistic=True),
}
RESHAPES: frozenset[Any] = frozenset(
    {torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze}
    | {"flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous"}
)
"""Functions and methods that keep the values and their order."""

_ADD = frozenset({operator.add, operator.iadd, torch.add, "add"})
_SUBTRACT = frozenset({operator.sub, torch.sub, "sub"})
_MULTIPLY = frozenset({operator.mul, torch.mul, "mul"})
_DIVIDE = frozenset({operator.truediv, torch.div, "div"})


def function(target: Any, arguments: tuple[Any, ...], live: tuple[bool, ...]) -> Operation:
    """The operation that a function of one or two arguments is.

    Args:
        target: The function, or the name of the method.
        arguments: Its values, for an example batch where they depend on the input.
        live: Which do.

    Raises:
        Unsupported: It is none that has bounds.
    """
    if target in _ACTIVATIONS and live == (True,):
        return _ACTIVATIONS[target]()
    if target is functional.linear and live[0] and not any(live[1:]):
        weight, bias = arguments[1], arguments[2] if len(arguments) > 2 else None
        return Dense(weight=weight, bias=weight.new_zeros(len(weight)) if bias is None else bias)
    if len(arguments) != 2:
        raise Unsupported("it has no bounds here")
    if all(live):
        if target in _ADD | _SUBTRACT and arguments[0].shape == arguments[1].shape:
            return Combine(sign=1 if target in _ADD else -1)
        raise Unsupported("it combines two values that depend on the input")
    other = arguments[1] if live[0] else arguments[0]
    variable: Tensor = arguments[0] if live[0] else arguments[1]
    if isinstance(other, Tensor):
        other = _of_one_example(other, variable)
    if target in _ADD:
        return scale_shift(1.0, other)
    if target in _SUBTRACT:
        return scale_shift(1.0, -other) if live[0] else scale_shift(-1.0, other)
    if target in _MULTIPLY:
        return scale_shift(other, 0.0)
    if target in _DIVIDE and live[0]:
        return scale_shift(1.0 / other, 0.0)
    raise Unsupported("it has no bounds here")


def _of_one_example(constant: Tensor, variable: Tensor) -> Tensor:
    """The constant without the dimension of the batch."""
    if constant.ndim > variable.ndim or (constant.ndim == variable.ndim and constant.shape[0] != 1):
        raise Unsupported(f"a constant of shape {tuple(constant.shape)} does not fit one example")
    return constant[0] if constant.ndim == variable.ndim else constant
