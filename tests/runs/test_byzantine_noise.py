"""When a rule is vacuous: lengths against known ones, the reach against the formula, and the warning both ways."""

import math

import numpy as np
import pytest
from tiny_federation import config

from fedsafe.runs import make_config
from fedsafe.runs.byzantine_noise import HonestUpdates, honest_updates
from fedsafe.runs.stacked_runs import prepare_runs, trainers_of


def updates(**values):
    return HonestUpdates(**{"clients": 100, "mean": 2.0, "spread": 0.3, "noise": 0.4, **values})


def test_the_reach_is_the_least_kappa_times_what_honest_updates_differ_by():
    # f / (n - 2 f) is 30 / 40, and 0.3 and 0.4 make 0.5.
    assert updates().reach(30) == pytest.approx(math.sqrt(0.75) * 0.5 / 2.0)
    assert updates().reach_without_noise(30) == pytest.approx(math.sqrt(0.75) * 0.3 / 2.0)
    assert updates().reach(0) == 0.0
    assert updates().reach(50) == math.inf


def test_a_rule_is_vacuous_where_noise_makes_its_reach_as_long_as_the_mean():
    edge = 2.0 / math.sqrt(0.75)  # the root mean square distance at which the reach is the mean
    assert updates(spread=0.0, noise=edge * 1.01).vacuous(30)
    assert not updates(spread=0.0, noise=edge * 0.99).vacuous(30)


def test_clients_that_differ_by_themselves_are_not_blamed_on_noise():
    assert not updates(spread=9.0, noise=9.0).vacuous(30)
    assert updates(spread=0.1, noise=9.0).vacuous(30)


def measured(**changes):
    values = {"privacy__noise_key": "seed", "privacy__client__epsilon": math.inf, **changes}
    (run,) = prepare_runs([make_config(config(**values))])
    return run, honest_updates(run, trainers_of([run])[0])


def test_the_noise_of_an_update_is_what_its_formula_says():
    # Plain steps of one rate: sigma C sqrt(steps d) lr / (q n), for each of twelve clients of 20 records.
    run, found = measured(
        federation={"clients": 12, "cohort": {"rate": 0.5}}, model={"name": "mlp", "hidden": [64]}
    )
    level, count = run.plan.record, run.parts.layout.total
    expected = level.noise * math.sqrt(level.steps * count) / (0.25 * 20)
    assert count > 300
    assert found.noise == pytest.approx(expected, rel=0.05)


def test_without_privacy_there_is_no_noise():
    _, found = measured(privacy__record__epsilon=math.inf)
    assert found.noise == 0.0
    assert found.mean > 0.0
    assert not found.vacuous(4)


def test_mean_and_spread_are_those_of_updates_without_noise():
    run, found = measured()
    _, again = measured()
    assert found == again
    rows = np.array([[0.0, 3.0], [0.0, 5.0]])

    class Given:
        def train(self, parameters, jobs):
            # Two clients repeated, noised by one in the second value where noise is asked for.
            base = np.resize(rows, (len(jobs), 2))
            noisy = base + np.array([0.0, 1.0]) if jobs[0].training.noise else base
            return np.pad(noisy, ((0, 0), (0, len(parameters) - 2))) + parameters

    by_hand = honest_updates(run, Given())
    assert by_hand.mean == pytest.approx(4.0, rel=1e-6)
    assert by_hand.spread == pytest.approx(1.0, rel=1e-6)
    assert by_hand.noise == pytest.approx(1.0, rel=1e-6)
