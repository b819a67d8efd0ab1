"""One loss and one bounded score for each record, whatever the kind of the task."""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedsafe.data import Kind

Array = NDArray[np.float64]


def decide(logits: Array) -> NDArray[np.int64]:
    """Classes ``(...,)`` from logits ``(..., outputs)``: a single logit is positive above 0."""
    if logits.shape[-1] == 1:
        return np.asarray(logits[..., 0] > 0, dtype=np.int64)
    return np.asarray(logits.argmax(axis=-1), dtype=np.int64)


def measure(kind: Kind, outputs: Array, y: NDArray[np.int64] | NDArray[np.float32]) -> tuple[Array, Array]:
    """Losses and scores of records.

    Args:
        kind: Of the task.
        outputs: ``(n, *outputs)`` finite outputs of the model.
        y: ``(n,)`` or ``(n, positions)`` targets.

    Returns:
        ``(n,)`` losses: the negative log-likelihood in nats (its mean over positions), or for regression the
        squared error in encoded units. ``(n,)`` scores in [0, 1], higher better: 1 where the class is predicted
        (the share of positions), or for regression 1 less the absolute error over the target's range, at least 0.
    """
    if kind == "regression":
        error = outputs[:, 0] - y
        return error**2, np.asarray(np.maximum(0.0, 1.0 - np.abs(error) / 2.0))
    correct = (decide(outputs) == y).astype(np.float64)
    if outputs.shape[-1] == 1:
        return np.logaddexp(0.0, np.where(y == 1, -outputs[..., 0], outputs[..., 0])), correct
    own = np.take_along_axis(outputs, y[..., None].astype(np.int64), axis=-1)[..., 0]
    losses = special.logsumexp(outputs, axis=-1) - own
    if kind == "next_token":
        return np.asarray(losses.mean(axis=1)), np.asarray(correct.mean(axis=1))
    return np.asarray(losses), correct
