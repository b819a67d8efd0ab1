"""The reward of a pair is Bradley and Terry's, with ties Davidson's, and what must be refused is."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedsafe.client.objectives import cross_entropy
from fedsafe.data import Signature
from fedsafe.errors import ConfigError
from fedsafe.models import build_model
from fedsafe.models.reward import PairReward


def pairs(*inputs, outputs=1):
    kind = "binary" if outputs == 1 else "multiclass"
    return Signature(kind=kind, inputs=(2, *inputs), outputs=(outputs,), classes=max(2, outputs))


def made(spec, signature, seed=0):
    """A model whose numbers that start at 0 are something else."""
    model = build_model(spec, signature=signature, seed=seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape))
    return model


def test_binary_cross_entropy_is_the_loss_of_bradley_and_terry():
    model, x = made("reward", pairs(5)), torch.randn(7, 2, 5)
    y = torch.randint(0, 2, (7,))
    rewards = model.reward(x)
    assert rewards.shape == (7, 2)
    ahead = torch.where(y == 1, 1.0, -1.0) * (rewards[:, 0] - rewards[:, 1] + model.position.weight[0, 0])
    torch.testing.assert_close(cross_entropy(model, (x, y)), -F.logsigmoid(ahead))


def test_its_gradient_is_the_closed_form():
    """``(sigma(m) - y) (x_first - x_second)``, and ``sigma(m) - y`` for the position."""
    model, x = made("reward", pairs(5)), torch.randn(1, 2, 5)
    y = torch.tensor([1])
    cross_entropy(model, (x, y)).sum().backward()
    residual = torch.sigmoid(model(x)[0, 0]) - 1.0
    torch.testing.assert_close(model.head.weight.grad[0], residual * (x[0, 0] - x[0, 1]))
    torch.testing.assert_close(model.position.weight.grad[0, 0], residual)


@pytest.mark.parametrize("hidden", [[], [6]])
def test_a_trajectory_is_worth_the_sum_of_its_steps(hidden):
    model = made({"name": "reward", "hidden": hidden, "heads": 3}, pairs(4, 5))
    x = torch.randn(6, 2, 4, 5)
    worth = model.reward(x).sum(2)
    assert model.rewards(x).shape == (6, 2, 4, 3)
    expected = worth[:, 0] - worth[:, 1] + model.position.weight[0, 0]
    torch.testing.assert_close(model(x)[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_ties_have_the_probabilities_of_davidson():
    """pi_1 / (pi_1 + pi_2 + nu sqrt(pi_1 pi_2)) and so on, in double precision."""
    model = made("reward", pairs(5, outputs=3)).double()
    x = torch.randn(9, 2, 5, dtype=torch.float64)
    strength = torch.exp(model.reward(x))
    first, second = strength[:, 0] * torch.exp(model.position.weight[0, 0]), strength[:, 1]
    tie = torch.exp(model.log_nu.weight[0, 0]) * torch.sqrt(first * second)
    expected = torch.stack([second, first, tie], 1) / (first + second + tie)[:, None]
    found = torch.softmax(model(x), 1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(1), torch.ones(9, dtype=torch.float64))


def test_without_ties_davidson_is_bradley_and_terry():
    model = made("reward", pairs(5, outputs=3)).double()
    x = torch.randn(9, 2, 5, dtype=torch.float64)
    with torch.no_grad():
        model.log_nu.weight.fill_(-40.0)
    outputs = model(x)
    found = torch.softmax(outputs, 1)
    torch.testing.assert_close(found[:, 1], torch.sigmoid(outputs[:, 1] - outputs[:, 0]))
    assert found[:, 2].max() < 1e-15


def test_heads_are_mixed_by_the_assignment():
    model = made({"name": "reward", "heads": 3, "scale": 2.0}, pairs(5))
    shares = torch.softmax(2.0 * model.assignment.weight[:, 0], 0)
    features = torch.randn(4, 5)
    torch.testing.assert_close(model.reward(features), model.head(features) @ shares)
    with torch.no_grad():
        model.assignment.weight.copy_(torch.tensor([[0.0], [90.0], [0.0]]))
    torch.testing.assert_close(model.reward(features), model.rewards(features)[:, 1])


@pytest.mark.parametrize(("flipped", "accuracy"), [(0.0, 1.0), (0.5, 0.5)])
def test_perfect_labels_are_learned_and_shuffled_ones_teach_nothing(flipped, accuracy):
    torch.manual_seed(0)
    truth, x = torch.randn(8), torch.randn(4000, 2, 8)
    y = ((x[:, 0] - x[:, 1]) @ truth > 0).long()
    turned = torch.rand(3000) < flipped
    seen = torch.where(turned, 1 - y[:3000], y[:3000])
    model = build_model("reward", signature=pairs(8), seed=0)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60)

    def loss():
        optimizer.zero_grad()
        value = cross_entropy(model, (x[:3000], seen)).mean()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        right = float(((model(x[3000:])[:, 0] > 0) == (y[3000:] == 1)).double().mean())
        shown = float(cross_entropy(model, (x[:3000], seen)).mean())
    # Shuffled labels leave a random direction, of which eight features have some on either side of the truth.
    assert abs(right - accuracy) < (0.25 if flipped else 0.01)
    assert abs(shown - math.log(2)) < 0.01 if flipped else shown < 0.01


def test_only_what_is_meant_to_be_personal_is_called_so():
    assert PairReward(4).personal == ("position",)
    assert PairReward(4, heads=2).personal == ("position", "assignment")
    assert not any(
        p.any() for name, p in PairReward(4, heads=2, ties=True).named_parameters() if name != "head.weight"
    )


def test_the_last_layer_has_no_bias_which_would_cancel():
    assert isinstance(PairReward(4, hidden=[3]).head, nn.Linear)
    assert PairReward(4, hidden=[3]).head.bias is None


@pytest.mark.parametrize(
    ("spec", "signature", "message"),
    [
        (
            "reward",
            Signature(kind="binary", inputs=(6,), outputs=(1,), classes=2),
            r"needs pairs.*shape \(6,\)",
        ),
        ("reward", Signature(kind="binary", inputs=(3, 6), outputs=(1,), classes=2), r"needs pairs"),
        ("reward", pairs(6, outputs=4), "this task has 4 classes"),
        ({"name": "reward", "heads": 0}, pairs(6), "heads = 0 is not a whole number from 1"),
        ({"name": "reward", "hidden": "8"}, pairs(6), "is not a list of widths"),
        ({"name": "reward", "hidden": [0]}, pairs(6), "hidden = 0 is not"),
        ({"name": "reward", "scale": 0.0}, pairs(6), "scale = 0.0 is not a number above 0"),
        ({"name": "reward", "activation": "gelu"}, pairs(6), "'gelu' is unknown"),
        ({"name": "reward", "head": 2}, pairs(6), "Did you mean 'heads'"),
        (
            "reward",
            Signature(kind="multiclass", inputs=(2, 6), outputs=(3,), classes=3, vocabulary=9),
            "inputs are tokens",
        ),
    ],
    ids=str,
)
def test_a_mistake_is_answered_with_a_remedy(spec, signature, message):
    with pytest.raises(ConfigError, match=message):
        build_model(spec, signature=signature, seed=0)
