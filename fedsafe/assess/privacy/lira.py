"""The likelihood ratio attack: how a record's loss compares with those of models that had it, and that had it not."""

import numpy as np
from numpy.typing import NDArray

from fedsafe.data import Kind

Array = NDArray[np.float64]

# Below so many models with a record, its own variance is mostly chance: that of all records is better (Carlini et al.
# 2022, section IV-D, who switch at 64 models, 32 of them with the record).
_OWN_VARIANCE = 32
# Logits of probabilities that double precision does not tell from 0 or 1.
_LARGEST = 50.0


def confidence(kind: Kind, losses: Array) -> Array:
    """What is nearly Gaussian over models: ``log(p / (1 - p))`` of the true class's probability p.

    Source: Carlini et al. (2022), section IV-C. For numbers and sequences, minus the loss.

    Args:
        kind: Of the task.
        losses: Of any shape; for classes, ``-log p``.
    """
    if kind in ("regression", "next_token"):
        return np.asarray(-losses)
    with np.errstate(divide="ignore"):
        logits = -losses - np.log(-np.expm1(-losses))
    return np.clip(logits, -_LARGEST, _LARGEST)


def likelihood_ratios(target: Array, shadows: Array, inside: NDArray[np.bool_], *, online: bool) -> Array:
    """Scores of records: larger where the target more likely had them.

    Online: ``log N(t; mean_in, var_in) - log N(t; mean_out, var_out)``. Offline, with models that did not have the
    record alone: ``(t - mean_out) / deviation_out``, which ranks like the paper's one-sided p-value. Source: Carlini et
    al. (2022), algorithm 1 and equation 4.

    Args:
        target: ``(records,)`` confidences of the attacked model, see `confidence`.
        shadows: ``(shadows, records)`` those of the shadow models.
        inside: ``(shadows, records)`` which model had which record; each record at least two with it and two without.
        online: Whether models that had the record are used.

    Returns:
        ``(records,)``.
    """
    mean_out, variance_out = _fitted(shadows, ~inside)
    if not online:
        return np.asarray((target - mean_out) / np.sqrt(variance_out))
    mean_in, variance_in = _fitted(shadows, inside)
    return np.asarray(
        _log_density(target, mean_in, variance_in) - _log_density(target, mean_out, variance_out)
    )


def _fitted(values: Array, chosen: NDArray[np.bool_]) -> tuple[Array, Array]:
    """``(records,)`` means and variances over the chosen models."""
    counts = chosen.sum(0)
    means = np.where(chosen, values, 0.0).sum(0) / counts
    squares = np.where(chosen, (values - means) ** 2, 0.0).sum(0)
    if counts.min() < _OWN_VARIANCE:
        variances = np.full(len(means), squares.sum() / (counts - 1).sum())
    else:
        variances = squares / (counts - 1)
    return means, np.maximum(variances, 1e-12)


def _log_density(values: Array, means: Array, variances: Array) -> Array:
    return np.asarray(-0.5 * ((values - means) ** 2 / variances + np.log(variances)))


def halves(shadows: int, records: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """``(shadows, records)``: each record is in half of the models, exactly, chosen for each record by itself.

    Args:
        shadows: How many models, even.
        records: How many records.
        rng: Chooses.
    """
    places = rng.random((shadows, records)).argsort(axis=0)
    return np.asarray(places < shadows // 2)
