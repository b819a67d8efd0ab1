"""What a comparison says of its runs: intervals that cover, trends, knees, fronts and the budgets in other words."""

import math

import numpy as np
import pytest

from fedsafe.errors import PlanViolation
from fedsafe.privacy.accounting import SampledGaussian, epsilon
from fedsafe.runs.comparison import Cell
from fedsafe.runs.comparison_costs import equivalents, require_one_axis
from fedsafe.runs.comparison_measures import groups, measured
from fedsafe.runs.comparison_summary import curves, enough, estimate, fronts, knee, time_table, trend
from fedsafe.runs.config import make_config

CONFIG = make_config({})


def finding(metric, value, interval=None, **where):
    return {
        "metric": metric,
        "where": where,
        "status": "measured",
        "value": value,
        "interval": interval,
        "n": 100,
        "reason": None,
    }


def curve(by_budget):
    """Of accuracy: budget to the values of its seeds."""
    cells, results = [], []
    for budget, values in by_budget.items():
        for seed, value in enumerate(values):
            cells.append(Cell(epsilon=budget, series={}, seed=seed, config=CONFIG))
            results.append({"findings": [finding("performance.accuracy", value)]})
    (found,) = curves(cells, results, measured)
    return found


def points(found):
    return {point["epsilon"]: point for point in found["points"]}


@pytest.mark.parametrize("seeds", [2, 5])
def test_intervals_cover_a_known_truth(seeds):
    """95 % intervals of means, and of what a budget costs in pairs: 93 to 97 % of 1,000 repetitions."""
    rng = np.random.default_rng(3)
    covered = lost = 0
    for _ in range(1000):
        # What the seeds of a partition have in common is far larger than what a budget costs.
        common = rng.normal(0.8, 0.05, seeds)
        found = points(
            curve(
                {
                    1.0: common - 0.02 + rng.normal(0, 0.01, seeds),
                    math.inf: common + rng.normal(0, 0.01, seeds),
                }
            )
        )
        covered += found["inf"]["low"] <= 0.8 <= found["inf"]["high"]
        lost += found["1"]["lost"]["low"] <= -0.02 <= found["1"]["lost"]["high"]
    assert 930 <= covered <= 970
    assert 930 <= lost <= 970


def test_pairs_see_what_means_do_not():
    rng = np.random.default_rng(0)
    common = rng.normal(0.8, 0.05, 5)
    found = points(curve({1.0: common - 0.02 + rng.normal(0, 1e-3, 5), math.inf: common}))
    assert found["1"]["high"] > found["inf"]["low"]  # alone, the two may be equal
    assert found["1"]["lost"]["high"] < 0.0


def test_what_was_not_measured_has_no_mean():
    assert estimate([0.5, None]) == {"value": None, "low": None, "high": None, "n": 1}
    assert estimate([0.5], (0.4, 0.6)) == {"value": 0.5, "low": 0.4, "high": 0.6, "n": 1}
    assert estimate([0.5])["low"] is None


def test_a_cost_needs_a_run_without_privacy():
    assert points(curve({1.0: [0.7, 0.8]}))["1"]["lost"] is None
    assert points(curve({1.0: [0.7, 0.8], math.inf: [0.8, 0.9]}))["inf"]["lost"] is None


def test_a_trend_is_paired_over_seeds():
    rng = np.random.default_rng(1)
    common = rng.normal(0.8, 0.05, 5)
    rises = curve({e: common + 0.01 * place for place, e in enumerate((1.0, 2.0, 4.0))})
    found = trend(rises, {})
    assert found["slope"]["value"] == pytest.approx(0.01)
    assert found["p"] < 1e-6
    falls = curve({e: common - 0.01 * place for place, e in enumerate((1.0, 2.0, 4.0))})
    assert trend(falls, {})["p"] > 0.99
    assert trend(curve({1.0: [0.5], 2.0: [0.6]}), {}) is None
    null = [trend(curve({e: rng.normal(0.8, 0.1, 5) for e in (1.0, 2.0, 4.0)}), {})["p"] for _ in range(400)]
    assert 0.02 < np.mean(np.array(null) < 0.05) < 0.085


def test_the_knee_is_where_more_buys_less():
    bends = {0.5: [0.5], 1.0: [0.7], 2.0: [0.79], 4.0: [0.8], 8.0: [0.81]}
    assert knee(curve(bends), {}) == "2"
    assert knee(curve({0.5: [0.5], 1.0: [0.6], 2.0: [0.7]}), {}) is None  # straight
    assert knee(curve({0.5: [0.8], 1.0: [0.7], 2.0: [0.6]}), {}) is None  # falls
    assert knee(curve({0.5: [0.5], math.inf: [0.7]}), {}) is None


def test_enough_is_shown_and_not_hoped_for():
    sure = {1.0: [0.70, 0.71], 2.0: [0.798, 0.798], 4.0: [0.799, 0.799], math.inf: [0.80, 0.80]}
    assert enough(curve(sure), {}, 0.01) == "2"
    unsure = {**sure, 2.0: [0.77, 0.83]}  # as good on average, and nobody knows
    assert enough(curve(unsure), {}, 0.01) == "4"


def test_fronts_leave_out_what_another_beats():
    cells = [Cell(epsilon=e, series={}, seed=0, config=CONFIG) for e in (1.0, 2.0, math.inf)]
    figures = [(0.7, 0.3), (0.8, 0.1), (0.9, 0.2)]
    results = [
        {"findings": [finding("performance.accuracy", one), finding("performance.ece", other)]}
        for one, other in figures
    ]
    found = {
        (f["first"], f["second"]): [p["epsilon"] for p in f["points"]]
        for f in fronts(curves(cells, results, measured), [{}])
    }
    assert found["accuracy", "ece"] == ["2", "inf"]  # calibration: less is better
    assert found["epsilon", "accuracy"] == ["1", "2", "inf"]
    assert found["epsilon", "ece"] == ["1", "2"]


def test_measures_are_chosen_alike():
    findings = [
        finding("performance.accuracy", 0.8),
        finding("fairness.accuracy", 0.9, attribute="sex", group="a"),
        finding("fairness.accuracy", 0.6, attribute="sex", group="b"),
        finding("fairness.accuracy", 0.1, attribute="sex & race", group="b & c"),
        {**finding("fairness.accuracy", None, attribute="sex", group="c"), "status": "insufficient"},
        *(
            finding("robustness.attacked_accuracy", value, attack=attack, norm="linf", radius=radius)
            for attack, value in (("worst", 0.3), ("fgsm", 0.5))
            for radius in (0.1, 0.2, 0.3)
        ),
        finding("certified.accuracy", 0.2, method="ibp", norm="linf", radius=0.1),
        finding("certified.accuracy", 0.25, method="crown", norm="linf", radius=0.1),
    ]
    found = {figure.key: figure for figure in measured(findings)}
    assert found["worst group"].value == 0.6
    assert found["attacked"].value == 0.3
    assert found["attacked"].title.endswith("radius 0.2")
    assert found["certified"].value == 0.25
    assert [figure.value for figure in groups(findings)] == [0.9, 0.6, None]


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.5])
def test_mu_is_that_of_the_gaussian_release_itself(mu):
    bound = epsilon(SampledGaussian(rate=1.0, noise=1.0 / mu, count=1), 1e-5)
    assert equivalents(bound, 1e-5)["mu"] == pytest.approx(mu, rel=1e-3)


def test_other_words_bound_what_an_attacker_can():
    found = equivalents(math.log(3.0), 0.0 + 1e-12)
    assert found["posterior"] == pytest.approx(0.75)
    assert found["true_positives"] == pytest.approx(0.003)
    assert equivalents(1000.0, 1e-5)["true_positives"] == 1.0
    assert equivalents(None, 1e-5) == {"mu": None, "true_positives": None, "posterior": None}
    # The curve of the Gaussian release stays below the bound at this false positive rate.
    from statistics import NormalDist

    normal = NormalDist()
    for mu in (0.5, 1.0, 3.0):
        bound = epsilon(SampledGaussian(rate=1.0, noise=1.0 / mu, count=1), 1e-5)
        power = 1.0 - normal.cdf(normal.inv_cdf(1 - 0.001) - mu)
        assert power <= equivalents(bound, 1e-5)["true_positives"] + 1e-12


def test_claims_without_a_guarantee_stand_apart():
    claim = {
        "unit": "record",
        "epsilon": 1.0,
        "adjacency": "zero-out",
        "adversary": "a",
        "cohort_secret": False,
        "release": "r",
        "delta": 1e-5,
        "randomness": "",
    }
    require_one_axis([claim, {**claim, "epsilon": None, "delta": 0.1}, {**claim, "epsilon": 8.0}])
    with pytest.raises(PlanViolation, match="delta"):
        require_one_axis([claim, {**claim, "delta": 0.1}])


def test_time_is_summed():
    cell = {
        "seconds": {
            "preparing": 1.0,
            "training": 2.0,
            "accounting": 0.5,
            "judging": 3.0,
            "auditing": 0.5,
            "assessors": {"a": 1.0},
        }
    }
    assert time_table([cell, cell])["training"] == 4.0
    assert time_table([cell, cell])["assessors"] == {"a": 2.0}
