"""How a kernel moves over images of any number of dimensions: patches, and their way back.

Images are ``(n, channels, *lengths)`` as everywhere in PyTorch; patches are written with channels innermost, so that
whole rows of a patch are copied at once. With groups, the channels of a group lie together.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Window:
    """A kernel's size and steps, one value for each dimension of the images."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """How many values the kernel spans."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.size, self.dilation, strict=True))

    @property
    def area(self) -> int:
        """How many values the kernel has for one channel."""
        return math.prod(self.size)

    def places(self, lengths: Sequence[int]) -> tuple[int, ...]:
        """How many places the kernel has on images of these lengths, which are padded already."""
        steps = zip(lengths, self.reach, self.stride, strict=True)
        return tuple((length - reach) // stride + 1 for length, reach, stride in steps)

    def patches(self, images: Tensor, places: Sequence[int], stacked: int, groups: int) -> Tensor:
        """What the kernel sees at each place.

        Args:
            images: ``(stacked * n, groups * channels, *lengths)``.
            places: How many of its places to use.
            stacked: Clients, or examples, that each have a matrix of their own.
            groups: Of channels, that each have one too.

        Returns:
            ``(stacked * groups, n * places, kernel * channels)``.
        """
        view = self._view(images, places, stacked, groups)
        return view.reshape(stacked * groups, view.shape[2] * math.prod(places), -1)

    def write_patches(self, images: Tensor, places: Sequence[int], groups: int, out: Tensor) -> None:
        """The patches of single examples, to ``out`` (n * groups, places, kernel * channels)."""
        view = self._view(images, places, len(images), groups)
        out.unflatten(0, (-1, groups)).unflatten(2, (1, *places)).unflatten(-1, (*self.size, -1)).copy_(view)

    def _view(self, images: Tensor, places: Sequence[int], stacked: int, groups: int) -> Tensor:
        rows = images.movedim(1, -1).contiguous()
        count, *lengths, channels = rows.shape
        steps = [channels * math.prod(lengths[axis + 1 :]) for axis in range(len(lengths))]
        one, own = channels * math.prod(lengths), channels // groups
        return rows.as_strided(
            (stacked, groups, count // stacked, *places, *self.size, own),
            (
                count // stacked * one,
                own,
                one,
                *[step * stride for step, stride in zip(steps, self.stride, strict=True)],
                *[step * dilation for step, dilation in zip(steps, self.dilation, strict=True)],
                1,
            ),
        )

    def fold(self, patches: Tensor, shape: Sequence[int], places: Sequence[int], stacked: int) -> Tensor:
        """The sum over all patches of what they have for each value of the images.

        Args:
            patches: ``(stacked * groups, n * places, kernel * channels)``.
            shape: Of the images, ``(stacked * n, groups * channels, *lengths)``.
            places: How many places were used.
            stacked: As for :meth:`patches`.

        Returns:
            Images of that shape, channels innermost in memory.
        """
        count, channels, *lengths = shape
        groups = len(patches) // stacked
        parts = patches.reshape(stacked, groups, count // stacked, *places, *self.size, channels // groups)
        images = patches.new_zeros(stacked, count // stacked, *lengths, groups, channels // groups)
        by_group = images.movedim(-2, 1)
        whole = (slice(None),) * 3
        for offset in itertools.product(*[range(size) for size in self.size]):
            seen = [
                slice(o * d, o * d + s * (p - 1) + 1, s)
                for o, d, s, p in zip(offset, self.dilation, self.stride, places, strict=True)
            ]
            by_group[(*whole, *seen)].add_(parts[(*whole, *[slice(None)] * len(places), *offset)])
        return images.view(count, *lengths, channels).movedim(-1, 1)


def innermost(images: Tensor) -> Tensor:
    """Images with channels innermost in memory, by their strides too where there is only one channel."""
    rows = images.movedim(1, -1).contiguous()
    return rows.view(-1).view(rows.shape).movedim(-1, 1)


def padded(images: Tensor, before: Sequence[int], after: Sequence[int], mode: str = "constant") -> Tensor:
    """Images with something around them; negative widths cut off."""
    if not any((*before, *after)):
        return images
    # The library wants the last dimension first.
    widths = [width for pair in zip(reversed(before), reversed(after), strict=True) for width in pair]
    return F.pad(images, widths, mode=mode)


class Patches(torch.autograd.Function):
    """Images to patches; backwards, folded."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, window: Window, stacked: int, groups: int) -> Tensor:
        """``(stacked * groups, n * places, kernel * channels)``."""
        ctx.window, ctx.shape, ctx.stacked = window, images.shape, stacked
        ctx.places = window.places(images.shape[2:])
        return window.patches(images, ctx.places, stacked, groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient by the images."""
        return ctx.window.fold(gradient, ctx.shape, ctx.places, ctx.stacked), None, None, None


class Folded(torch.autograd.Function):
    """Patches to images; backwards, their patches."""

    @staticmethod
    def forward(
        ctx: Any, patches: Tensor, window: Window, stacked: int, shape: Sequence[int], places: Sequence[int]
    ) -> Tensor:
        """Images of the shape."""
        ctx.window, ctx.stacked, ctx.groups, ctx.places = window, stacked, len(patches) // stacked, places
        return window.fold(patches, shape, places, stacked)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The gradient by the patches."""
        by_patches = ctx.window.patches(gradient, ctx.places, ctx.stacked, ctx.groups)
        return by_patches, None, None, None, None
