"""Attributions drawn over public images, beside the image and a random attribution."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.findings import picture

Array = NDArray[np.float64]

_EXAMPLES, _MOST, _SIDE = 3, 24, 64


def attribution_pictures(
    subject: Subject,
    x: NDArray[np.float32],
    maps: Mapping[str, Array],
    answers: Sequence[str],
    rng: np.random.Generator,
) -> list[list[dict[str, Any]]]:
    """A row for each of a few examples: the image, the map of each explainer, and a random one.

    Args:
        subject: Whose evaluation records these are.
        x: ``(n, *inputs)``.
        maps: Attributions ``(n, *inputs)`` by explainer; all scaled by their own largest value.
        answers: What the model says of each example, in words.
        rng: Source of the random map.

    Returns:
        Empty where the records are private, are no images, or are too large to draw.
    """
    shape = subject.task.schema.shape
    if not subject.shows_records or len(shape) < 2 or max(shape[-2:]) > _SIDE:
        return []
    low, high = (float(end.min()) for end in (subject.task.schema.low, -subject.task.schema.high))
    rows = []
    for index in range(min(_EXAMPLES, len(x), _MOST // (len(maps) + 2))):
        row = [
            picture("example", _flat(x[index]), low=low, high=-high, note=f"the model says {answers[index]}")
        ]
        row += [
            picture(name.replace("_", " "), _flat(found[index]), scale="signed")
            for name, found in maps.items()
        ]
        random = np.zeros_like(x[index], dtype=np.float64) + rng.standard_normal(x[index].shape)
        row.append(picture("random", _flat(random), scale="signed", note="what an explanation must beat"))
        rows.append(row)
    return rows


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    """``(height, width)``: a mean over whatever comes before."""
    planes = np.asarray(values, dtype=np.float64).reshape(-1, *values.shape[-2:])
    return np.asarray(planes.mean(axis=0))
