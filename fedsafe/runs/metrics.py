"""The few figures that every round records about the global model."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from fedsafe.client import Objective, precompute
from fedsafe.client.objectives import OBJECTIVES
from fedsafe.data import Task
from fedsafe.params import Vector

# Examples in one forward pass: an image model's activations then stay within a few hundred megabytes.
_ROWS = 1024


class RoundMetrics:
    """Measures models on a task's evaluation records.

    Args:
        module: The architecture; it is copied. What is fixed in it is applied to the records once.
        task: The task.
        objective: Gives one loss per example.
    """

    def __init__(self, module: nn.Module, task: Task, objective: Objective) -> None:
        self._task, self._objective = task, objective
        module, self._x = precompute(copy.deepcopy(module).eval(), torch.tensor(task.evaluation.x))
        self._model, self._y = module.eval(), torch.tensor(task.evaluation.y)
        self._trainable = [p for p in self._model.parameters() if p.requires_grad]

    @torch.no_grad()
    def __call__(self, parameters: Vector) -> dict[str, float]:
        """Mean loss, and accuracy (over positions where there are several), or r2 and mae for regression.

        Args:
            parameters: ``(parameters,)`` of the model.

        Returns:
            Metric name to value; ``mae`` is in the target's own unit. Nothing where there are no evaluation records.
        """
        if self._task.unjudged:
            return {}
        nn.utils.vector_to_parameters(torch.from_numpy(parameters.copy()), self._trainable)
        outputs = torch.cat([self._model(part) for part in self._x.split(_ROWS)])  # type: ignore[no-untyped-call]
        return {**self._quality(outputs), "loss": float(self._losses(outputs).double().mean())}

    def _losses(self, outputs: Tensor) -> Tensor:
        """One loss per record; ours need the outputs alone, a user's may run the model as it likes."""
        if self._objective in OBJECTIVES.values():
            return self._objective(nn.Identity(), (outputs, self._y))
        parts = zip(self._x.split(_ROWS), self._y.split(_ROWS), strict=True)  # type: ignore[no-untyped-call]
        return torch.cat([self._objective(self._model, (x, y)) for x, y in parts])

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
