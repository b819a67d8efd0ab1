"""Scores equal scikit-learn's; calibration and client anchors are right where the truth is known."""

import numpy as np
import pytest
from scipy import special
from sklearn import metrics
from torch import nn

from fedsafe.assess.performance.assessor import Performance
from fedsafe.assess.performance.calibration import reliability
from fedsafe.assess.performance.classification import classification
from fedsafe.assess.performance.ranking import auc


def run(subject, seed=0):
    findings = Performance()(subject, rng=np.random.default_rng(seed), tier="cheap")
    return {f.metric.removeprefix("performance."): f for f in findings}


class Echo(nn.Module):
    """Its logit is its first feature, times a scale."""

    def forward(self, x):
        return 4 * x[:, :1]


def honest(n, seed=0):
    """Records of which the echo knows the probability."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.uniform(-1, 1, (n, 4)), np.eye(2)[rng.integers(0, 2, n)]], axis=1)
    x = x.astype(np.float32)
    return x, rng.binomial(1, special.expit(4.0 * x[:, 0]))


def test_binary_scores_equal_scikit_learn(judged):
    x, y = honest(3000)
    found, p = run(judged(Echo(), x, y)), special.expit(4.0 * x[:, 0])
    expected = {
        "accuracy": metrics.accuracy_score(y, p > 0.5),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, p > 0.5),
        "auc": metrics.roc_auc_score(y, p),
        "nll": metrics.log_loss(y, p.astype(np.float64)),
        "brier": metrics.brier_score_loss(y, p),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-6), name
        assert found[name].interval[0] < value < found[name].interval[1]
    assert found["accuracy"].anchors["majority_class"] == max(y.mean(), 1 - y.mean())
    assert found["nll"].anchors["class_shares"] == pytest.approx(
        metrics.log_loss(y, np.full(len(y), y.mean()))
    )
    assert found["brier"].anchors["class_shares"] == pytest.approx(y.mean() * (1 - y.mean()))


def test_multiclass_scores_equal_scikit_learn(perceptron, inputs, judged):
    x, y = inputs(1200), np.random.default_rng(1).integers(0, 3, 1200)
    subject = judged(perceptron(3), x, y, classes=3)
    found, p = run(subject), subject.probabilities(x)
    assert p.sum(axis=1) == pytest.approx(1)
    assert found["accuracy"].value == metrics.accuracy_score(y, p.argmax(axis=1))
    assert found["balanced_accuracy"].value == pytest.approx(
        metrics.balanced_accuracy_score(y, p.argmax(axis=1))
    )
    assert found["nll"].value == pytest.approx(metrics.log_loss(y, p))
    assert found["brier"].value == pytest.approx(((p - np.eye(3)[y]) ** 2).sum(axis=1).mean())
    assert found["auc"].status == "not_applicable"


def test_likelihood_stays_finite_where_a_probability_rounds_to_zero(linear, inputs, judged):
    x = inputs(100)
    found = run(judged(linear([1, 0, 0, 0, 900, 900], 0.0), x, np.zeros(100, dtype=np.int64)))
    assert found["nll"].value == pytest.approx(900 + x[:, 0].mean())


def test_auc_intervals_cover():
    rng, hits = np.random.default_rng(2), 0
    truth = special.ndtr(1.5 / np.sqrt(2))
    for _ in range(400):
        value, (low, high), _ = auc(rng.normal(1.5, 1, 40), rng.normal(0, 1, 120))
        assert low <= value <= high
        hits += low <= truth <= high
    assert 0.93 <= hits / 400 <= 0.98


@pytest.mark.parametrize(("positive", "negative", "value"), [([2.0], [1.0], 1.0), ([1.0], [1.0], 0.5)])
def test_auc_of_a_perfect_or_constant_ranking_is_no_certainty(positive, negative, value):
    found, (low, high), method = auc(np.repeat(positive, 20), np.repeat(negative, 50))
    assert found == value
    assert high - low > 0.1
    assert "smaller class" in method


def test_calibration_of_a_perfect_model_is_about_zero_and_its_interval_holds_zero():
    rng, values, plug_in, anchors, covered = np.random.default_rng(3), [], [], [], 0
    for _ in range(200):
        p = rng.beta(1, 3, 3000)
        table = reliability(p, rng.binomial(1, p))
        values.append(table.debiased)
        plug_in.append(table.plug_in)
        anchors.append(table.calibrated(rng, 50))
        low, high = table.interval(rng, 300)
        covered += low == 0
        assert low <= table.debiased <= high
    assert covered >= 186
    assert np.mean(values) < 0.65 * np.mean(plug_in)
    assert np.mean(anchors) == pytest.approx(np.mean(values), rel=0.1)


def test_calibration_finds_a_planted_error():
    rng, covered, values = np.random.default_rng(4), 0, []
    for _ in range(100):
        p = rng.uniform(0.2, 0.8, 3000)
        table = reliability(p, rng.binomial(1, p + 0.1))
        low, high = table.interval(rng, 300)
        covered += low <= 0.1 <= high
        values.append(table.debiased)
    assert covered >= 93
    assert np.mean(values) == pytest.approx(0.1, abs=0.002)


def test_bins_have_equal_mass_and_hold_equal_confidences_together():
    rng = np.random.default_rng(5)
    table = reliability(rng.random(1500), rng.integers(0, 2, 1500))
    assert table.n == pytest.approx(np.full(15, 100), abs=1)
    assert table.n.sum() == 1500
    constant = reliability(np.full(1500, 0.3), rng.integers(0, 2, 1500))
    assert constant.n.tolist() == [1500]
    assert constant.debiased == pytest.approx(abs(constant.outcome[0] - 0.3), abs=0.01)


def test_clients_who_are_alike_match_their_anchor(judged):
    x, y = honest(6000, seed=6)
    shards = tuple(np.array_split(np.random.default_rng(0).permutation(6000), 100))
    found = run(judged(Echo(), x, y, shards=shards))
    worst, spread = found["worst_decile_accuracy"], found["accuracy_spread"]
    assert worst.interval[0] <= worst.anchors["clients_alike"] <= worst.interval[1]
    assert spread.interval[0] <= spread.anchors["clients_alike"] <= spread.interval[1]
    assert worst.value < found["accuracy"].value - 0.05
    assert (worst.n, worst.n_unit) == (100, "clients")


def test_clients_who_are_left_behind_fall_below_the_anchor(judged):
    x, y = honest(6000, seed=7)
    shards = tuple(np.array_split(np.arange(6000), 100))
    y[:600] = x[:600, 0] < 0  # the first ten clients are always wrong
    found = run(judged(Echo(), x, y, shards=shards))
    worst = found["worst_decile_accuracy"]
    assert worst.value == 0.0
    assert worst.interval[1] < worst.anchors["clients_alike"]


def test_too_few_or_too_small_shards_are_insufficient(judged):
    x, y = honest(600)
    assert run(judged(Echo(), x, y))["worst_decile_accuracy"].status == "not_applicable"
    shards = (*np.array_split(np.arange(500), 19), *np.array_split(np.arange(500, 600), 20))
    finding = run(judged(Echo(), x, y, shards=shards))["accuracy_spread"]
    assert (finding.status, finding.n, finding.detail["too_small"]) == ("insufficient", 19, 20)


def test_one_class_and_few_examples_are_insufficient(judged):
    x, _ = honest(40)
    found = run(judged(Echo(), x, np.zeros(40, dtype=np.int64)))
    assert found["accuracy"].status == "measured"
    for name in ("balanced_accuracy", "auc", "ece"):
        assert (found[name].status, found[name].value) == ("insufficient", None)


def test_a_constant_classifier_is_at_chance(linear, inputs, judged):
    y = (np.arange(400) % 4 == 0).astype(np.int64)
    found = run(judged(linear(np.zeros(6), -1.0), inputs(400), y))
    assert found["accuracy"].value == found["accuracy"].anchors["majority_class"] == 0.75
    assert found["balanced_accuracy"].value == 0.5
    assert found["auc"].value == 0.5


def test_a_single_example_gives_no_mean_without_an_interval(judged):
    x, y = honest(1)
    for name in ("nll", "brier"):
        finding = run(judged(Echo(), x, y))[name]
        assert (finding.status, finding.interval) == ("insufficient", None)
        assert finding.detail["mean"] > 0


@pytest.mark.parametrize("n", [2, 30])
def test_losses_that_are_all_alike_are_no_certainty(linear, inputs, judged, n):
    """A constant model on one class: Student's interval would be a point, or one of rounding."""
    found = run(judged(linear(np.zeros(6), -1.0), inputs(n), np.zeros(n, dtype=np.int64)))
    assert found["nll"].status == "insufficient"
    assert f"all {n} losses are 0.313" in found["nll"].reason
    low, high = found["brier"].interval
    assert low < found["brier"].value < high
    assert found["brier"].value == pytest.approx(special.expit(-1.0) ** 2)
    rare = 1 - 0.025 ** (1 / n)  # what Clopper and Pearson leave where none of n differs
    assert high - low == pytest.approx(rare)
    assert found["brier"].interval_method == "alike, clopper-pearson"


def test_a_vocabulary_of_classes_needs_no_square_of_memory():
    classes, y = 100_001, np.arange(20) * 7
    logits = np.zeros((20, classes))
    logits[np.arange(20), y] = np.log(classes - 1)  # the true class has probability 1/2
    found = classification(logits, y, classes, np.random.default_rng(0), {})
    brier = next(finding for finding in found if finding.metric == "performance.brier")
    assert brier.value == pytest.approx(0.25 + 0.25 / (classes - 1))
