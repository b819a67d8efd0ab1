"""How a kernel moves over images of any number of dimensions: patches, and their way back.

Images are ``(n, channels, *lengths)`` as everywhere in PyTorch; patches are written with channels innermost, so that
whole rows of a patch are copied at once. With groups, the channels of a group lie together.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Channels innermost, by the number of dimensions.
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


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

    def places(self, lengths: Sequence[int], padding: Sequence[int] | None = None) -> tuple[int, ...]:
        """How many places the kernel has on images of these lengths, with something on both sides of each."""
        return _places(self, tuple(lengths), None if padding is None else tuple(padding))

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
        out.view(view.shape).copy_(view)

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
        by_offset = parts.flatten(3 + len(places), -2)
        for number, offset in enumerate(itertools.product(*[range(size) for size in self.size])):
            seen = [
                slice(o * d, o * d + s * (p - 1) + 1, s)
                for o, d, s, p in zip(offset, self.dilation, self.stride, places, strict=True)
            ]
            by_group[(slice(None), slice(None), slice(None), *seen)].add_(by_offset.select(-2, number))
        return images.view(count, *lengths, channels).movedim(-1, 1)


@functools.lru_cache(maxsize=256)
def _places(window: Window, lengths: tuple[int, ...], padding: tuple[int, ...] | None) -> tuple[int, ...]:
    around = (0,) * len(lengths) if padding is None else padding
    steps = zip(lengths, around, window.reach, window.stride, strict=True)
    return tuple((length + 2 * edge - reach) // stride + 1 for length, edge, reach, stride in steps)


def innermost(images: Tensor) -> Tensor:
    """Images with channels innermost in memory, by their strides too where there is only one channel."""
    if images.shape[1] > 1 and images.is_contiguous(memory_format=_FORMATS[images.ndim]):
        return images
    rows = images.movedim(1, -1).contiguous()
    return rows.view(-1).view(rows.shape).movedim(-1, 1)


def padded(images: Tensor, before: Sequence[int], after: Sequence[int], mode: str = "constant") -> Tensor:
    """Images with something around them; negative widths cut off."""
    if not any((*before, *after)):
        return images
    # The library wants the last dimension first.
    widths = [width for pair in zip(reversed(before), reversed(after), strict=True) for width in pair]
    return torch.constant_pad_nd(images, widths) if mode == "constant" else F.pad(images, widths, mode=mode)


def window_of(template: Any) -> Window:
    """How the kernel of one of the library's convolutions moves; one of a sequence is one row high."""
    raised = (1,) if len(template.kernel_size) == 1 else ()
    return Window(
        size=(*raised, *template.kernel_size),
        stride=(*raised, *template.stride),
        dilation=(*raised, *template.dilation),
    )


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
        ctx: Any,
        patches: Tensor,
        window: Window,
        stacked: int,
        shape: Sequence[int],
        places: Sequence[int],
        edges: Sequence[int],
    ) -> Tensor:
        """Images of the shape, which the edges were cut off from on both sides."""
        ctx.window, ctx.stacked, ctx.groups = window, stacked, len(patches) // stacked
        ctx.places, ctx.edges = places, edges
        lengths = [n + 2 * edge for n, edge in zip(shape[2:], edges, strict=True)]
        images = window.fold(patches, (*shape[:2], *lengths), places, stacked)
        inside = [slice(edge, edge + n) for n, edge in zip(shape[2:], edges, strict=True)]
        return images[(slice(None), slice(None), *inside)]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        """The gradient by the patches."""
        images = padded(gradient, ctx.edges, ctx.edges)
        by_patches = ctx.window.patches(images, ctx.places, ctx.stacked, ctx.groups)
        return by_patches, None, None, None, None, None
