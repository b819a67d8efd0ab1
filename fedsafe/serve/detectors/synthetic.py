"""Inputs from nowhere, made from public inliers, on which detectors are chosen; none of them is a test's own."""

from collections.abc import Mapping

import numpy as np

from fedsafe.data import InputSchema
from fedsafe.serve.detectors.base import Floats
from fedsafe.serve.detectors.column_tree import columns_of


def strange(inputs: Floats, schema: InputSchema, rng: np.random.Generator) -> Mapping[str, Floats]:
    """Families of inputs that no record is like, by name.

    ``uniform``: any value within the bounds. ``permuted``: features in one other order, as from a feed whose columns
    were mixed. ``mixtures``: halfway between two records. ``shuffled``: each column, or each quarter of an image, from
    another record.

    Args:
        inputs: ``(n, inputs)`` inliers.
        schema: The public schema.
        rng: Source of randomness.
    """
    return {
        "uniform": uniform(len(inputs), schema, rng),
        "permuted": permuted(inputs, rng),
        "mixtures": (inputs + inputs[rng.permutation(len(inputs))]) / np.float32(2.0),
        **({"shuffled": shuffled(inputs, schema, rng)} if len(schema.shape) in (1, 3) else {}),
    }


def uniform(count: int, schema: InputSchema, rng: np.random.Generator) -> Floats:
    """``(count, inputs)`` uniform within the public bounds."""
    low, high = (np.asarray(end, np.float32).ravel() for end in (schema.low, schema.high))
    return np.asarray(low + rng.random((count, len(low)), np.float32) * (high - low), np.float32)


def permuted(inputs: Floats, rng: np.random.Generator) -> Floats:
    """``(n, inputs)`` with the features in one other order, the same for all."""
    order = rng.permutation(inputs.shape[1])
    return np.ascontiguousarray(inputs[:, order])


def shuffled(inputs: Floats, schema: InputSchema, rng: np.random.Generator) -> Floats:
    """``(n, inputs)`` with each column from another record: each value is common, and they do not belong together.

    Of images, ``(channels, height, width)``, each quarter is from another record.
    """
    found = inputs.copy()
    if len(schema.shape) == 3:
        images, (down, across) = found.reshape(-1, *schema.shape), (side // 2 for side in schema.shape[1:])
        for rows in (slice(0, down), slice(down, None)):
            for columns in (slice(0, across), slice(across, None)):
                images[:, :, rows, columns] = images[rng.permutation(len(images))][:, :, rows, columns]
        return found
    for group in columns_of(schema.one_hot, inputs.shape[1]):
        found[:, list(group)] = inputs[rng.permutation(len(inputs))][:, list(group)]
    return found
