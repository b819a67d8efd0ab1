"""Rank correlations equal scipy's, and say of two models what is known of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds_of_task import make_model, make_subject, make_task
from scipy import stats
from torch import nn

from fedsafe.assess import Subject
from fedsafe.assess.interpretability.consistency import (
    Consistency,
    importance_consistency,
    strengths,
    top_overlap,
)
from fedsafe.assess.interpretability.ranks import kendall, spearman
from fedsafe.errors import ConfigError, ModelError


class Weighted(nn.Module):
    def __init__(self, *weight):
        super().__init__()
        self.weight = torch.tensor(weight)

    def forward(self, x):
        return (x[:, :4] * self.weight).sum(dim=1, keepdim=True)


def run(model, previous, **options):
    subject = make_subject("binary", model, make_task("binary", 600))
    subject = replace(subject, previous=None if previous is None else previous.eval())
    findings = Consistency(**options)(subject, rng=np.random.default_rng(0), tier="cheap")
    return {(f.metric.removeprefix("consistency."), f.where["between"]): f for f in findings}


def test_rank_correlations_equal_scipys():
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 6, (20, 15)).astype(float), rng.integers(0, 6, (20, 15)).astype(float)
    for ours, theirs in ((kendall, stats.kendalltau), (spearman, stats.spearmanr)):
        expected = [theirs(a, b).statistic for a, b in zip(left, right, strict=True)]
        assert ours(left, right) == pytest.approx(expected)
        assert np.isnan(ours(np.ones((1, 5)), left[:1, :5])).all()


def kendall_over_all_pairs(left, right):
    signs = [np.sign(part[:, None] - part[None, :]) for part in (left, right)]
    room = np.sqrt(np.square(signs[0]).sum() * np.square(signs[1]).sum())
    return (signs[0] * signs[1]).sum() / room if room > 0 else np.nan


@pytest.mark.parametrize("columns", [1, 2, 3, 16, 17, 130])
@pytest.mark.parametrize("values", [1, 2, 5, 1000])
def test_kendall_is_the_sum_over_all_pairs_to_the_bit(columns, values):
    rng = np.random.default_rng(columns)
    left, right = (rng.integers(-values, values, (30, columns)) / 7.0 for _ in range(2))
    left[3, 0], right[4, columns - 1], left[5, 0] = np.nan, np.nan, np.inf
    with np.errstate(invalid="ignore"):
        expected = [kendall_over_all_pairs(a, b) for a, b in zip(left, right, strict=True)]
    np.testing.assert_array_equal(kendall(left, right), expected)


def test_the_same_reasons_are_one_and_reversed_ones_are_minus_one():
    steep = (8.0, 4.0, 2.0, 1.0)
    same, turned = run(Weighted(*steep), Weighted(*steep)), run(Weighted(*steep), Weighted(*steep[::-1]))
    for name in ("kendall", "spearman"):
        assert same[name, "rounds"].value == 1.0
        # The fifth column, sex, has no weight in either: it stays last.
        order = stats.kendalltau if name == "kendall" else stats.spearmanr
        expected = order([4, 3, 2, 1, 0], [1, 2, 3, 4, 0]).statistic
        assert turned[name, "rounds"].value == pytest.approx(expected)
        assert turned[name, "rounds"].interval[1] < 0.3
        assert same[name, "samples"].value == 1.0


def test_columns_of_equal_weight_have_no_stable_order_between_samples():
    found = run(Weighted(1.0, 1.0, 1.0, 1.0), None)
    clear = run(Weighted(8.0, 4.0, 2.0, 1.0), None)
    assert found["kendall", "samples"].value < 0.9
    assert found["kendall", "samples"].interval[0] < clear["kendall", "samples"].interval[0]
    assert {found[name, "rounds"].status for name in ("kendall", "spearman")} == {"not_applicable"}


def test_without_an_order_nothing_is_measured():
    found = run(make_model("binary"), Weighted(0.0, 0.0, 0.0, 0.0))
    assert (found["kendall", "rounds"].status, found["kendall", "rounds"].value) == ("not_applicable", None)
    assert found["kendall", "samples"].status == "measured"


def test_few_examples_are_insufficient():
    subject = make_subject("binary", task=make_task("binary", 119))
    findings = Consistency()(subject, rng=np.random.default_rng(0), tier="cheap")
    assert {finding.status for finding in findings} == {"insufficient"}


def test_runs_with_several_seeds_are_compared_in_pairs():
    task = make_task("binary", 400)
    models = [Weighted(8.0, 4.0, 2.0, 1.0), Weighted(9.0, 4.0, 2.0, 1.0), Weighted(1.0, 2.0, 4.0, 8.0)]
    tau, _, _ = importance_consistency(models, task)
    assert (tau.where["between"], tau.detail["pairs"]) == ("runs", 3)
    pair = stats.kendalltau([4, 3, 2, 1, 0], [1, 2, 3, 4, 0]).statistic
    assert tau.value == pytest.approx((1 + 2 * pair) / 3)
    assert tau.detail["lowest"] == pytest.approx(pair)
    assert importance_consistency(models, task) == importance_consistency(models, task)
    with pytest.raises(ConfigError, match="1 models cannot be compared"):
        importance_consistency(models[:1], task)
    assert importance_consistency([make_model("next_token")] * 2, make_task("next_token"))[0].value is None


def test_strengths_of_a_linear_model_are_its_weights_times_the_distances():
    subject = make_subject("binary", Weighted(8.0, -4.0, 2.0, 1.0))
    x = subject.evaluation.x[:50]
    found = strengths(subject, x, 8, "integrated_gradients", np.random.default_rng(0))
    assert found[:, :4] == pytest.approx(np.abs(x[:, :4] * [8, -4, 2, 1]), abs=1e-5)
    assert found[:, 4] == pytest.approx(np.zeros(50), abs=1e-6)


def test_a_users_explainer_that_fails_is_named(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no reason")

    monkeypatch.setattr("kinds_of_task.broken", broken, raising=False)
    found = run(Weighted(1.0, 2.0, 3.0, 4.0), None, explainer="kinds_of_task:broken")
    assert {f.status for f in found.values()} == {"failed"}
    assert all("no reason" in f.reason for f in found.values())
    with pytest.raises(ConfigError, match="explainer 'nothing'"):
        Consistency(explainer="nothing")


class Root(nn.Module):
    def forward(self, x):
        return (0.0 * x[:, :1]).sqrt() + x[:, 1:2]


def test_attributions_that_are_not_finite_have_no_order():
    subject = make_subject("binary", Root(), make_task("binary", 600))
    with pytest.raises(ModelError, match="attributions are not finite"):
        Consistency()(subject, rng=np.random.default_rng(0), tier="cheap")


def test_the_overlap_is_of_the_strongest_five():
    left = np.array([[9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0]])
    assert top_overlap(left, left).tolist() == [1.0]
    assert top_overlap(left, left[:, ::-1]).tolist() == [0.0]
    assert top_overlap(left, np.roll(left, 2, axis=1)).tolist() == [0.6]
    # Of four columns, the stronger two.
    assert top_overlap(left[:, :4], np.array([[9.0, 0, 8, 0]])).tolist() == [0.5]
    found = run(Weighted(8.0, 4.0, 2.0, 1.0), Weighted(1.0, 2.0, 4.0, 8.0))["top_overlap", "rounds"]
    assert (found.value, found.anchors["random_order"]) == (0.0, 0.4)


def test_an_explainer_that_draws_is_compared_with_itself_at_another_seed():
    model = make_model("binary")

    def seeds(explainer):
        subject = make_subject("binary", model, make_task("binary", 240))
        found = Consistency(explainer=explainer)(subject, rng=np.random.default_rng(0), tier="full")
        return {f.metric: f for f in found if f.where["between"] == "seeds"}

    assert {f.status for f in seeds("integrated_gradients").values()} == {"not_applicable"}
    drawn = seeds("gradient_shap")
    assert set(drawn) == {"consistency.kendall", "consistency.spearman", "consistency.top_overlap"}
    assert all(f.value > 0.9 for f in drawn.values())


def test_the_plan_of_the_full_tier_covers_what_is_spent(monkeypatch):
    subject, spent = make_subject("binary", task=make_task("binary", 240)), []
    forward = Subject.forward
    monkeypatch.setattr(Subject, "forward", lambda self, x: spent.append(len(x)) or forward(self, x))
    for explainer in ("gradient_shap", "kernel_shap", "integrated_gradients"):
        spent.clear()
        assessor = Consistency(explainer=explainer)
        planned = assessor.plan(subject, "full").forward
        assessor(subject, rng=np.random.default_rng(0), tier="full")
        assert sum(spent) <= planned <= 1.1 * sum(spent)
