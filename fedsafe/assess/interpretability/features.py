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


def column_of_features(schema: InputSchema) -> NDArray[np.int64]:
    """``(*inputs,)`` which of `feature_groups` each feature belongs to."""
    found = np.zeros(int(np.prod(schema.shape)), dtype=np.int64)
    for column, (_, features) in enumerate(feature_groups(schema)):
        found[list(features)] = column
    return found.reshape(schema.shape)


def removal_units(schema: InputSchema) -> NDArray[np.int64]:
    """``(*inputs,)`` which features are removed together: a column of a table, a pixel over all channels, or one."""
    if isinstance(schema, Schema):
        return column_of_features(schema)
    shape = schema.shape
    pixels = shape[-2:] if len(shape) > 1 else shape
    return np.broadcast_to(np.arange(int(np.prod(pixels))).reshape(pixels), shape).astype(np.int64)


def by_group(groups: Sequence[tuple[str, tuple[int, ...]]], attribution: Array) -> Array:
    """``(n, groups)`` absolute attribution of each group: its features are summed first.

    Args:
        groups: See `feature_groups`.
        attribution: ``(n, *inputs)``.
    """
    member = np.zeros(attribution[0].size, dtype=np.int64)
    for column, (_, features) in enumerate(groups):
        member[list(features)] = column
    return np.asarray(np.abs(by_unit(member, attribution)))


def by_unit(units: NDArray[np.int64], attribution: Array) -> Array:
    """``(n, units)`` signed sums of ``(n, *inputs)`` attributions over the features of each unit."""
    flat, member = attribution.reshape(len(attribution), -1), units.ravel()
    width = int(member.max()) + 1
    if width == flat.shape[1]:
        return np.asarray(flat[:, np.argsort(member)])
    sums = np.zeros((flat.shape[1], width))
    sums[np.arange(flat.shape[1]), member] = 1.0
    return np.asarray(flat @ sums)


def _cut(length: int) -> list[NDArray[np.int64]]:
    return [np.asarray(part) for part in np.array_split(np.arange(length), min(length, _PATCHES))]


def _span(positions: NDArray[np.int64]) -> str:
    first, last = int(positions[0]), int(positions[-1])
    return str(first) if first == last else f"{first}-{last}"
