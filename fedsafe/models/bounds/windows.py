"""Backward steps over the part of an image that one output looks at, which is small in the early layers.

The arithmetic is that of the whole image, without the zeros.
"""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fedsafe.models.bounds.activations import Elementwise, Lines, MaxPooling, Windows
from fedsafe.models.bounds.network import Network
from fedsafe.models.bounds.operations import Convolution, Operation, Reshape, ScaleShift
from fedsafe.models.bounds.region import InputRegion


@dataclass(frozen=True)
class Window:
    """Rows and columns, each from the first to before the last."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, images: Tensor) -> Tensor:
        """That part of ``(n, channels, height, width)``; of what is constant over the image, all."""
        if images.shape[-2:] == (1, 1):
            return images
        return images[..., self.top : self.bottom, self.left : self.right]


def path(network: Network, number: int) -> list[int]:
    """The steps' values from a convolution's output back to the input image, if windows can follow them.

    Args:
        network: Of n inputs.
        number: The value.

    Returns:
        Value numbers from `number` down to 1, or nothing where a step does not keep places apart.
    """
    found = []
    while number:
        step = network.steps[number - 1]
        operation = step.operation
        same = isinstance(operation, Reshape) and operation.before == operation.after
        if not (same or isinstance(operation, Convolution | MaxPooling | Elementwise | ScaleShift)):
            return []
        if isinstance(operation, ScaleShift) and not _by_channel(operation):
            return []
        found.append(number)
        (number,) = step.inputs
    return found if len(network.shapes[0]) == 3 else []


def _by_channel(operation: ScaleShift) -> bool:
    return all(t.ndim == 0 or t.shape[-2:] == (1, 1) for t in (operation.scale, operation.shift))


def backward(
    operation: Operation, coefficients: Tensor, owner: Tensor, relaxation: Any, window: Window
) -> tuple[Tensor, Tensor, Window]:
    """One step back, as `Operation.backward`, for coefficients that are zero outside a window.

    Returns:
        Coefficients of the input within the window of it that matters, ``(pairs,)`` constants, and that window.
    """
    if isinstance(operation, Elementwise):
        lines = Lines(*(None if part is None else window.of(part) for part in relaxation))  # type: ignore[arg-type]
        (found,), constant = operation.backward(coefficients, owner, lines)
        return found, constant, window
    if not isinstance(operation, Convolution | MaxPooling):
        (found,), constant = operation.backward(coefficients, owner, relaxation)
        return found, constant, window
    if isinstance(operation, MaxPooling):
        kernel, dilation = operation.kernel, (1, 1)
        relaxation = Windows(
            [window.of(part) for part in relaxation.lower],
            [window.of(part) for part in relaxation.upper],
            window.of(relaxation.upper_at_zero),
        )
    else:
        kernel, dilation = (operation.weight.shape[2], operation.weight.shape[3]), operation.dilation
    stride, padding = operation.stride, operation.padding
    first = [place * stride[i] - padding[i] for i, place in enumerate((window.top, window.left))]
    counts = (window.bottom - window.top, window.right - window.left)
    sizes = [(counts[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    alone = replace(operation, padding=(0, 0), sides=(sizes[0], sizes[1]))
    (found,), constant = alone.backward(coefficients, owner, relaxation)
    # Places beyond the edge hold zeros, or never win.
    start = [max(0, place) for place in first]
    end = [min(operation.sides[i], first[i] + sizes[i]) for i in (0, 1)]
    kept = found[:, :, start[0] - first[0] : end[0] - first[0], start[1] - first[1] : end[1] - first[1]]
    return kept, constant, Window(start[0], end[0], start[1], end[1])


def part(region: InputRegion, window: Window) -> InputRegion:
    """The region of the pixels in a window."""
    return replace(
        region, clean=window.of(region.clean), low=window.of(region.low), high=window.of(region.high)
    )
