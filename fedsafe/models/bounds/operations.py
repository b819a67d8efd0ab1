"""The steps of a network whose outputs can be bounded: each maps values and intervals, and coefficients backwards.

An interval step encloses what a step can give (Gowal et al. 2018). A backward step takes a linear function of the
step's output to a linear function of its inputs that is nowhere larger on the inputs' intervals (Zhang et al. 2018): so
what is found at the input is a lower bound. Coefficients are ``(pairs, *shape)``; the owner of a pair is the example
whose intervals it refers to.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

Bounds = tuple[Tensor, Tensor]
"""Lowest and highest values, each ``(n, *shape)``."""

Slope = Literal["adaptive", "parallel"]
"""Lower line of a ReLU whose sign is open: of slope 0 or 1, the nearer (Zhang et al. 2018), or of the upper line's."""


@dataclass(frozen=True, kw_only=True)
class Operation(ABC):
    """One step of a network."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """The value itself."""

    @abstractmethod
    def interval(self, *inputs: Bounds) -> Bounds:
        """An enclosure of the values over the inputs' intervals."""

    @abstractmethod
    def relax(self, inputs: tuple[Bounds, ...], slope: Slope) -> Any:
        """What `backward` needs to know of the inputs' intervals; None where it is exact whatever they are."""

    @abstractmethod
    def backward(
        self, coefficients: Tensor, owner: Tensor, relaxation: Any
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Coefficients of each input, and ``(pairs,)`` constants.

        Args:
            coefficients: ``(pairs, *shape)`` of the output.
            owner: ``(pairs,)`` example of each pair.
            relaxation: What `relax` made.
        """

    @abstractmethod
    def rounded(self, share: Callable[[int], float], *sizes: Tensor) -> Tensor:
        """How far rounding may carry each output ``(n, *shape)``.

        Args:
            share: Of n roundings in a row, the share of the absolute terms that they may lose; not 0 for none where the
                arithmetic is not the step's own.
            sizes: Largest absolute value of each entry of each input ``(n, *shape)``.
        """

    def to(self, dtype: torch.dtype) -> Self:
        """A copy whose constants have this type; gradients pass through."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{n: v.to(dtype) for n, v in tensors.items() if isinstance(v, Tensor)})


@dataclass(frozen=True, kw_only=True)
class Affine(Operation):
    """``y = W x + b``."""

    @abstractmethod
    def lines(self, power: int) -> Callable[[Tensor], Tensor]:
        """The map ``x -> |W|^power x``, entry by entry, for power 1 or 2."""

    @abstractmethod
    def adjoint(self, coefficients: Tensor) -> Tensor:
        """``A W`` for coefficients A."""

    @abstractmethod
    def constant(self, coefficients: Tensor) -> Tensor:
        """``(pairs,)`` ``A b``."""

    @property
    @abstractmethod
    def terms(self) -> int:
        """Roundings that one output goes through in the model, those of what its constants are made of included."""

    @property
    @abstractmethod
    def offset(self) -> Tensor | float:
        """Absolute size of b, or of what it is computed from; broadcasts against the outputs."""

    def rounded(self, share: Callable[[int], float], *sizes: Tensor) -> Tensor:
        """A share of ``|W| |x| + |b|`` (Higham 2002, section 3.5)."""
        return share(self.terms) * (self.lines(1)(sizes[0]) + self.offset)

    def interval(self, *inputs: Bounds) -> Bounds:
        """By centre and half-width, which is exact for each output alone."""
        ((low, high),) = inputs
        centre, reach = self.forward((low + high) / 2), self.lines(1)((high - low) / 2)
        return centre - reach, centre + reach

    def relax(self, inputs: tuple[Bounds, ...], slope: Slope) -> None:
        """Nothing to know."""

    def backward(
        self, coefficients: Tensor, owner: Tensor, relaxation: Any
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Exact."""
        return (self.adjoint(coefficients),), self.constant(coefficients)


@dataclass(frozen=True, kw_only=True)
class Dense(Affine):
    """A linear layer on the last dimension.

    Attributes:
        weight: ``(outputs, inputs)``.
        bias: ``(outputs,)``.
    """

    weight: Tensor
    bias: Tensor

    def forward(self, *inputs: Tensor) -> Tensor:
        """``x W^T + b``."""
        return functional.linear(inputs[0], self.weight, self.bias)

    def lines(self, power: int) -> Callable[[Tensor], Tensor]:
        """By the weights' absolute values or squares."""
        weight = self.weight.abs() ** power
        return lambda x: functional.linear(x, weight)

    @property
    def terms(self) -> int:
        """A product and a sum for each input, and the bias."""
        return self.weight.shape[1] + 4

    @property
    def offset(self) -> Tensor:
        """The bias."""
        return self.bias.abs()

    def adjoint(self, coefficients: Tensor) -> Tensor:
        """``A W``."""
        return coefficients @ self.weight

    def constant(self, coefficients: Tensor) -> Tensor:
        """``A b``, over all positions."""
        return (coefficients * self.bias).flatten(1).sum(dim=1)


@dataclass(frozen=True, kw_only=True)
class Convolution(Affine):
    """A convolution of images with zeros around them.

    Attributes:
        weight: ``(outputs, inputs / groups, kernel, kernel)``.
        bias: ``(outputs,)``.
        sides: Height and width of the input, which a stride may not show.
        options: stride, padding, dilation and groups, as torch's ``conv2d`` takes them.
    """

    weight: Tensor
    bias: Tensor
    sides: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def forward(self, *inputs: Tensor) -> Tensor:
        """The convolution."""
        return self._convolve(inputs[0], self.weight, self.bias)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def lines(self, power: int) -> Callable[[Tensor], Tensor]:
        """By the weights' absolute values or squares."""
        weight = self.weight.abs() ** power
        return lambda x: self._convolve(x, weight)

    @property
    def terms(self) -> int:
        """A product and a sum for each place of the kernel, and the bias; a mean's divisor is a rounding more."""
        return int(self.weight[0].numel()) + 4

    @property
    def offset(self) -> Tensor:
        """The bias, at every place."""
        return self.bias.abs()[:, None, None]

    def adjoint(self, coefficients: Tensor) -> Tensor:
        """The transposed convolution."""
        kernel, found = self.weight.shape[2:], coefficients.shape[2:]
        least = [
            (found[i] - 1) * self.stride[i] - 2 * self.padding[i] + self.dilation[i] * (kernel[i] - 1) + 1
            for i in (0, 1)
        ]
        unseen = (self.sides[0] - least[0], self.sides[1] - least[1])
        return functional.conv_transpose2d(
            coefficients, self.weight, None, self.stride, self.padding, unseen, self.groups, self.dilation
        )

    def constant(self, coefficients: Tensor) -> Tensor:
        """The bias, at every place."""
        return coefficients.sum(dim=(2, 3)) @ self.bias


@dataclass(frozen=True, kw_only=True)
class ScaleShift(Affine):
    """``scale * x + shift``, entry by entry: normalisation by fixed statistics, a constant added or multiplied.

    Attributes:
        scale: Broadcasts against one example.
        shift: Broadcasts against one example.
        parts: Absolute size of what the shift is computed from, where its terms may cancel; None where it is given.
    """

    scale: Tensor
    shift: Tensor
    parts: Tensor | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        """``scale * x + shift``."""
        return inputs[0] * self.scale + self.shift

    def lines(self, power: int) -> Callable[[Tensor], Tensor]:
        """By the scales' absolute values or squares."""
        return lambda x: x * self.scale.abs() ** power

    @property
    def terms(self) -> int:
        """Those of fixed statistics, in whatever order: a root, a quotient, three products and two sums, twice."""
        return 16

    @property
    def offset(self) -> Tensor:
        """The shift, or its parts."""
        return self.shift.abs() if self.parts is None else self.parts

    def adjoint(self, coefficients: Tensor) -> Tensor:
        """``A * scale``."""
        return coefficients * self.scale

    def constant(self, coefficients: Tensor) -> Tensor:
        """``A . shift``."""
        return (coefficients * self.shift).flatten(1).sum(dim=1)


@dataclass(frozen=True, kw_only=True)
class Reshape(Affine):
    """The same values in another shape.

    Attributes:
        before: Shape of one example.
        after: The same values in this shape.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Reshaped."""
        return inputs[0].reshape(-1, *self.after)

    def lines(self, power: int) -> Callable[[Tensor], Tensor]:
        """Reshaped."""
        return self.forward

    @property
    def terms(self) -> int:
        """Nothing is computed."""
        return 0

    @property
    def offset(self) -> float:
        """None."""
        return 0.0

    def adjoint(self, coefficients: Tensor) -> Tensor:
        """Reshaped back."""
        return coefficients.reshape(-1, *self.before)

    def constant(self, coefficients: Tensor) -> Tensor:
        """Zero."""
        return coefficients.new_zeros(len(coefficients))


@dataclass(frozen=True, kw_only=True)
class Combine(Operation):
    """``x + sign * y``: where a shortcut meets its block.

    Attributes:
        sign: 1 or -1.
    """

    sign: int = 1

    def forward(self, *inputs: Tensor) -> Tensor:
        """The sum."""
        return inputs[0] + self.sign * inputs[1]

    def interval(self, *inputs: Bounds) -> Bounds:
        """The sum of the ends."""
        (low, high), (least, most) = inputs
        return (low + least, high + most) if self.sign > 0 else (low - most, high - least)

    def relax(self, inputs: tuple[Bounds, ...], slope: Slope) -> None:
        """Nothing to know."""

    def rounded(self, share: Callable[[int], float], *sizes: Tensor) -> Tensor:
        """One sum."""
        return share(1) * (sizes[0] + sizes[1])

    def backward(
        self, coefficients: Tensor, owner: Tensor, relaxation: Any
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Exact."""
        return (coefficients, self.sign * coefficients), coefficients.new_zeros(len(coefficients))
