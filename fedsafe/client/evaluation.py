"""What a model does to each record: its loss and its score, without training."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsafe.client.objectives import OBJECTIVES, Objective
from fedsafe.data import Kind

# Records that pass through the model at once.
_BATCH = 256


@torch.no_grad()
def per_record(
    module: nn.Module,
    objective: Objective,
    kind: Kind,
    x: Tensor,
    y: Tensor,
    rows: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses and scores of records at the module's present weights.

    Args:
        module: The model; it is left in the mode that it was in.
        objective: Gives one loss per example.
        kind: Of the task.
        x: ``(records, ...)`` inputs.
        y: ``(records, ...)`` targets.
        rows: ``(n,)`` which records.

    Returns:
        ``(n,)`` losses, and ``(n,)`` scores in [0, 1], 1 for best: whether the class is right; for sequences, the
        share of positions whose token is; for regression ``max(0, 1 - |error| / 2)``, the error in encoded units,
        whose range is 2. An output that is not a number scores 0.
    """
    losses, scores = np.empty(len(rows)), np.empty(len(rows))
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        for first in range(0, len(rows), _BATCH):
            some = torch.from_numpy(rows[first : first + _BATCH])
            outputs, targets = module(x[some]), y[some]
            scores[first : first + len(some)] = _scores(outputs, targets, kind).numpy()
            # A user's objective may run the model as it likes; ours only need what it gave.
            ours = objective in OBJECTIVES.values()
            model, inputs = (nn.Identity(), outputs) if ours else (module, x[some])
            losses[first : first + len(some)] = objective(model, (inputs, targets)).double().numpy()
    finally:
        for part, training in modes.items():
            part.training = training
    return losses, scores


def _scores(outputs: Tensor, targets: Tensor, kind: Kind) -> Tensor:
    if kind == "regression":
        error = (outputs[:, 0].double() - targets.double()).abs()
        return torch.where(torch.isfinite(error), (1.0 - error / 2.0).clamp(min=0.0), 0.0)
    right = (outputs[:, 0] > 0) == (targets > 0) if kind == "binary" else outputs.argmax(-1) == targets
    right = right & torch.isfinite(outputs).all(-1)
    return right.double() if right.ndim == 1 else right.double().mean(1)
