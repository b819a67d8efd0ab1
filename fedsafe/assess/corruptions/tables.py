"""Worse records of a table: noise, missing values, and another mix of records."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.data import Schema

Array = NDArray[np.float64]

NOISE = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Standard deviation by severity, as a share of each feature's public range."""

MISSING = (0.05, 0.1, 0.2, 0.35, 0.5)
"""Share of the cells that are missing, by severity."""

_MOST_FEATURES = 10


def noise(subject: Subject, x: NDArray[Any], severity: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Normal noise on the numeric features that a person can change, clipped to the public bounds.

    Args:
        subject: With the schema.
        x: ``(n, *inputs)`` encoded.
        severity: From 1 to 5.
        rng: The only source of randomness.
    """
    low, high = subject.input_bounds()
    drawn = rng.standard_normal(x.shape) * (NOISE[severity - 1] * (high - low))
    return np.where(subject.perturbable(), np.clip(x + drawn, low, high), x).astype(np.float32)


def missing(
    subject: Subject, x: NDArray[Any], severity: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A share of the cells is lost, and encoded as the schema encodes one: by its fill, or the unknown category.

    Args:
        subject: With a schema of columns.
        x: ``(n, features)`` encoded.
        severity: From 1 to 5.
        rng: The only source of randomness.
    """
    schema = subject.task.schema
    if not isinstance(schema, Schema):
        raise TypeError("the inputs have no columns whose values could be missing")
    worse, start = x.copy(), 0
    for column in schema.columns:
        width = len(column.feature_names)
        lost = rng.random(len(x)) < MISSING[severity - 1]
        nothing = column.encode(np.array([None], dtype=np.object_))[0]
        worse[lost, start : start + width] = nothing
        start += width
    return worse.astype(np.float32)


def tilts(subject: Subject) -> Iterator[tuple[str, str, Array]]:
    """Weights that move the mean of one numeric feature by one standard deviation, where it is normal.

    Exponential tilting: a record weighs ``exp(t z)``, with z the feature in standard deviations from its mean and t 1
    or -1. What is measured under them is what the same model would show on such a mix of records, if nothing but the
    mix changed (covariate shift, Shimodaira 2000).

    Yields:
        The feature, "up" or "down", and ``(evaluation,)`` weights; for the first ten features that are numbers.
    """
    schema = subject.task.schema
    grouped = {index for group in schema.one_hot for index in group}
    names = [(i, name) for i, name in enumerate(schema.feature_names) if i not in grouped]
    for index, name in names[:_MOST_FEATURES]:
        values = subject.evaluation.x[:, index].astype(np.float64)
        spread = values.std()
        for direction, sign in (("up", 1.0), ("down", -1.0)):
            score = sign * (values - values.mean()) / spread if spread > 0 else np.zeros(len(values))
            yield name, direction, np.exp(score - score.max())
