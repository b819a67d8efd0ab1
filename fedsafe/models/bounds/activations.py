"""The steps of a network that are not linear, and the lines between which they stay."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fedsafe.models.bounds.operations import Bounds, Operation, Slope


class Lines(NamedTuple):
    """A line below and one above, entry by entry ``(n, *shape)``; a lower line through the origin has no constant."""

    lower: Tensor
    lower_at_zero: Tensor | None
    upper: Tensor
    upper_at_zero: Tensor


# Units roundoff that a library's tanh or logistic function may be off.
_FUNCTION = 16
# What the ends of a line may round off, as a share of what they are computed from.
_ENDS = 16.0


def _clear(*sizes: Tensor) -> Tensor:
    """Room above an upper line for the rounding of its ends."""
    room = sizes[0].abs()
    for size in sizes[1:]:
        room = room + size.abs()
    return _ENDS * torch.finfo(room.dtype).eps * room


@dataclass(frozen=True, kw_only=True)
class Elementwise(Operation):
    """An increasing function of each entry."""

    def interval(self, *inputs: Bounds) -> Bounds:
        """The function of the ends."""
        low, high = inputs[0]
        return self.forward(low), self.forward(high)

    def backward(
        self, coefficients: Tensor, owner: Tensor, relaxation: Any
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Positive coefficients follow the lower line, negative ones the upper."""
        lines: Lines = relaxation
        above, below = coefficients.clamp(min=0), coefficients.clamp(max=0)
        constant = torch.einsum("pi,pi->p", below.flatten(1), lines.upper_at_zero[owner].flatten(1))
        if lines.lower_at_zero is not None:
            constant = constant + (above * lines.lower_at_zero[owner]).flatten(1).sum(dim=1)
        return (above * lines.lower[owner] + below * lines.upper[owner],), constant


@dataclass(frozen=True, kw_only=True)
class Rectifier(Elementwise):
    """``max(x, 0)``."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """The positive part."""
        return inputs[0].clamp(min=0)

    def relax(self, inputs: tuple[Bounds, ...], slope: Slope) -> Lines:
        """Above: the chord. Below: a line through the origin (Zhang et al. 2018; Wong and Kolter 2018)."""
        low, high = inputs[0]
        width = (high - low).clamp(min=torch.finfo(low.dtype).tiny)
        chord = torch.where(low >= 0, 1.0, torch.where(high <= 0, 0.0, high / width))
        open_ = (low < 0) & (high > 0)
        lower = torch.where(open_, (high > -low).to(low.dtype), chord) if slope == "adaptive" else chord
        return Lines(lower, None, chord, torch.where(open_, _clear(low, high) - chord * low, 0.0))

    def rounded(self, share: Callable[[int], float], *sizes: Tensor) -> Tensor:
        """Nothing is computed."""
        return share(0) * sizes[0]


@dataclass(frozen=True, kw_only=True)
class Sigmoidal(Elementwise):
    """The hyperbolic tangent, or the logistic function.

    Attributes:
        logistic: Which.
    """

    logistic: bool

    def forward(self, *inputs: Tensor) -> Tensor:
        """The function."""
        return torch.sigmoid(inputs[0]) if self.logistic else torch.tanh(inputs[0])

    def relax(self, inputs: tuple[Bounds, ...], slope: Slope) -> Lines:
        """Parallel lines by the smaller slope at the ends, below which it falls nowhere (Singh et al. 2018)."""
        low, high = inputs[0]
        least, most = self.forward(low), self.forward(high)
        if self.logistic:
            incline = torch.minimum(least * (1 - least), most * (1 - most))
        else:
            incline = torch.minimum(1 - least**2, 1 - most**2)
        room = _clear(low, high, torch.ones_like(low))
        return Lines(incline, least - incline * low - room, incline, most - incline * high + room)

    def rounded(self, share: Callable[[int], float], *sizes: Tensor) -> Tensor:
        """What the library's function is right to, at its largest; it bends nowhere more than a line of slope 1."""
        return share(_FUNCTION) * self.forward(sizes[0]) + share(0) * (1 + sizes[0])


class Windows(NamedTuple):
    """How a maximum leans on each place of its window ``(n, channels, down, across)``; and the constant above."""

    lower: list[Tensor]
    upper: list[Tensor]
    upper_at_zero: Tensor


@dataclass(frozen=True, kw_only=True)
class MaxPooling(Operation):
    """The largest value of each window.

    Attributes:
        kernel: Height and width of the window.
        stride: Steps between windows.
        padding: Rows and columns around the image, which never win.
        sides: Height and width of the input.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    sides: tuple[int, int]

    def forward(self, *inputs: Tensor) -> Tensor:
        """The maxima."""
        return functional.max_pool2d(inputs[0], self.kernel, self.stride, self.padding)

    def interval(self, *inputs: Bounds) -> Bounds:
        """The maxima of the ends."""
        low, high = inputs[0]
        return self.forward(low), self.forward(high)

    def relax(self, inputs: tuple[Bounds, ...], slope: Slope) -> Windows:
        """Lines around each maximum.

        Below: the place with the highest middle. Above: with u the highest end, of place a, and b the highest end of
        the others, ``max(x) <= max(x_a, b)``, which is convex, so its chord from the lowest to the highest x_a is above
        it; where b is below the lowest x_a that is x_a itself.
        """
        vertical, horizontal = self.padding
        around = (horizontal, horizontal, vertical, vertical)
        low, high = (
            torch.stack(self._places(functional.pad(end, around, value=-torch.inf))) for end in inputs[0]
        )
        chosen = functional.one_hot((low + high).argmax(dim=0), len(low)).movedim(-1, 0).to(low.dtype)
        tops, at = high.topk(min(2, len(high)), dim=0)
        first = functional.one_hot(at[0], len(high)).movedim(-1, 0).to(low.dtype)
        top, least = tops[0], low.gather(0, at[:1])[0]
        rest = tops[1] if len(high) > 1 else torch.full_like(top, -torch.inf)
        alone, flat = rest <= least, top <= least
        other, width = torch.where(alone, least, rest), torch.where(flat, 1.0, top - least)
        incline = torch.where(alone | flat, 1.0, (top - other) / width)
        room = _clear(top, least, other)
        constant = torch.where(alone | flat, 0.0, other - incline * least + room)
        # The place of the highest end wins for certain: then the line below is the same.
        lower = torch.where(alone, first, chosen)
        return Windows(list(lower), list(first * incline), constant)

    def rounded(self, share: Callable[[int], float], *sizes: Tensor) -> Tensor:
        """Nothing is computed."""
        return share(0) * self.forward(sizes[0])

    def _places(self, padded: Tensor) -> list[Tensor]:
        """Views ``(n, channels, down, across)`` of padded images, one for each place of a window."""
        steps = [
            (padded.shape[i + 2] - self.kernel[i]) // self.stride[i] * self.stride[i] + 1 for i in (0, 1)
        ]
        return [
            padded[:, :, i : i + steps[0] : self.stride[0], j : j + steps[1] : self.stride[1]]
            for i in range(self.kernel[0])
            for j in range(self.kernel[1])
        ]

    def backward(
        self, coefficients: Tensor, owner: Tensor, relaxation: Any
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Positive coefficients go to the place below, negative ones to the place above."""
        windows: Windows = relaxation
        above, below = coefficients.clamp(min=0), coefficients.clamp(max=0)
        vertical, horizontal = self.padding
        pairs, channels = coefficients.shape[:2]
        whole = coefficients.new_zeros(
            pairs, channels, self.sides[0] + 2 * vertical, self.sides[1] + 2 * horizontal
        )
        for place, low, high in zip(self._places(whole), windows.lower, windows.upper, strict=True):
            place += above * low[owner] + below * high[owner]
        back = whole[:, :, vertical : vertical + self.sides[0], horizontal : horizontal + self.sides[1]]
        constant = torch.einsum("pi,pi->p", below.flatten(1), windows.upper_at_zero[owner].flatten(1))
        return (back,), constant
