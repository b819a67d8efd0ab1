"""The corruptions of images by name, and the suite that they come from."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.corruptions import blurs, drawing, geometry, pixels
from fedsafe.extensions import resolve

Images = NDArray[np.float64]


class Corruption(Protocol):
    """Makes images worse. A user's own is a function with these arguments, named by its import path."""

    def __call__(self, x: Images, severity: int, rng: np.random.Generator) -> Images:
        """Corrupts.

        Args:
            x: ``(n, *inputs)`` in [0, 1], the public bounds; images are ``(n, channels, height, width)``.
            severity: From 1 to 5.
            rng: The only source of randomness.

        Returns:
            The same shape, in [0, 1]; it is clipped.
        """


CORRUPTIONS: Mapping[str, Callable[..., Images]] = MappingProxyType(
    {
        "shot_noise": pixels.shot_noise,
        "impulse_noise": pixels.impulse_noise,
        "glass_blur": blurs.glass_blur,
        "motion_blur": blurs.motion_blur,
        "shear": geometry.shear,
        "scale": geometry.scale,
        "rotate": geometry.rotate,
        "brightness": pixels.brightness,
        "translate": geometry.translate,
        "stripe": pixels.stripe,
        "fog": drawing.fog,
        "spatter": drawing.spatter,
        "dotted_line": drawing.dotted_line,
        "zigzag": drawing.zigzag,
        "canny_edges": drawing.canny_edges,
        "gaussian_noise": pixels.gaussian_noise,
        "gaussian_blur": blurs.gaussian_blur,
    }
)
"""The built-in corruptions by name."""

MNIST_C: Mapping[str, int] = MappingProxyType(
    {
        "shot_noise": 5,
        "impulse_noise": 4,
        "glass_blur": 1,
        "motion_blur": 1,
        "shear": 2,
        "scale": 3,
        "rotate": 2,
        "brightness": 5,
        "translate": 3,
        "stripe": 1,
        "fog": 5,
        "spatter": 4,
        "dotted_line": 1,
        "zigzag": 1,
        "canny_edges": 1,
    }
)
"""The fifteen of MNIST-C at their severities (Mu and Gilmer 2019); some have one only."""

BY_SEVERITY: Sequence[str] = ("gaussian_noise", "gaussian_blur")


def corrupt(
    subject: Subject, x: NDArray[Any], name: str, severity: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Inputs made worse where they may be, in encoded units and inside the public bounds.

    Args:
        subject: With the bounds.
        x: ``(n, *inputs)``.
        name: Of the corruption.
        severity: From 1 to 5.
        rng: The only source of randomness.

    Raises:
        ConfigError: There is no such corruption.
        TypeError: It returned another shape.
        ValueError: It returned values that are not finite.
    """
    low, high = subject.input_bounds()
    unit = np.clip((x.astype(np.float64) - low) / (high - low), 0, 1)
    worse: Any = resolve("corruption", name, CORRUPTIONS)(unit, severity, rng)
    if not isinstance(worse, np.ndarray) or worse.shape != unit.shape:
        raise TypeError(f"it returned {np.shape(worse)} for images of shape {unit.shape}")
    if not np.isfinite(worse).all():
        raise ValueError("it returned values that are not finite")
    moved = low + np.clip(worse, 0, 1) * (high - low)
    return np.where(subject.perturbable(), moved, x).astype(np.float32)


def are_images(subject: Subject) -> bool:
    """Whether the inputs are images that the suite can take: grey or of three colours, of at least 8 by 8 pixels."""
    shape = subject.task.schema.shape
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= 8
