"""Gaps equal fairlearn's, and their intervals cover, above all when there is no gap."""

import numpy as np
import pytest
from fairlearn.metrics import (
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
)
from torch import nn

from fedsafe.assess.fairness.assessor import Fairness
from fedsafe.assess.fairness.gaps import measure_gap

SELECTION = ("selection_rate",)
ODDS = ("true_positive_rate", "false_positive_rate")


class Echo(nn.Module):
    """Predicts its first feature: what the examples say, the model predicts."""

    def forward(self, x):
        return x[:, :1]


@pytest.fixture
def told(inputs, judged):
    def build(y, predicted, groups, **fields):
        x = inputs(len(y))
        x[:, 0] = np.where(np.asarray(predicted) == 1, 0.5, -0.5)
        return judged(Echo(), x, y, groups, **fields)

    return build


def run(subject, **options):
    return Fairness(**options)(subject, rng=np.random.default_rng(0), tier="cheap")


def find(findings, metric, **where):
    found = [f for f in findings if f.metric == f"fairness.{metric}" and f.where == where]
    assert len(found) == 1
    return found[0]


def random_people(n, seed=0):
    rng = np.random.default_rng(seed)
    sex = rng.choice(["Female", "Male"], n)
    race = rng.choice(["A", "B", "C"], n, p=[0.6, 0.25, 0.15])
    y = rng.binomial(1, np.where(sex == "Male", 0.5, 0.3))
    predicted = rng.binomial(1, np.clip(0.1 + 0.5 * y + 0.2 * (race == "B"), 0, 1))
    return y, predicted, {"sex": sex, "race": race}


def cells_of(rng, sizes, base, tpr, fpr):
    positives = rng.binomial(sizes, base)
    hits, alarms = rng.binomial(positives, tpr), rng.binomial(sizes - positives, fpr)
    return np.stack([sizes - positives - alarms, alarms, positives - hits, hits], axis=1)


def test_gaps_equal_fairlearn(told):
    y, predicted, groups = random_people(4000)
    findings = run(told(y, predicted, groups))
    both = np.char.add(np.char.add(groups["sex"], " & "), groups["race"])
    for attribute, names in {**groups, "sex & race": both}.items():
        for metric, oracle in (
            ("demographic_parity_difference", demographic_parity_difference),
            ("equalised_odds_difference", equalized_odds_difference),
            ("equal_opportunity_difference", equal_opportunity_difference),
        ):
            finding = find(findings, metric, attribute=attribute)
            assert finding.value == pytest.approx(oracle(y, predicted, sensitive_features=names), abs=1e-12)
            assert finding.interval[0] <= finding.value <= finding.interval[1]


def test_rates_equal_counting_and_have_wilson_intervals(told):
    y, predicted, groups = random_people(3000, seed=1)
    findings = run(told(y, predicted, groups))
    female = groups["sex"] == "Female"
    rate = find(findings, "true_positive_rate", attribute="sex", group="Female")
    assert rate.value == predicted[female & (y == 1)].mean()
    assert (rate.n, rate.interval_method) == ((female & (y == 1)).sum(), "wilson")
    accuracy = find(findings, "accuracy", attribute="sex & race", group="Female & B")
    assert accuracy.value == (predicted == y)[female & (groups["race"] == "B")].mean()


@pytest.mark.parametrize(
    ("sizes", "rates"),
    [
        ([100, 200, 400, 3000, 800], SELECTION),
        ([100, 200, 400, 3000, 800], ODDS),
        ([300, 900], SELECTION),
        ([150] * 8, ODDS),
    ],
)
def test_intervals_cover_a_fair_classifier(sizes, rates):
    rng, runs = np.random.default_rng(11), 400
    draws = [cells_of(rng, np.array(sizes), 0.4, 0.7, 0.1) for _ in range(runs)]
    gaps = [measure_gap(cells, rates, rng, 400) for cells in draws]
    assert np.mean([gap.interval[0] == 0 for gap in gaps]) >= 0.93
    # The estimate itself is far from 0, by as much as the anchor says.
    mean = np.mean([gap.value for gap in gaps])
    assert mean == pytest.approx(np.mean([gap.null_mean for gap in gaps]), rel=0.08)
    assert np.mean([gap.value > gap.null_95 for gap in gaps]) == pytest.approx(0.05, abs=0.035)


def test_intervals_cover_an_unfair_classifier_and_exclude_zero():
    rng, tpr = np.random.default_rng(12), np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    sizes = np.array([300, 400, 400, 3000, 800])
    gaps = [measure_gap(cells_of(rng, sizes, 0.4, tpr, 0.1), ODDS, rng, 400) for _ in range(300)]
    assert np.mean([low <= 0.4 <= high for low, high in (gap.interval for gap in gaps)]) >= 0.93
    assert np.mean([gap.interval[0] > 0.1 for gap in gaps]) > 0.95
    assert {(gap.lowest, gap.highest) for gap in gaps[:1]} == {(0, 4)}


@pytest.mark.parametrize(("groups", "size", "factor"), [(2, 1000, 1.128), (8, 200, 2.847)])
def test_null_gap_equals_the_expected_range_of_normals(groups, size, factor):
    cells = np.tile([size // 2, 0, 0, size // 2], (groups, 1))
    gap = measure_gap(cells, SELECTION, np.random.default_rng(0), 20_000)
    assert gap.null_mean == pytest.approx(factor * np.sqrt(0.25 / size), rel=0.03)


def test_small_groups_are_listed_and_left_out_of_the_gap(told):
    y, predicted, groups = random_people(2000, seed=2)
    race = groups["race"].astype("<U5")
    race[:59] = "Tiny"
    y[:59] = np.arange(59) % 2  # 30 negatives, 29 positives
    predicted[:59] = 1
    findings = run(told(y, predicted, {"race": race}))
    for rate in ("selection_rate", "true_positive_rate", "false_positive_rate", "accuracy"):
        finding = find(findings, rate, attribute="race", group="Tiny")
        assert (finding.status, finding.value) == ("insufficient", None)
        assert (finding.detail["positives"], finding.detail["negatives"]) == (29, 30)
    gap = find(findings, "demographic_parity_difference", attribute="race")
    assert gap.detail["left_out"] == ["Tiny"]
    assert gap.detail["groups"] == ["A", "B", "C"]
    kept = race != "Tiny"
    assert gap.n == kept.sum()
    oracle = demographic_parity_difference(y[kept], predicted[kept], sensitive_features=race[kept])
    assert gap.value == pytest.approx(oracle)


def test_a_group_of_one_class_is_insufficient(told):
    y, predicted, groups = random_people(1000, seed=3)
    y[groups["sex"] == "Female"] = 0
    findings = run(told(y, predicted, {"sex": groups["sex"]}))
    assert find(findings, "accuracy", attribute="sex", group="Female").status == "insufficient"
    gap = find(findings, "equalised_odds_difference", attribute="sex")
    assert (gap.status, gap.value) == ("insufficient", None)
    assert "1 of 2 groups" in gap.reason


@pytest.mark.parametrize("answer", [0, 1])
def test_a_constant_classifier_has_no_gap_but_an_interval(told, answer):
    y, _, groups = random_people(2000, seed=4)
    findings = run(told(y, np.full(2000, answer), {"sex": groups["sex"]}))
    for metric in ("demographic_parity_difference", "equalised_odds_difference"):
        finding = find(findings, metric, attribute="sex")
        assert finding.value == finding.interval[0] == 0.0
        assert 0 < finding.interval[1] < 0.05


def test_without_a_positive_class_only_accuracy_is_compared(perceptron, inputs, judged):
    x = inputs(900)
    y = np.random.default_rng(5).integers(0, 3, 900)
    findings = run(judged(perceptron(3), x, y, classes=3))
    assert {f.metric for f in findings if f.status == "measured"} == {
        "fairness.accuracy",
        "fairness.accuracy_difference",
    }
    assert find(findings, "demographic_parity_difference", attribute="sex").status == "not_applicable"
    gap = find(findings, "accuracy_difference", attribute="sex")
    rates = [f.value for f in findings if f.metric == "fairness.accuracy"]
    assert gap.value == pytest.approx(abs(rates[0] - rates[1]))


def test_without_groups_fairness_is_not_applicable(told):
    findings = run(told([0, 1], [0, 1], {}))
    assert {f.status for f in findings} == {"not_applicable"}
    assert len(findings) == 4
