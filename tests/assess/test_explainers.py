"""Explainers say what is known in closed form, and agree with slow definitions elsewhere."""

from itertools import permutations

import numpy as np
import pytest
import torch
from kinds_of_task import make_subject, make_task
from torch import nn

from fedsafe.assess.interpretability import explainers
from fedsafe.assess.interpretability.assessor import Interpretability
from fedsafe.assess.interpretability.consistency import Consistency
from fedsafe.assess.interpretability.features import by_unit, column_of_features
from fedsafe.assess.interpretability.gradients import gradient_shap
from fedsafe.assess.interpretability.masking import masked_outputs, spread
from fedsafe.assess.interpretability.protocol import NoExplanation
from fedsafe.assess.interpretability.removal import coalitions, kernel_shap, lime, shapley_values
from fedsafe.errors import ConfigError
from fedsafe.findings import t_interval

WEIGHT = [1.0, -2.0, 0.5, 0.0, 0.3, -0.4]


def explained(subject, x, baseline, name, steps=16):
    return explainers.explain(subject, x, baseline, steps, explainer=name, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "name", ["integrated_gradients", "gradient", "gradient_shap", "kernel_shap", "occlusion"]
)
def test_linear_shapley_values_are_their_closed_form(linear, inputs, judged, name):
    x = inputs(40)
    subject, mean = judged(linear(WEIGHT, 0.2), x, np.ones(40, dtype=np.int64)), x.mean(axis=0)
    truth = (x - mean) * np.array(WEIGHT)  # w_i (x_i - E x_i)
    columns = column_of_features(subject.task.schema)
    found = explained(subject, x, mean, name)
    assert by_unit(columns, found.attribution) == pytest.approx(by_unit(columns, truth), abs=2e-6)
    assert found.gap == pytest.approx(np.zeros(40), abs=5e-6)


def wide(count, seed=0):
    """A linear model of many columns, one column of each feature."""
    rng = np.random.default_rng(seed)
    weight = torch.tensor(rng.normal(size=count), dtype=torch.float32)
    x = torch.tensor(rng.normal(size=(6, count)), dtype=torch.float32)
    x[0, :3] = 0.0  # at the baseline: these have no attribution
    arguments = (lambda z: z @ weight[:, None], x, torch.zeros(1, count), torch.zeros(6, dtype=torch.int64))
    options = {"steps": 8, "batch": 100, "columns": np.arange(count)}
    return arguments, options, (x * weight).numpy()


def test_sampled_shapley_values_of_a_linear_model_are_exact_too():
    arguments, options, truth = wide(14)
    local = kernel_shap(*arguments, rng=np.random.default_rng(0), **options)
    assert (local * arguments[1]).numpy() == pytest.approx(truth, abs=1e-3)
    assert (local[0, :3] == 0).all()


@pytest.mark.parametrize("explainer", [kernel_shap, lime])
def test_an_example_that_is_the_baseline_has_no_attributions(explainer):
    (forward, x, baseline, target), options, _ = wide(14)
    x[0] = 0.0
    x[1, 1:] = 0.0  # one column differs: it has the whole change
    local = explainer(forward, x, baseline, target, rng=np.random.default_rng(0), **options)
    assert (local[0] == 0).all()
    assert float((local[1] * x[1]).sum()) == pytest.approx(float(forward(x[1:2])), abs=1e-5)


def test_limes_ridge_is_near_the_linear_model_and_shrinks_it():
    arguments, options, truth = wide(14)
    found = (lime(*arguments, rng=np.random.default_rng(0), **options) * arguments[1]).numpy()
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.99
    assert np.abs(found).sum() < np.abs(truth).sum()


def test_shapley_values_are_the_mean_over_all_orders():
    rng = np.random.default_rng(0)
    game = rng.normal(size=(3, 16))
    slow = np.zeros((3, 4))
    for order in permutations(range(4)):
        code = 0
        for column in order:
            slow[:, column] += game[:, code | (1 << column)] - game[:, code]
            code |= 1 << column
    assert shapley_values(game, coalitions(4)) == pytest.approx(slow / 24)


def test_masked_outputs_equal_a_loop_over_examples_and_masks():
    rng = np.random.default_rng(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Tanh())
    x, baseline = torch.randn(5, 3, 4), torch.randn(1, 3, 4)
    columns, target = rng.integers(0, 4, (3, 4)), torch.tensor([0, 1, 2, 0, 1])
    for kept in (rng.random((7, 4)) < 0.5, rng.random((5, 7, 4)) < 0.5):
        slow = np.zeros((5, 7))
        for i in range(5):
            for j in range(7):
                mask = torch.tensor((kept if kept.ndim == 2 else kept[i])[j][columns])
                slow[i, j] = net(torch.where(mask, x[i], baseline[0])[None])[0, target[i]].item()
        found = masked_outputs(net, x, baseline, target, kept, columns, batch=4)
        assert found == pytest.approx(slow, abs=1e-6)


def test_a_columns_slope_gives_its_attribution_and_one_at_the_baseline_has_none():
    columns = np.array([0, 0, 1, 2])
    x, baseline = torch.tensor([[1.0, 3.0, 2.0, 5.0]]), torch.tensor([[0.0, 1.0, 2.0, 4.0]])
    local = spread(np.array([[10.0, 7.0, -3.0]]), x, baseline, columns)
    assert by_unit(columns, ((x - baseline) * local).numpy()) == pytest.approx(np.array([[10.0, 0.0, -3.0]]))
    assert local[0, :2].tolist() == pytest.approx([2.0, 4.0])  # along the distance (1, 2): the gentlest


def square(x):
    return (x**2).sum(dim=1, keepdim=True)


def test_gradient_shap_is_right_within_its_sampling_error_and_the_interval_can_tell():
    x, target = torch.tensor([[1.0, -2.0]]), torch.zeros(1, dtype=torch.int64)
    draws = []
    for seed in range(60):
        local = gradient_shap(
            square, x, torch.zeros(1, 2), target, steps=16, batch=100, rng=np.random.default_rng(seed)
        )
        draws.append((local * x)[0].numpy())
    for column, truth in enumerate([1.0, 4.0]):  # of a square the attribution is the square
        low, high = t_interval([draw[column] for draw in draws], 0.999)
        assert low < truth < high
        assert not low < 1.2 * truth < high


def test_gradient_shap_draws_among_several_baselines():
    x, target = torch.tensor([[1.0, -2.0]] * 8), torch.zeros(8, dtype=torch.int64)
    baselines = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    rng = np.random.default_rng(0)
    local = gradient_shap(square, x, baselines, target, steps=2000, batch=100, rng=rng)
    # E[2 (b + t (x - b))] over t uniform and either b: x + E b.
    assert local.mean(dim=0).tolist() == pytest.approx([2.0, 0.0], abs=0.06)


class Steps(nn.Module):
    """A tree's answers, which have a gradient that is zero; or none at all."""

    def __init__(self, *, attached=True):
        super().__init__()
        self.attached = attached

    def forward(self, x):
        found = torch.where(x[:, :1] > 0.1, 1.0, -1.0) + torch.where(x[:, 1:2] > -0.1, 0.5, 0.0)
        return found + 0.0 * x[:, :1] if self.attached else found


@pytest.mark.parametrize("attached", [True, False])
def test_without_gradients_only_what_needs_them_is_not_applicable(attached):
    subject = make_subject("binary", Steps(attached=attached), make_task("binary", 130))
    options = {"explainers": ("integrated_gradients", "kernel_shap")}
    found = Interpretability(**options)(subject, rng=np.random.default_rng(0), tier="cheap")
    of = {name: [f for f in found if f.where["explainer"] == name] for name in options["explainers"]}
    assert {f.status for f in of["integrated_gradients"]} == {"not_applicable"}
    assert all("gradient" in f.reason and "kernel_shap" in f.reason for f in of["integrated_gradients"])
    assert {f.status for f in of["kernel_shap"]} == {"measured"}
    tops = [f.detail["top"] for f in of["kernel_shap"] if f.metric.endswith("top_feature_share")]
    assert tops == ["a0", "a0"]
    ranks = Consistency()(subject, rng=np.random.default_rng(0), tier="full")
    assert {f.status for f in ranks} == {"not_applicable"}
    with pytest.raises(NoExplanation, match="gradient"):
        explained(subject, subject.evaluation.x[:9], np.zeros(6, np.float32), "gradient_shap")


def by_columns(forward, x, baseline, target, *, columns, **options):
    return torch.as_tensor(columns.astype(np.float32)).expand_as(x)


def test_a_users_explainer_is_told_the_columns_if_it_asks(linear, inputs, judged):
    x = inputs(5)
    subject = judged(linear(WEIGHT, 0.0), x, np.ones(5, dtype=np.int64))
    found = explained(subject, x, np.zeros(6, np.float32), f"{__name__}:by_columns")
    assert found.local[0].tolist() == [0, 1, 2, 3, 4, 4]


def test_a_library_that_is_not_there_is_named_before_anything_is_spent(monkeypatch):
    monkeypatch.setattr("fedsafe.assess.interpretability.libraries.find_spec", lambda _: None)
    for options in ({"explainers": ("shap_library",)}, {"full": ("lime_library",)}):
        with pytest.raises(ConfigError, match=r"needs the package (shap|lime); install it with: pip install"):
            Interpretability(**options)
    with pytest.raises(ConfigError, match="needs the package shap"):
        Consistency(explainer="shap_library")
