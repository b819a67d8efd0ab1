"""Gaps equal fairlearn's, and their intervals cover, above all when there is no gap."""

import tracemalloc

import numpy as np
import pytest
from fairlearn.metrics import (
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
)
from torch import nn

from fedsafe.assess.fairness import mean_gaps
from fedsafe.assess.fairness.assessor import Fairness
from fedsafe.assess.fairness.gaps import between_group_variance, measure_gap
from fedsafe.assess.fairness.mean_gaps import largest_studentised
from fedsafe.assess.fairness.rates import GAPS
from fedsafe.assess.fairness.sampling import GroupSample
from fedsafe.errors import ConfigError

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


def test_intervals_cover_a_fair_classifier_whose_estimate_is_far_from_fair():
    rng, runs = np.random.default_rng(11), 250
    draws = [cells_of(rng, np.array([100, 200, 900]), 0.4, 0.7, 0.1) for _ in range(runs)]
    gaps = [measure_gap(GroupSample(cells, rng, 300), ODDS) for cells in draws]
    assert np.mean([gap.interval[0] == 0 for gap in gaps]) >= 0.91
    # The estimate itself is far from 0, by as much as the anchor says.
    mean = np.mean([gap.value for gap in gaps])
    assert mean == pytest.approx(np.mean([gap.null_mean for gap in gaps]), rel=0.08)
    assert np.mean([gap.value > gap.null_95 for gap in gaps]) == pytest.approx(0.05, abs=0.035)


def test_intervals_cover_an_unfair_classifier_and_exclude_zero():
    rng, tpr = np.random.default_rng(12), np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    sizes = np.array([300, 400, 400, 3000, 800])
    gaps = [measure_gap(GroupSample(cells_of(rng, sizes, 0.4, tpr, 0.1), rng, 400), ODDS) for _ in range(120)]
    assert np.mean([low <= 0.4 <= high for low, high in (gap.interval for gap in gaps)]) >= 0.9
    assert np.mean([gap.interval[0] > 0.1 for gap in gaps]) > 0.95
    assert {(gap.lowest, gap.highest) for gap in gaps[:1]} == {(0, 4)}


@pytest.mark.parametrize(("groups", "size", "factor"), [(2, 1000, 1.128), (8, 200, 2.847)])
def test_null_gap_equals_the_expected_range_of_normals(groups, size, factor):
    cells = np.tile([size // 2, 0, 0, size // 2], (groups, 1))
    gap = measure_gap(GroupSample(cells, np.random.default_rng(0), 20_000), SELECTION)
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
    rates = {f.metric.split(".")[1] for f in findings if f.status == "measured" and "calib" not in f.metric}
    assert rates == {
        "accuracy",
        "accuracy_difference",
        "between_group_variance",
        "counterfactual_flip_rate",
    }
    assert find(findings, "demographic_parity_difference", attribute="sex").status == "not_applicable"
    gap = find(findings, "accuracy_difference", attribute="sex")
    rates = [f.value for f in findings if f.metric == "fairness.accuracy"]
    assert gap.value == pytest.approx(abs(rates[0] - rates[1]))
    assert (
        find(findings, "calibration_error", attribute="sex", group="Male").detail["event"].endswith("right")
    )


def test_without_groups_gaps_are_not_applicable(told):
    findings = [f for f in run(told([0, 1], [0, 1], {})) if "flip" not in f.metric]
    assert {f.status for f in findings} == {"not_applicable"}
    calibration = {"calibration_error_difference", "calibration_in_the_large_difference"}
    assert {f.metric for f in findings} == {f"fairness.{gap}" for gap in {*GAPS, *calibration}}


NO_GAP = {"ratio": 1.0, "difference": 0.0, "mean": 0.0}


@pytest.mark.parametrize("sizes", [[150, 200, 400, 3000, 800], [200] * 6])
def test_every_gap_of_a_fair_classifier_covers_and_is_debiased(sizes):
    rng, runs = np.random.default_rng(21), 100
    samples = [GroupSample(cells_of(rng, np.array(sizes), 0.4, 0.7, 0.15), rng, 300) for _ in range(runs)]
    for rates, form in GAPS.values():
        gaps = [measure_gap(sample, rates, form) for sample in samples]
        none = NO_GAP[form]
        assert np.mean([low <= none <= high for low, high in (gap.interval for gap in gaps)]) >= 0.87
        assert np.mean([gap.p_value < 0.05 for gap in gaps]) <= 0.12
        debiased, plain = (np.array([getattr(gap, name) for gap in gaps]) for name in ("debiased", "value"))
        error = debiased.std() / np.sqrt(runs)
        # A ratio's logarithm is centred, so that the ratio itself is so to first order.
        assert abs(debiased.mean() - none) < 4 * error + (0.03 if form == "ratio" else 0.0)
        assert abs(plain.mean() - none) > 8 * error


def test_a_debiased_gap_is_the_truth_where_groups_differ():
    rng, tpr = np.random.default_rng(22), np.array([0.5, 0.7, 0.9])
    sizes = np.array([300, 400, 500])
    samples = [GroupSample(cells_of(rng, sizes, 0.4, tpr, 0.1), rng, 200) for _ in range(200)]
    for form, truth in (("difference", 0.4), ("ratio", 5 / 9)):
        gaps = [measure_gap(sample, ("true_positive_rate",), form) for sample in samples]
        assert np.mean([gap.debiased for gap in gaps]) == pytest.approx(truth, abs=0.012)
        assert np.mean([low <= truth <= high for low, high in (gap.interval for gap in gaps)]) >= 0.92
        assert {gap.p_value for gap in gaps} == {1 / 201}


def test_dealing_successes_is_dealing_records():
    cells = np.array([[60, 10, 20, 30], [25, 5, 10, 20], [200, 30, 60, 90]])
    gap = measure_gap(GroupSample(cells, np.random.default_rng(0), 4000), SELECTION)
    groups = np.repeat([0, 1, 2], cells.sum(axis=1))
    chosen = np.concatenate([np.repeat([0, 1, 0, 1], row) for row in cells])
    rng, null = np.random.default_rng(1), []
    for _ in range(4000):
        dealt = rng.permutation(chosen)
        null.append(np.ptp([dealt[groups == group].mean() for group in range(3)]))
    assert gap.null_mean == pytest.approx(np.mean(null), rel=0.04)
    assert gap.null_95 == pytest.approx(np.quantile(null, 0.95), rel=0.05)
    assert gap.p_value == pytest.approx(np.mean(np.array(null) >= gap.value - 1e-12), abs=0.03)


@pytest.mark.parametrize("tpr", [[0.7] * 6, [0.5, 0.6, 0.6, 0.7, 0.8, 0.9]])
def test_the_double_corrected_variance_is_unbiased_and_the_plain_one_is_not(tpr):
    rng, sizes, runs = np.random.default_rng(23), np.array([100, 100, 150, 200, 300, 400]), 400
    truth = np.var(tpr, ddof=1)
    found, plain, inside = [], [], 0
    for _ in range(runs):
        sample = GroupSample(cells_of(rng, sizes, 0.4, np.array(tpr), 0.1), rng, 200)
        value, (low, high) = between_group_variance(sample, "true_positive_rate")
        found.append(value)
        plain.append(sample.shares("true_positive_rate").var(ddof=1))
        inside += low <= truth <= high
    error = np.std(found) / np.sqrt(runs)
    assert abs(np.mean(found) - truth) < 3.5 * error
    assert np.mean(plain) - truth > 8 * error
    assert inside >= 0.91 * runs


def test_nothing_selected_has_no_ratio(told):
    y, _, groups = random_people(1000, seed=6)
    findings = run(told(y, np.zeros(1000, int), {"sex": groups["sex"]}))
    for metric in ("demographic_parity_ratio", "equalised_odds_ratio"):
        finding = find(findings, metric, attribute="sex")
        assert (finding.status, finding.value) == ("insufficient", None)
        assert "no ratio" in finding.reason
    assert find(findings, "predictive_parity_difference", attribute="sex").status == "insufficient"
    value = find(findings, "positive_predictive_value", attribute="sex", group="Male")
    assert (value.status, value.n) == ("insufficient", 0)
    assert "predicted positive" in value.reason


def test_a_ratio_of_none_to_some_is_zero_and_its_interval_is_not(told):
    rng = np.random.default_rng(7)
    y, sex = rng.integers(0, 2, 2000), np.repeat(["A", "B"], 1000)
    predicted = np.where(sex == "A", 0, rng.integers(0, 2, 2000))
    ratio = find(run(told(y, predicted, {"sex": sex})), "demographic_parity_ratio", attribute="sex")
    assert ratio.value == ratio.interval[0] == 0.0
    assert 0 < ratio.interval[1] < 0.02


def test_a_group_column_with_one_value_has_no_gap(told):
    y, predicted, _ = random_people(500, seed=8)
    findings = run(told(y, predicted, {"site": np.repeat("North", 500)}))
    assert find(findings, "accuracy", attribute="site", group="North").status == "measured"
    for gap in GAPS:
        finding = find(findings, gap, attribute="site")
        assert finding.status == "insufficient"
        assert finding.reason == "the group column 'site' has one value at most, and a gap needs two groups"


@pytest.mark.parametrize("missing", [np.nan, None, "", " "])
def test_records_whose_group_is_not_stated_are_compared_with_none(told, missing):
    y, predicted, groups = random_people(2000, seed=9)
    sex = groups["sex"].astype(object)
    sex[:400] = missing
    findings = run(told(y, predicted, {"sex": sex, "race": groups["race"]}))
    lost = find(findings, "accuracy", attribute="sex", group="(not stated)")
    assert (lost.status, lost.n) == ("insufficient", 400)
    assert lost.reason == "the group of these 400 records is not stated"
    gap = find(findings, "accuracy_difference", attribute="sex")
    assert (gap.detail["groups"], gap.detail["left_out"]) == (["Female", "Male"], ["(not stated)"])
    assert gap.n == 1600
    both = find(findings, "accuracy_difference", attribute="sex & race")
    assert both.detail["left_out"] == ["(not stated)"]
    assert len(both.detail["groups"]) == 6


def test_wrong_options_are_one_line():
    with pytest.raises(ConfigError, match=r"intersection 'sex' needs two different group columns"):
        Fairness(intersections=("sex",))
    with pytest.raises(ConfigError, match=r"intersection \['sex'\] needs two"):
        Fairness(intersections=(["sex"],))
    with pytest.raises(ConfigError, match="minimum to 2 or more"):
        Fairness(minimum=1)


def test_intersections_of_three_columns(told):
    y, predicted, groups = random_people(4000, seed=10)
    groups["age"] = np.random.default_rng(0).choice(["old", "young"], 4000)
    findings = run(told(y, predicted, groups), intersections=(["sex", "race", "age"],))
    found = find(findings, "selection_rate", attribute="sex & race & age", group="Male & A & old")
    rows = (groups["sex"] == "Male") & (groups["race"] == "A") & (groups["age"] == "old")
    assert found.value == predicted[rows].mean()


def test_flips_are_counted_where_the_model_reads_the_column(inputs, judged, linear):
    x = inputs(600)
    margin = 0.4  # of a0 in [-1, 1]: a score of +-0.4 by sex flips two fifths of the records
    reads = linear([1.0, 0, 0, 0, -margin, margin], [0.0])
    blind = linear([1.0, 0, 0, 0, 0, 0], [0.0])
    y = (x[:, 0] > 0).astype(int)
    (found,) = (f for f in run(judged(reads, x, y)) if "flip" in f.metric)
    assert found.where == {"column": "sex"}
    assert found.value == np.mean(np.abs(x[:, 0]) < margin)
    assert found.interval[0] < found.value < found.interval[1]
    assert [row["to"] for row in found.detail["table"]] == ["Female", "Male"]
    (found,) = (f for f in run(judged(blind, x, y)) if "flip" in f.metric)
    assert (found.value, found.interval[0]) == (0.0, 0.0)
    found = [f for f in run(judged(blind, x, y), protected=("a0", "zip")) if "flip" in f.metric]
    assert [(f.where["column"], f.status) for f in found] == [("a0", "measured"), ("zip", "not_applicable")]
    assert found[0].value == 1.0
    assert "no column 'zip'" in found[1].reason


def test_many_groups_are_compared_block_by_block_as_all_at_once(monkeypatch):
    rng = np.random.default_rng(13)
    errors = rng.normal(size=(700, 40)) * rng.uniform(0.5, 2.0, 40)
    left, right = np.triu_indices(40, 1)
    differences = errors[:, left] - errors[:, right]
    slow = np.abs(differences / np.hypot(errors.std(axis=0)[left], errors.std(axis=0)[right])).max(axis=1)
    assert largest_studentised(errors, left, right) == pytest.approx(slow)
    monkeypatch.setattr(mean_gaps, "_BLOCK", 5000)
    assert largest_studentised(errors, left, right) == pytest.approx(slow)
    monkeypatch.setattr(mean_gaps, "_MOST_VALUES", 1)
    assert largest_studentised(errors, left, right) == pytest.approx(slow[:200])
    tracemalloc.start()
    largest_studentised(np.ones((500, 400)), *np.triu_indices(400, 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # all pairs at once would take 0.3 GB, several times over
