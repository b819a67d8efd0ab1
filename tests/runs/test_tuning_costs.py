"""What a search costs: every trial that could tell of a record is paid for, and none is free."""

import math

import pytest

from fedsafe.privacy.accounting import SampledGaussian, account, rdp_epsilon, search_cost
from fedsafe.runs.byzantine_cell import plain_release
from fedsafe.runs.tuning_costs import NO_GUARANTEE, Spent, cost_of, cost_of_all

RUN = SampledGaussian(rate=0.25, noise=15.0, count=3)
OTHER = SampledGaussian(rate=0.5, noise=20.0, count=3)
DELTA = 1e-5


def result(run=RUN, epsilon=None, group=1):
    known = account([run], DELTA).epsilon if epsilon is None and run is not None else epsilon
    return {
        "claims": [{"unit": "record", "epsilon": known, "delta": DELTA, "accountant": "of the run"}],
        "releases": {"record": None if run is None else [plain_release(run)]},
        "groups": {"record": group},
    }


def spent(**changes):
    values = {
        "trials": [result()] * 5,
        "mean": 5.0,
        "alternatives": [],
        "finals": [result()] * 3,
        "free": False,
    }
    return Spent(**{**values, **changes})


def test_the_headline_is_the_search_and_a_run():
    found = cost_of(spent(), "record")
    assert found["alone"] == account([RUN], DELTA).epsilon
    assert found["reason"] is None
    choice = search_cost([RUN], DELTA, mean=5.0, runs="poisson").epsilon
    assert choice < found["search"] < choice + rdp_epsilon(RUN, DELTA)
    assert "a poisson number of runs, 5 on average" in found["accountant"]


def test_how_many_trials_there_were_is_not_in_a_figure():
    """It is a secret, on which the bound rests."""
    assert cost_of(spent(trials=[result()] * 2), "record") == cost_of(spent(trials=[result()] * 9), "record")
    assert cost_of_all([spent(trials=[])], "record") == cost_of_all([spent()], "record")


def test_a_public_search_costs_nothing():
    found = cost_of(spent(free=True, mean=None), "record")
    assert found["search"] == found["alone"]
    whole = cost_of_all([spent(free=True, mean=None)], "record")
    assert whole["epsilon"] == account([RUN] * 3, DELTA).epsilon


def test_a_fixed_number_of_trials_is_paid_for_trial_by_trial():
    found = cost_of(spent(mean=None, alternatives=[result()]), "record")
    assert found["search"] == account([RUN] * 6, DELTA).epsilon


def test_every_plan_that_could_have_been_chosen_is_paid_for():
    plans = {"trials": [result(), result(OTHER)], "mean": None, "alternatives": [result(), result(OTHER)]}
    for chosen in (RUN, OTHER):
        found = cost_of(spent(**plans, finals=[result(chosen)]), "record")
        assert found["search"] == account([RUN, OTHER, RUN, OTHER], DELTA).epsilon


def test_seeds_with_plans_of_their_own_are_paid_for_with_these():
    """Fixed batches of other sizes of shards: each seed's noise is its own."""
    worse = SampledGaussian(rate=0.25, noise=6.0, count=3)
    one, several = cost_of(spent(), "record"), cost_of(spent(finals=[result(), result(worse)]), "record")
    assert several["search"] > one["search"] + 0.5 * rdp_epsilon(worse, DELTA)
    for changes in ({}, {"mean": None}, {"mean": None, "free": True}):
        all_alike = cost_of_all([spent(**changes, finals=[result()] * 2)], "record")["epsilon"]
        assert (
            cost_of_all([spent(**changes, finals=[result(), result(worse)])], "record")["epsilon"] > all_alike
        )


def test_plans_of_another_seed_that_nobody_searched_have_no_figure():
    plans = {"trials": [result()], "mean": None, "alternatives": [result(), result(OTHER)]}
    found = cost_of(spent(**plans, finals=[result(), result(OTHER)]), "record")
    assert found["search"] is None
    assert "each seed has plans of its own" in found["reason"]


def test_everything_published_costs_more_than_any_part():
    one, other = spent(), spent(finals=[result(OTHER)] * 3, trials=[result(OTHER)])
    whole = cost_of_all([one, other], "record")["epsilon"]
    for part in (one, other):
        assert cost_of(part, "record")["search"] < cost_of_all([part], "record")["epsilon"] < whole
    mixed = cost_of_all([one, spent(mean=None, alternatives=[result()])], "record")["epsilon"]
    assert mixed > cost_of_all([one], "record")["epsilon"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"finals": [result(None, None)]}, NO_GUARANTEE),
        ({"finals": [result(group=2)]}, "several elements of one person"),
        ({"finals": [result(None, 1.0)]}, "do not compose here"),
    ],
)
def test_what_has_no_bound_says_why(changes, said):
    found = cost_of(spent(**changes), "record")
    assert found["search"] is None
    assert said in found["reason"]
    whole = cost_of_all([spent(**changes)], "record")
    assert whole["epsilon"] is None
    assert said in whole["reason"]


def test_runs_without_a_guarantee_do_not_hide_those_that_have_one():
    free = spent(finals=[result(None, None)], mean=None)
    assert cost_of_all([spent(), free], "record") == cost_of_all([spent()], "record")


def test_a_cost_is_never_below_that_of_a_run():
    high = cost_of(spent(finals=[result(epsilon=50.0)]), "record")
    assert high["search"] >= high["alone"] == 50.0
    assert math.isfinite(high["search"])
