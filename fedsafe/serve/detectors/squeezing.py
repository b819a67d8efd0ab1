"""Feature squeezing: an adversarial input changes its answer where an ordinary one does not (Xu, Evans and Qi, 2018).

Images lose bits of depth and pass a median filter; numbers of a table are rounded. The score is the largest distance,
in the L1 norm, between the probabilities before and after.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.serve.detectors.base import Array, Arrays, Floats, Seen, probabilities_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Squeezing:
    """The largest change of the answer by a squeezer.

    Attributes:
        shape: Of one input.
        low: ``(inputs,)`` and
        high: ``(inputs,)`` public bounds.
        moved: ``(inputs,)`` features that are rounded: those that an attack may move.
        levels: Numbers of levels that a feature is rounded to, one squeezer each; 2 is a bit.
        median: Whether a median filter of 2 by 2 pixels is one more squeezer.
    """

    shape: tuple[int, ...]
    low: Floats
    high: Floats
    moved: NDArray[np.bool_]
    levels: tuple[int, ...]
    median: bool
    name: str = field(default="feature squeezing")

    def __post_init__(self) -> None:
        span = np.maximum(self.high - self.low, np.float32(1e-12))
        object.__setattr__(self, "_steps", {each: span / np.float32(each - 1) for each in self.levels})

    def squeezed(self, inputs: Floats) -> list[Floats]:
        """Each squeezer's ``(n, inputs)``."""
        found = [self._rounded(inputs, levels) for levels in self.levels]
        if self.median:
            found.append(median_filter(inputs.reshape(-1, *self.shape)).reshape(len(inputs), -1))
        return found

    def score(self, seen: Seen) -> Array:
        """``(n,)`` distances, from 0 to 2 for a classifier."""
        parts = self.squeezed(seen.inputs)
        outputs = seen.again(parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(
            len(parts), len(seen), -1
        )
        before = seen.probabilities
        changes = [
            np.abs((probabilities_of(output) if seen.classes else output) - before).sum(axis=1)
            for output in outputs
        ]
        return np.asarray(changes[0] if len(changes) == 1 else np.maximum.reduce(changes))

    def _rounded(self, inputs: Floats, levels: int) -> Floats:
        steps: Mapping[int, Floats] = vars(self)["_steps"]
        step = steps[levels]
        rounded = np.rint((inputs - self.low) / step) * step + self.low
        return np.asarray(np.where(self.moved, rounded, inputs), np.float32)

    def state(self) -> tuple[Arrays, Mapping[str, Any]]:
        """The squeezers."""
        arrays: Arrays = {"low": self.low, "high": self.high, "moved": self.moved.astype(np.uint8)}
        return arrays, {"shape": list(self.shape), "levels": list(self.levels), "median": self.median}


def median_filter(images: Floats) -> Floats:
    """``(n, ..., height, width)`` the median of each pixel, the one to its left, above it and between (window of 2).

    Of four values it is the mean of the two in the middle; the image goes on at its edge as its edge.
    """
    left = np.concatenate([images[..., :, :1], images[..., :, :-1]], axis=-1)
    window = np.stack(
        [
            images,
            left,
            np.concatenate([images[..., :1, :], images[..., :-1, :]], axis=-2),
            np.concatenate([left[..., :1, :], left[..., :-1, :]], axis=-2),
        ]
    )
    extremes = window.max(axis=0) + window.min(axis=0)
    return np.asarray((window.sum(axis=0) - extremes) / 2.0, np.float32)
