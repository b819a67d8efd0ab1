"""What moved a decision: integrated gradients by column or pixel (Sundararajan, Taly and Yan, 2017)."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch

from fedsafe.data import InputSchema, Schema
from fedsafe.serve.detectors.base import Floats
from fedsafe.serve.monitor import Monitor

STEPS: Final = 32
"""Passes through the model for one explanation, forwards and backwards."""


def moved_by(monitor: Monitor, schema: InputSchema, x: Floats) -> list[Mapping[str, float]]:
    """For each input the name of a column or pixel, and what it moved the explained output by.

    That is the logit of the predicted class, or the number; where two classes have one logit, what speaks for class 0
    is minus that logit.

    Args:
        monitor: With the model; the mean of its records is where the gradients start.
        schema: Of the inputs; a table's features are summed by column.
        x: ``(n, *inputs)`` finite encoded inputs, at least one.
    """
    from fedsafe.assess.interpretability.features import by_unit, column_of_features, feature_groups
    from fedsafe.assess.interpretability.gradients import integrated_gradients

    outputs = monitor.forward(x)[0]
    target = torch.tensor(outputs.argmax(axis=1))
    local = integrated_gradients(
        monitor.forward.model,
        torch.tensor(x),
        torch.tensor(monitor.centre[None]),
        target,
        steps=STEPS,
        batch=len(x),
        rng=np.random.default_rng(0),
    )
    moved = local.detach().double().numpy() * (x.astype(np.float64) - monitor.centre)
    if monitor.classes and outputs.shape[1] == 1:
        moved[outputs[:, 0] <= 0.0] *= -1.0
    if isinstance(schema, Schema):
        moved = by_unit(column_of_features(schema), moved)
        names = [name for name, _ in feature_groups(schema)]
    else:
        moved, names = moved.reshape(len(x), -1), list(schema.feature_names)
    return [dict(zip(names, map(float, row), strict=True)) for row in moved]
