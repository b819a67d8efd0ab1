"""Gradients of a convolution's kernel, written out for each example of a client that is alone.

The patches that they are made of are written for a few examples at a time, to a buffer that stays in the cache. It
holds ones beside them, so that the same product gives the gradient by the bias.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from fedsafe.client.stacked.alignment import ALIGNMENT, aligned_matrices
from fedsafe.client.stacked.layers.conv_window import Window, padded

# Values of patches that are multiplied at once.
_PATCH_VALUES = 2**18

# Where fewer values than this lie together in a patch, it is faster to copy what one value of the kernel sees.
_SHORT_RUN = 32


class Written(Protocol):
    """A way to write them, for images of one shape."""

    def gradients(self, images: Tensor, by_output: Tensor) -> Tensor:
        """``(n, ...)``, in this way's own order.

        Args:
            images: ``(n, groups * channels, *lengths)``.
            by_output: ``(n, places, outputs)`` gradients of what the convolution gave.
        """
        ...

    def arranged(self, summed: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The kernel's part ``(n, outputs, channels, *size)``, then the bias's ``(n, outputs)`` if there is one.

        Args:
            summed: One ``(n, ...)`` in this way's order.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ByPatch:
    """One patch after another, channels innermost.

    Args:
        window: The kernel's.
        padding: Zeros on both sides of the images.
        lengths: Of the images.
        channels: Of a group.
        groups: Of channels.
        bias: Whether there is one.
    """

    window: Window
    padding: tuple[int, ...]
    lengths: tuple[int, ...]
    channels: int
    groups: int
    bias: bool

    @cached_property
    def _places(self) -> tuple[int, ...]:
        return self.window.places(self.lengths, self.padding)

    @cached_property
    def _width(self) -> int:
        return self.window.area * self.channels

    @cached_property
    def _positions(self) -> int:
        return math.prod(self._places)

    def gradients(self, images: Tensor, by_output: Tensor) -> Tensor:
        """``(n, groups, outputs, size * channels + bias and zeros)``: whole rows of the buffer multiply faster."""
        count, groups, width = len(images), self.groups, self._width
        images = padded(images, self.padding, self.padding)
        most = max(1, _PATCH_VALUES // (self._positions * width * groups))
        whole = ALIGNMENT * math.ceil((width + self.bias) / ALIGNMENT)
        buffer = images.new_empty(min(most, count) * groups, self._positions, whole)
        if width < whole:
            buffer[:, :, width:] = 0.0
        if self.bias:
            buffer[:, :, width] = 1.0
        if groups > 1:
            by_output = torch.unflatten(by_output, 2, (groups, -1)).transpose(1, 2).flatten(0, 1)
        rows = by_output.transpose(1, 2)
        written = images.new_empty(count, groups, rows.shape[1], whole)
        by_group = written.flatten(0, 1)
        for first in range(0, count, most):
            some = images[first : first + most]
            own = slice(first * groups, (first + len(some)) * groups)
            patches = buffer[: len(some) * groups]
            self.window.write_patches(some, self._places, groups, patches[:, :, :width])
            torch.bmm(rows[own], patches, out=by_group[own])
        return written

    def arranged(self, summed: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See :class:`Written`."""
        rows = summed[0].flatten(1, 2)
        kernel = torch.unflatten(rows[:, :, : self._width], 2, (*self.window.size, -1)).movedim(-1, 2)
        return (kernel, rows[:, :, self._width]) if self.bias else (kernel,)


@dataclass(frozen=True, kw_only=True)
class ByPlace:
    """For each value of the kernel all that it sees, place after place, as one run of memory.

    Images are cut into the phases of the stride. In a phase, moving the kernel is moving the start of the run. The
    run also passes between the places, from the end of a row to the start of the next: there gradients are zero.

    Args:
        window: The kernel's, with as many values in each phase.
        padding: Zeros on both sides of the images.
        lengths: Of the images.
        channels: Of the images.
        bias: Whether there is one.
    """

    window: Window
    padding: tuple[int, ...]
    lengths: tuple[int, ...]
    channels: int
    bias: bool

    @cached_property
    def _places(self) -> tuple[int, ...]:
        return self.window.places(self.lengths, self.padding)

    @cached_property
    def _phase(self) -> list[int]:
        """The lengths of a phase: no value that the kernel does not see."""
        w = self.window
        return [p - 1 + k // s for p, k, s in zip(self._places, w.size, w.stride, strict=True)]

    @cached_property
    def _after(self) -> tuple[int, ...]:
        """Zeros after the images, or what to cut off, so that the phases have these lengths."""
        sides = zip(self._phase, self.window.stride, self.lengths, self.padding, strict=True)
        return tuple(q * s - n - p for q, s, n, p in sides)

    @cached_property
    def _split(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Channels and lengths, each as phase by stride, and the order that puts the strides first."""
        dims = len(self.lengths)
        sizes = [v for pair in zip(self._phase, self.window.stride, strict=True) for v in pair]
        return (self.channels, *sizes), (0, 1, *range(3, 2 * dims + 2, 2), *range(2, 2 * dims + 2, 2))

    @cached_property
    def _runs(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shape and strides of ``(channels, *(size / stride and stride, in turn), run)`` in one example's phases."""
        w, dims = self.window, range(len(self.lengths))
        steps = [math.prod(self._phase[axis + 1 :]) for axis in dims]
        one = math.prod(self._phase)
        jumps = [one * math.prod(w.stride[axis + 1 :]) for axis in dims]
        shape = [v for k, s in zip(w.size, w.stride, strict=True) for v in (k // s, s)]
        strides = [v for pair in zip(steps, jumps, strict=True) for v in pair]
        run = 1 + sum((p - 1) * step for p, step in zip(self._places, steps, strict=True))
        return (self.channels, *shape, run), (one * math.prod(w.stride), *strides, 1)

    @property
    def waste(self) -> float:
        """How many times as long a run is as it has places."""
        return self._runs[0][-1] / math.prod(self._places)

    def gradients(self, images: Tensor, by_output: Tensor) -> Tensor:
        """``(n, channels * size + bias, outputs)``."""
        count, (shape, strides) = len(images), self._runs
        run, width = shape[-1], math.prod(shape[:-1])
        sizes, order = self._split
        images = padded(images, self.padding, self._after).view(count, *sizes)
        phases = images.permute(order).contiguous()
        runs = phases.as_strided((count, *shape), (phases.stride(0), *strides))
        rows = self._spread(by_output)[:, :run]
        most = max(1, _PATCH_VALUES // (width * run))
        buffer = aligned_matrices(min(most, count), width + self.bias, run, images)
        if self.bias:
            buffer[:, width] = 1.0
        patches = buffer[:, :width].view(-1, *shape)
        written = images.new_empty(count, width + self.bias, rows.shape[2])
        for first in range(0, count, most):
            stop = min(first + most, count)
            patches[: stop - first].copy_(runs[first:stop])
            torch.bmm(buffer[: stop - first], rows[first:stop], out=written[first:stop])
        return written

    def _spread(self, by_output: Tensor) -> Tensor:
        """``(n, places and what is between them, outputs)``: zero between them."""
        count, _, outputs = by_output.shape
        spread = by_output.new_zeros(count, self._places[0], *self._phase[1:], outputs)
        spread[(slice(None), *map(slice, self._places))] = by_output.view(count, *self._places, outputs)
        return spread.view(count, -1, outputs)

    def arranged(self, summed: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See :class:`Written`."""
        width = math.prod(self._runs[0][:-1])
        kernel = torch.unflatten(summed[0][:, :width].transpose(1, 2), 2, (-1, *self.window.size))
        return (kernel, summed[0][:, width]) if self.bias else (kernel,)


@functools.lru_cache(maxsize=256)
def way_to_write(
    window: Window,
    padding: tuple[int, ...],
    lengths: tuple[int, ...],
    channels: int,
    groups: int,
    bias: bool,
    several: bool,
) -> Written:
    """The faster one, by the shape alone.

    Args:
        window: The kernel's.
        padding: Zeros on both sides of the images.
        lengths: Of the images.
        channels: Of a group.
        groups: Of channels.
        bias: Whether there is one.
        several: Whether images of other lengths come too: what is added must have one order.
    """
    by_phase = zip(window.size, window.stride, window.dilation, strict=True)
    # Every value of an image is under the kernel then: what no place sees must not meet a gradient, even one of zero.
    if groups == 1 and not several and all(d == 1 and k % s == 0 for k, s, d in by_phase):
        by_place = ByPlace(window=window, padding=padding, lengths=lengths, channels=channels, bias=bias)
        if channels * window.size[-1] < _SHORT_RUN and by_place.waste < 1.5:
            return by_place
    return ByPatch(
        window=window, padding=padding, lengths=lengths, channels=channels, groups=groups, bias=bias
    )
