"""Features as a reader sees them: raw columns of a table, patches of an image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsafe.data import InputSchema, Schema

Array = NDArray[np.float64]

# Patches along each side of an image: 49 fit a table, and 4 by 4 pixels of a digit are a stroke.
_PATCHES = 7


def feature_groups(schema: InputSchema) -> list[tuple[str, tuple[int, ...]]]:
    """Names, and the flat indices of the features that each stands for; every feature is in one group.

    A table has its raw columns, of one feature or of a one-hot group; an image has rectangular patches over all
    channels; any other array has its single features.

    Args:
        schema: The public schema.
    """
    if isinstance(schema, Schema):
        stops = np.cumsum([len(column.feature_names) for column in schema.columns])
        spans = zip(schema.columns, stops, strict=True)
        return [(c.name, tuple(range(int(stop) - len(c.feature_names), int(stop)))) for c, stop in spans]
    if len(schema.shape) < 2:
        return [(name, (index,)) for index, name in enumerate(schema.feature_names)]
    *channels, height, width = schema.shape
    place = np.arange(int(np.prod(schema.shape))).reshape(*channels, height, width)
    return [
        (
            f"rows {_span(rows)}, columns {_span(columns)}",
            tuple(place[..., rows, :][..., columns].ravel().tolist()),
        )
        for rows in _cut(height)
        for columns in _cut(width)
    ]


def by_group(groups: Sequence[tuple[str, tuple[int, ...]]], attribution: Array) -> Array:
    """``(n, groups)`` absolute attribution of each group: its features are summed first.

    Args:
        groups: See `feature_groups`.
        attribution: ``(n, *inputs)``.
    """
    flat = attribution.reshape(len(attribution), -1)
    member = np.zeros((flat.shape[1], len(groups)))
    for column, (_, features) in enumerate(groups):
        member[list(features), column] = 1.0
    return np.asarray(np.abs(flat @ member))


def _cut(length: int) -> list[NDArray[np.int64]]:
    return [np.asarray(part) for part in np.array_split(np.arange(length), min(length, _PATCHES))]


def _span(positions: NDArray[np.int64]) -> str:
    first, last = int(positions[0]), int(positions[-1])
    return str(first) if first == last else f"{first}-{last}"
