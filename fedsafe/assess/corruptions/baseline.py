"""The model whose errors under corruption are the measure of the model's: relative errors need one, by name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedsafe.assess.base import Subject
from fedsafe.data import Examples
from fedsafe.errors import ModelError
from fedsafe.extensions import imported

Predict = Callable[[NDArray[Any]], NDArray[np.float64]]
"""``(n, *inputs)`` to ``(n, outputs)``."""

_FEWEST, _MOST = 200, 4000
_FEWEST_TO_HALVE = 50
_RIDGE = 0.1


def find_baseline(
    subject: Subject, name: str, rows: NDArray[np.int64]
) -> tuple[str, Callable[[Examples], NDArray[np.float64]]] | str:
    """What says how wrong the baseline is.

    Args:
        subject: Whose records and task it is for.
        name: "ridge", linear least squares on the evaluation records that are not measured on, or, where these are few,
            on half of them for the other half; "previous", the model of the last assessment; or the import path of a
            function without arguments that returns a module for the task.
        rows: Evaluation examples that are measured on.

    Returns:
        What to call it, and the outputs ``(n, outputs)`` that it gives examples; or why there is none.

    Raises:
        ConfigError: The import path names nothing.
        ModelError: The function does not return a module.
    """
    if name == "ridge":
        rest = np.setdiff1d(np.arange(len(subject.evaluation)), rows)[:_MOST]
        if len(rest) < _FEWEST:
            return _cross_fitted(subject, rows)
        fitted = fit_ridge(subject, subject.evaluation.take(rest))
        return f"ridge on {len(rest)} other evaluation records", lambda examples: fitted(examples.x)
    if name == "previous":
        if subject.previous is None:
            return "there was no assessment before this one"
        other = replace(subject, model=subject.previous)
        return "the model of the last assessment", lambda examples: other.logits(examples.x)
    module: object = imported(name, "baseline")()
    if not isinstance(module, nn.Module):
        raise ModelError(f"the baseline {name!r} returned {type(module).__name__}, not a torch.nn.Module")
    user = replace(subject, model=module.eval())
    return name, lambda examples: user.logits(examples.x)


def _cross_fitted(
    subject: Subject, rows: NDArray[np.int64]
) -> tuple[str, Callable[[Examples], NDArray[np.float64]]] | str:
    """Where few records are left: each half of those that are measured on, by what was fitted on the other half."""
    if len(rows) < _FEWEST_TO_HALVE:
        return f"{len(rows)} evaluation records are too few to fit a linear baseline on: it needs {_FEWEST_TO_HALVE}"
    halves = [fit_ridge(subject, subject.evaluation.take(rows[start::2])) for start in (1, 0)]

    def outputs(examples: Examples) -> NDArray[np.float64]:
        parts = [half(examples.x[start::2]) for start, half in enumerate(halves)]
        found = np.empty((len(examples), parts[0].shape[1]))
        found[0::2], found[1::2] = parts
        return found

    return "ridge on one half of the evaluation records for the other", outputs


def fit_ridge(subject: Subject, examples: Examples) -> Predict:
    """Ridge regression of the targets, or of each class's indicator, on the features (Hoerl and Kennard 1970).

    The penalty is a tenth of the number of records: features are of order 1.

    Args:
        subject: With the task.
        examples: To fit on.
    """
    x = examples.x.reshape(len(examples), -1).astype(np.float64)
    centre = x.mean(axis=0)
    if subject.task.kind == "regression":
        targets = examples.y[:, None].astype(np.float64)
    else:
        targets = np.eye(len(subject.task.classes))[examples.y]
    level = targets.mean(axis=0)
    gram = (x - centre).T @ (x - centre) + _RIDGE * len(x) * np.eye(x.shape[1])
    weight = np.linalg.solve(gram, (x - centre).T @ (targets - level))
    return lambda inputs: (inputs.reshape(len(inputs), -1) - centre) @ weight + level
