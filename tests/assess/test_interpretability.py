"""Attributions are exact on linear models, and beat a random explanation elsewhere."""

import numpy as np
import pytest
import torch
from torch import nn

from fedsafe.assess.interpretability import explainers
from fedsafe.assess.interpretability.assessor import Interpretability
from fedsafe.assess.interpretability.features import by_group, feature_groups

WEIGHT = [1.0, -2.0, 0.5, 0.0, 0.3, -0.4]


def explain(subject, x, baseline, steps):
    return explainers.explain(subject, x, baseline, steps, rng=np.random.default_rng(0))


def run(subject, seed=0, tier="cheap", **options):
    findings = Interpretability(**options)(subject, rng=np.random.default_rng(seed), tier=tier)
    first = findings[0].where["explainer"]
    return {
        (f.metric.removeprefix("interpretability."), f.where["baseline"]): f
        for f in findings
        if f.where["explainer"] == first
    }


def test_linear_attributions_are_exact(linear, inputs, judged):
    x = inputs(300)
    found = run(judged(linear(WEIGHT, 0.2), x, np.ones(300, dtype=np.int64)))
    for baseline in ("zero", "midpoint"):
        assert found["completeness_gap", baseline].value < 1e-5
        infidelity = found["infidelity", baseline]
        assert infidelity.value < 1e-9
        assert infidelity.anchors["random_attribution"] > 1000 * infidelity.value
        # E[(w . noise)^2] with 256 examples of 20 draws
        expected = 0.01 * np.square(WEIGHT).sum()
        assert infidelity.anchors["zero_attribution"] == pytest.approx(expected, rel=0.1)
        normalised = found["infidelity_normalised", baseline]
        assert normalised.value < 1e-6
        assert 0.5 < normalised.anchors["random_attribution"] <= 1.0


def test_linear_attribution_is_the_weight_times_the_distance(linear, inputs, judged):
    x = inputs(50)
    subject = judged(linear(WEIGHT, 0.2), x, np.ones(50, dtype=np.int64))
    baseline = explainers.public_baselines(subject.task.schema)["midpoint"]
    assert baseline.tolist() == [0, 0, 0, 0, 0.5, 0.5]
    explained = explain(subject, x, baseline, 8)
    assert explained.attribution == pytest.approx((x - baseline) * np.array(WEIGHT), abs=1e-6)


class Square(nn.Module):
    def forward(self, x):
        return (x[:, :4] ** 2).sum(dim=1, keepdim=True)


def test_attribution_of_a_square_is_the_square(inputs, judged):
    x = inputs(60)
    explained = explain(judged(Square(), x, np.ones(60, dtype=np.int64)), x, np.zeros(6, np.float32), 8)
    assert explained.attribution[:, :4] == pytest.approx(x[:, :4] ** 2, abs=1e-6)
    assert explained.gap == pytest.approx(np.zeros(60), abs=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_network_attributions_beat_random_ones(perceptron, inputs, judged, outputs):
    x = inputs(300)
    classes = 2 if outputs == 1 else outputs
    found = run(judged(perceptron(outputs), x, np.arange(300) % classes, classes=classes))
    for baseline in ("zero", "midpoint"):
        for name in ("infidelity", "infidelity_normalised"):
            finding = found[name, baseline]
            assert finding.interval[1] < 0.7 * finding.anchors["random_attribution"]
        assert found["completeness_gap", baseline].value < 0.01


def test_normalised_infidelity_ignores_the_scale_of_the_output(perceptron, inputs, judged):
    x, y = inputs(300), np.ones(300, dtype=np.int64)
    model = perceptron()
    small, large = run(judged(model, x, y)), run(judged(nn.Sequential(model, Scale(10.0)), x, y))
    key = ("infidelity", "zero")
    assert large[key].value == pytest.approx(100 * small[key].value, rel=1e-3)
    key = ("infidelity_normalised", "zero")
    assert large[key].value == pytest.approx(small[key].value, rel=1e-3)


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_table_ranks_the_columns_and_sums_one_hot_features(linear, inputs, judged):
    x = inputs(300)
    subject = judged(linear(WEIGHT, 0.2), x, np.ones(300, dtype=np.int64))
    finding = run(subject)["top_feature_share", "zero"]
    table = finding.detail["table"]
    assert finding.detail["top"] == table[0]["column"] == "a1"
    assert finding.value == pytest.approx(table[0]["share"])
    assert [row["column"] for row in table] == ["a1", "a0", "sex", "a2", "a3"]
    assert sum(row["share"] for row in table) == pytest.approx(1)
    assert all(row["low"] <= row["mean_abs"] <= row["high"] for row in table)
    groups = feature_groups(subject.task.schema)
    strength = by_group(groups, np.array([[1.0, -2, 0, 0, 3, -4]]))
    named = zip((name for name, _ in groups), strength[0], strict=True)
    assert dict(named) == {"a0": 1, "a1": 2, "a2": 0, "a3": 0, "sex": 1}


def test_incomplete_attributions_are_unreliable(perceptron, inputs, judged):
    subject = judged(perceptron(), inputs(300), np.ones(300, dtype=np.int64))
    finding = run(subject, largest_gap=0.0)["top_feature_share", "zero"]
    assert (finding.status, finding.value) == ("unreliable", None)


def test_a_constant_classifier_has_nothing_to_explain(linear, inputs, judged):
    found = run(judged(linear(np.zeros(6), 1.0), inputs(300), np.ones(300, dtype=np.int64)))
    assert {f.status for f in found.values()} == {"not_applicable"}
    assert len(found) == 10


def test_few_examples_are_insufficient(linear, inputs, judged):
    found = run(judged(linear(WEIGHT, 0.0), inputs(29), np.ones(29, dtype=np.int64)))
    assert {f.status for f in found.values()} == {"insufficient"}


def test_full_tier_in_batches_equals_one_batch(perceptron, inputs, judged, monkeypatch):
    x = inputs(200)
    subject = judged(perceptron(), x, np.ones(200, dtype=np.int64))
    whole = explain(subject, x, np.zeros(6, np.float32), 64)
    monkeypatch.setattr("fedsafe.assess.base._MOST_ROWS", 500)
    assert subject.rows_at_once == 500
    parts = explain(subject, x, np.zeros(6, np.float32), 64)
    assert parts.attribution == pytest.approx(whole.attribution, abs=1e-5)
    assert isinstance(whole.local, torch.Tensor)


class Root(nn.Module):
    """Finite outputs, and an infinite gradient where the first feature is 0."""

    def forward(self, x):
        return x[:, :1].clamp(min=0).sqrt() + x[:, 1:2]


def not_a_number(forward, x, baseline, target, **options):
    return torch.full_like(x, torch.nan)


@pytest.mark.parametrize(
    ("model", "explainer"), [(Root(), "integrated_gradients"), (None, f"{__name__}:not_a_number")]
)
def test_attributions_that_are_not_finite_fail_with_a_reason(linear, inputs, judged, model, explainer):
    x = inputs(300)
    x[:, 0] = 0.0
    subject = judged(model or linear(WEIGHT, 0.2), x, np.ones(300, dtype=np.int64))
    found = run(subject, explainers=(explainer,))
    assert {finding.status for finding in found.values()} == {"failed"}
    assert len(found) == 10
    assert "not finite for 256 of 256 examples" in found["top_feature_share", "zero"].reason
