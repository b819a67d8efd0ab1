"""Gradients of a convolution's kernel, written out for each example of a client that is alone.

The patches that they are made of are written for a few examples at a time, to a buffer that stays in the cache. It
holds ones beside them, so that the same product gives the gradient by the bias.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedsafe.client.stacked.alignment import aligned_matrices
from fedsafe.client.stacked.layers.conv_window import Window, padded

# Values of patches that are multiplied at once.
_PATCH_VALUES = 2**18

# Where fewer values than this lie together in a patch, it is faster to copy what one value of the kernel sees.
_SHORT_RUN = 32


class Written(Protocol):
    """A way to write them."""

    def gradients(self, images: Tensor, by_output: Tensor, places: Sequence[int]) -> Tensor:
        """``(n, ...)``, in this way's own order.

        Args:
            images: ``(n, groups * channels, *lengths)``, padded.
            by_output: ``(n, places, outputs)`` gradients of what the convolution gave.
            places: Of the kernel.
        """
        ...

    def arranged(self, summed: Tensor) -> tuple[Tensor, ...]:
        """The kernel's part ``(n, outputs, channels, *size)``, then the bias's ``(n, outputs)`` if there is one."""
        ...


def way_to_write(window: Window, channels: int, groups: int, places: Sequence[int], bias: bool) -> Written:
    """The faster one, by the shape alone.

    Args:
        window: The kernel's.
        channels: Of a group.
        groups: Of channels.
        places: Of the kernel.
        bias: Whether there is one.
    """
    by_place = ByPlace(window=window, bias=bias)
    short = channels * window.size[-1] < _SHORT_RUN and groups == 1
    if short and by_place.fits and by_place.run(places) <= 1.5 * math.prod(places):
        return by_place
    return ByPatch(window=window, groups=groups, bias=bias)


@dataclass(frozen=True, kw_only=True)
class ByPatch:
    """One patch after another, channels innermost.

    Args:
        window: The kernel's.
        groups: Of channels.
        bias: Whether there is one.
    """

    window: Window
    groups: int
    bias: bool

    def gradients(self, images: Tensor, by_output: Tensor, places: Sequence[int]) -> Tensor:
        """``(n, groups, outputs, size * channels + bias)``."""
        count, positions, groups = len(images), math.prod(places), self.groups
        width = self.window.area * (images.shape[1] // groups)
        most = max(1, _PATCH_VALUES // (positions * width * groups))
        buffer = aligned_matrices(min(most, count) * groups, positions, width + self.bias, images)
        if self.bias:
            buffer[:, :, width] = 1.0
        # A group's own rows; without groups, the gradients as they are.
        rows = by_output.unflatten(2, (groups, -1)).transpose(1, 2).reshape(count * groups, positions, -1)
        written = images.new_empty(count * groups, rows.shape[2], width + self.bias)
        for first in range(0, count, most):
            some = images[first : first + most]
            own = slice(first * groups, (first + len(some)) * groups)
            patches = buffer[: len(some) * groups]
            self.window.write_patches(some, places, groups, patches[:, :, :width])
            torch.bmm(rows[own].transpose(1, 2), patches, out=written[own])
        return written.view(count, groups, *written.shape[1:])

    def arranged(self, summed: Tensor) -> tuple[Tensor, ...]:
        """See :class:`Written`."""
        rows = summed.flatten(1, 2)
        width = rows.shape[2] - self.bias
        kernel = rows[:, :, :width].unflatten(2, (*self.window.size, -1)).movedim(-1, 2)
        return (kernel, rows[:, :, width]) if self.bias else (kernel,)


@dataclass(frozen=True, kw_only=True)
class ByPlace:
    """For each value of the kernel all that it sees, place after place, as one run of memory.

    Images are cut into the phases of the stride. In a phase, moving the kernel is moving the start of the run. The
    run also passes between the places, from the end of a row to the start of the next: there gradients are zero.

    Args:
        window: The kernel's.
        bias: Whether there is one.
    """

    window: Window
    bias: bool

    @property
    def fits(self) -> bool:
        """Whether each phase has as many of the kernel's values, and every value of an image is under the kernel."""
        w = self.window
        return all(d == 1 and k % s == 0 for k, s, d in zip(w.size, w.stride, w.dilation, strict=True))

    def run(self, places: Sequence[int]) -> int:
        """How many values a run has."""
        return 1 + sum((p - 1) * step for p, step in zip(places, self._steps(places), strict=True))

    def _phase(self, places: Sequence[int]) -> list[int]:
        """The lengths of a phase: no value that the kernel does not see."""
        w = self.window
        return [p - 1 + k // s for p, k, s in zip(places, w.size, w.stride, strict=True)]

    def _steps(self, places: Sequence[int]) -> list[int]:
        lengths = self._phase(places)
        return [math.prod(lengths[axis + 1 :]) for axis in range(len(lengths))]

    def gradients(self, images: Tensor, by_output: Tensor, places: Sequence[int]) -> Tensor:
        """``(n, channels * size + bias, outputs)``."""
        count, channels, run = len(images), images.shape[1], self.run(places)
        width = channels * self.window.area
        rows = self._spread(by_output, places)[:, :run]
        runs = self._runs(images, places)
        most = max(1, _PATCH_VALUES // (width * run))
        buffer = aligned_matrices(min(most, count), width + self.bias, run, images)
        if self.bias:
            buffer[:, width] = 1.0
        written = images.new_empty(count, width + self.bias, rows.shape[2])
        for first in range(0, count, most):
            some = runs[first : first + most]
            patches = buffer[: len(some)]
            patches[:, :width].view(some.shape).copy_(some)
            torch.bmm(patches, rows[first : first + most], out=written[first : first + most])
        return written

    def _spread(self, by_output: Tensor, places: Sequence[int]) -> Tensor:
        """``(n, places and what is between them, outputs)``: zero between them."""
        lengths = [places[0], *self._phase(places)[1:]]
        spread = by_output.new_zeros(len(by_output), *lengths, by_output.shape[2])
        spread[(slice(None), *[slice(p) for p in places])] = by_output.unflatten(1, tuple(places))
        return spread.flatten(1, -2)

    def _runs(self, images: Tensor, places: Sequence[int]) -> Tensor:
        """``(n, channels, *(size / stride and stride, in turn), run)``, overlapping."""
        lengths, w = self._phase(places), self.window
        ends = [s * q - n for s, q, n in zip(w.stride, lengths, images.shape[2:], strict=True)]
        images = padded(images, [0] * len(ends), ends)
        split = images.view(
            *images.shape[:2], *[v for pair in zip(lengths, w.stride, strict=True) for v in pair]
        )
        dims = len(lengths)
        phases = split.permute(0, 1, *range(3, 2 * dims + 2, 2), *range(2, 2 * dims + 2, 2)).contiguous()
        strides, steps = phases.stride()[2 : 2 + dims], self._steps(places)
        shape = [v for k, s in zip(w.size, w.stride, strict=True) for v in (k // s, s)]
        jumps = [v for step, phase in zip(steps, strides, strict=True) for v in (step, phase)]
        return phases.as_strided(
            (*phases.shape[:2], *shape, self.run(places)), (*phases.stride()[:2], *jumps, 1)
        )

    def arranged(self, summed: Tensor) -> tuple[Tensor, ...]:
        """See :class:`Written`."""
        width = summed.shape[1] - self.bias
        kernel = summed[:, :width].transpose(1, 2).unflatten(2, (-1, *self.window.size))
        return (kernel, summed[:, width]) if self.bias else (kernel,)
