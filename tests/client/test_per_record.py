"""Losses and scores of single records, whatever the kind of task and whatever the model gives."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedsafe.client.evaluation import per_record
from fedsafe.client.objectives import UserObjective, cross_entropy, squared_error

NAN, INF = math.nan, math.inf


def judge(kind, outputs, targets, objective=cross_entropy, rows=None):
    """What records get whose outputs are their inputs."""
    x, y = torch.tensor(outputs), torch.tensor(targets)
    rows = np.arange(len(y)) if rows is None else np.asarray(rows)
    return per_record(nn.Identity(), objective, kind, x, y, rows)


@pytest.mark.parametrize(
    ("kind", "objective", "outputs", "targets", "scores"),
    [
        ("binary", cross_entropy, [[2.0], [-2.0], [0.5], [0.0]], [1, 1, 0, 0], [1, 0, 0, 1]),
        ("binary", cross_entropy, [[NAN], [INF], [-INF]], [0, 1, 0], [0, 0, 0]),
        ("multiclass", cross_entropy, [[3.0, 1.0, 2.0], [0.0, 1.0, 2.0]], [0, 0], [1, 0]),
        ("multiclass", cross_entropy, [[3.0, NAN, 2.0], [INF, 1.0, 2.0]], [0, 0], [0, 0]),
        ("regression", squared_error, [[0.5], [1.0], [-1.0], [9.0]], [0.5, 0.5, 1.0, 0.0], [1, 0.75, 0, 0]),
        ("regression", squared_error, [[NAN], [INF], [-INF]], [0.0, 0.0, 0.0], [0, 0, 0]),
        (
            "next_token",
            cross_entropy,
            [[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, NAN]], [[0.0, 1.0]] * 4],
            [[0, 1, 1, 0], [1, 1, 1, 1]],
            [0.5, 1],
        ),
    ],
)
def test_scores_by_kind(kind, objective, outputs, targets, scores):
    """One is best; what is not a number scores zero."""
    np.testing.assert_array_equal(judge(kind, outputs, targets, objective)[1], scores)


def test_losses_are_those_of_the_objective():
    losses, _ = judge("binary", [[0.0], [2.0]], [1, 0])
    np.testing.assert_allclose(losses, [math.log(2.0), math.log1p(math.exp(2.0))])
    losses, _ = judge("multiclass", [[0.0, 0.0, 0.0, 0.0]], [2])
    np.testing.assert_allclose(losses, [math.log(4.0)])
    losses, _ = judge("regression", [[0.25]], [-0.25], squared_error)
    np.testing.assert_allclose(losses, [0.25])
    losses, _ = judge("next_token", [[[0.0, 0.0], [0.0, 50.0]]], [[0, 1]])
    np.testing.assert_allclose(losses, [math.log(2.0) / 2.0], rtol=1e-6)
    assert losses.dtype == np.float64


def test_only_the_rows_that_are_asked_for_in_their_order_and_in_batches():
    torch.manual_seed(0)
    module, x, y = nn.Linear(4, 3), torch.randn(700, 4), torch.randint(0, 3, (700,))
    rows = np.random.default_rng(1).permutation(700)[:600]
    losses, scores = per_record(module, cross_entropy, "multiclass", x, y, rows)
    for place in (0, 255, 256, 599):
        own = per_record(module, cross_entropy, "multiclass", x, y, rows[[place]])
        np.testing.assert_allclose((losses[place], scores[place]), np.concatenate(own), rtol=1e-5)
    assert [len(part) for part in per_record(module, cross_entropy, "multiclass", x, y, rows[:0])] == [0, 0]


def test_a_users_objective_runs_the_model_itself():
    def weighted(model, batch):
        return 3.0 * cross_entropy(model, batch) + batch[0][:, 0]

    torch.manual_seed(0)
    module, x, y = nn.Linear(4, 3), torch.randn(9, 4), torch.randint(0, 3, (9,))
    plain, _ = per_record(module, cross_entropy, "multiclass", x, y, np.arange(9))
    own, _ = per_record(module, UserObjective("weighted", weighted), "multiclass", x, y, np.arange(9))
    np.testing.assert_allclose(own, 3.0 * plain + x[:, 0].numpy(), rtol=1e-5)


class Fails(nn.Module):
    def forward(self, x):
        raise RuntimeError("planned")


def test_every_part_keeps_its_mode_even_if_the_model_fails():
    module = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Dropout(0.5)), nn.Dropout(0.9).eval())
    modes = [part.training for part in module.modules()]
    x, y = torch.ones(5, 4), torch.zeros(5, dtype=torch.int64)
    first, again = (per_record(module, cross_entropy, "multiclass", x, y, np.arange(5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert [part.training for part in module.modules()] == modes
    module.append(Fails())
    with pytest.raises(RuntimeError, match="planned"):
        per_record(module, cross_entropy, "multiclass", x, y, np.arange(5))
    assert [part.training for part in module.modules()] == [*modes, True]
