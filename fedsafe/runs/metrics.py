"""The few figures that every round records about the global model."""

import numpy as np
import torch
from torch import Tensor, nn

from fedsafe.client import Objective
from fedsafe.data import Task

# Examples in one forward pass: an image model's activations then stay within a few hundred megabytes.
_ROWS = 1024


class RoundMetrics:
    """Measures models on a task's evaluation records.

    Args:
        task: The task.
        objective: Gives one loss per example.
    """

    def __init__(self, task: Task, objective: Objective) -> None:
        self._task, self._objective = task, objective
        self._x, self._y = torch.tensor(task.evaluation.x), torch.tensor(task.evaluation.y)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Mean loss, and accuracy (over positions where there are several), or r2 and mae for regression.

        Args:
            model: In evaluation mode.

        Returns:
            Metric name to value; ``mae`` is in the target's own unit.
        """
        outputs = torch.cat([model(part) for part in self._x.split(_ROWS)])  # type: ignore[no-untyped-call]
        # A stand-in that gives back the outputs: the objective need not run the model again.
        losses = self._objective(nn.Identity(), outputs, self._y)
        return {**self._quality(outputs), "loss": float(losses.double().mean())}

    def _quality(self, outputs: Tensor) -> dict[str, float]:
        if self._task.target is not None:
            return regression_metrics(
                outputs[:, 0].double().numpy(), self._y.numpy(), self._task.target.scale
            )
        binary = self._task.kind == "binary"
        predicted = (outputs[:, 0] > 0).long() if binary else outputs.argmax(-1)
        return {"accuracy": float((predicted == self._y).double().mean())}


def regression_metrics(predicted: np.ndarray, y: np.ndarray, scale: float) -> dict[str, float]:
    """R squared, which is 0 for always predicting the mean, and the mean absolute error.

    Args:
        predicted: ``(n,)`` in encoded units.
        y: ``(n,)`` in encoded units.
        scale: How many of the target's own units one encoded unit is.
    """
    errors = predicted.astype(np.float64) - y
    total = float(np.square(y - y.mean(dtype=np.float64)).sum())
    explained = 1.0 - float(np.square(errors).sum()) / total if total else float("nan")
    return {"r2": explained, "mae": float(np.abs(errors).mean()) * scale}
