"""The public encoding of Adult loses nothing that a plain model needs."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from fedsafe.data import load_task
from fedsafe.models import build_model


def test_logistic_regression_without_privacy_reaches_85_percent():
    task = load_task("adult")
    model = build_model("logistic", signature=task.signature, seed=0)
    x, y = torch.from_numpy(task.train.x), torch.from_numpy(task.train.y).float()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=120, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(model(x)[:, 0], y)
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        positive = model(torch.from_numpy(task.evaluation.x))[:, 0] > 0
    accuracy = (positive.long() == torch.from_numpy(task.evaluation.y)).float().mean().item()
    # 16,281 records: the standard error is 0.0028.
    assert 0.850 <= accuracy <= 0.870
