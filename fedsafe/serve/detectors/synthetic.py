"""Inputs from nowhere, made from public inliers: families by which detectors are chosen, and others to report on alone.

Figures on a family that chose the detectors flatter them, also where its inputs are new; what is published says so.
"""

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


def unused(inputs: Floats, schema: InputSchema, rng: np.random.Generator) -> Mapping[str, Floats]:
    """Families that have no part in choosing detectors, by name; at least one.

    ``inverted``: every number on the other side of the middle of its bounds. ``records at random``: of a table with
    categories, each category as likely as any other, and each number uniform within its bounds.

    Args:
        inputs: ``(n, inputs)`` inliers.
        schema: The public schema.
        rng: Source of randomness.
    """
    low, high = (np.asarray(end, np.float32).ravel() for end in (schema.low, schema.high))
    found, groups = {}, [list(group) for group in schema.one_hot]
    categories = np.zeros(len(low), np.bool_)
    for group in groups:
        categories[group] = True
    if not categories.all():
        found["inverted"] = np.where(categories, inputs, low + high - inputs).astype(np.float32)
    if groups:
        made = uniform(len(inputs), schema, rng)
        made[:, categories] = 0.0
        for group in groups:
            made[np.arange(len(made)), rng.choice(group, len(made))] = 1.0
        found["records at random"] = made
    return found


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
