"""Figures of ways to a model beside each other: intervals that cover, pairs, the worst client, and what is not seen."""

import math

import numpy as np
import pytest

from fedsafe.runs.comparison import Cell
from fedsafe.runs.config import make_config
from fedsafe.runs.local_figures import ALL, WORST, Means, local_body
from fedsafe.runs.local_plans import ARMS

CONFIG = make_config({})


def of_one(*ways):
    """The estimate of one client's mean, or of its difference between two ways."""
    means = Means.of([[way] for way in ways])
    return means.weighted(np.array((1.0, -1.0)[: len(ways)]), np.ones(1))


def scores(rng, chances, seeds, records):
    """One client: persons differ in how easy they are, seeds in how good the model is; all chances are known."""
    easy = rng.normal(0.0, 1.0, records)
    good = rng.normal(0.0, 0.2, seeds)
    level = chances + 0.15 * np.tanh(easy[None] + good[:, None])
    return (rng.random((seeds, records)) < level).astype(float)


@pytest.mark.parametrize("records", [40, 150])
def test_intervals_cover_a_known_truth(records):
    rng = np.random.default_rng(5)
    covered = narrow = 0
    for _ in range(300):
        found = of_one(scores(rng, 0.75, 5, records))
        covered += found["low"] <= 0.75 <= found["high"]
        # The interval over seeds alone, which knows nothing of other persons.
        own = np.array(found["seeds"])
        narrow += abs(own.mean() - 0.75) <= 2.776 * own.std(ddof=1) / math.sqrt(5)
    assert 0.93 <= covered / 300 <= 0.99
    if records == 40:
        assert narrow / 300 < 0.93


def test_differences_are_of_the_same_persons():
    rng = np.random.default_rng(6)
    one = scores(rng, 0.75, 5, 60)
    other = one.copy()
    other[:, :3] = 0.0  # three persons lose whatever they had
    found = of_one(one, other)
    assert found["value"] == pytest.approx(one[:, :3].sum(axis=1).mean() / 60)
    apart = [of_one(rows) for rows in (one, other)]
    assert found["high"] - found["low"] < 0.7 * min(each["high"] - each["low"] for each in apart)


def test_resampling_gives_the_variance_that_a_formula_has():
    """The least of one client is its mean, so that both ways to an interval must agree."""
    rng = np.random.default_rng(9)
    means = Means.of([[scores(rng, 0.7, 5, 80)], [scores(rng, 0.6, 5, 80)]])
    signs = np.array((1.0, -1.0))
    one, other = means.weighted(signs, np.ones(1)), means.worst(signs)
    assert one["value"] == pytest.approx(other["value"])
    assert one["high"] - one["low"] == pytest.approx(other["high"] - other["low"], rel=0.08)


def test_what_never_differs_is_not_taken_for_certain():
    always = np.ones((5, 30))
    found = of_one(always, always)
    assert found["value"] == 0.0
    # Of 30 persons none differs: up to 1 - 0.025^(1/30) of all may.
    unseen = 1 - 0.025 ** (1 / 30)
    assert (found["low"], found["high"]) == pytest.approx((-unseen, unseen))
    share = of_one(always)
    assert (share["low"], share["high"]) == pytest.approx((1 - unseen, 1.0))


def result(levels):
    rng = np.random.default_rng(8)
    draw = {arm: [scores(rng, level, 1, 40)[0].tolist() for level in levels[arm]] for arm in ARMS}
    return {
        "clients": ["East", "West"],
        "records": [120, 130],
        "evaluation": "test",
        "majority": [[1.0] * 40, [0.0] * 40],
        "arms": {
            arm: {"epsilon": 1.0, "delta": 1e-5, "noise": 2.0, "steps": 6, "scores": draw[arm]}
            for arm in ARMS
        },
    }


def test_the_body_has_every_client_all_and_the_worst():
    levels = {"alone": (0.3, 0.4), "federated": (0.8, 0.8), "fine-tuned": (0.8, 0.8)}
    cells = [Cell(epsilon=1.0, series={}, seed=seed, config=CONFIG) for seed in range(3)]
    results = [result(levels) for _ in cells]
    body = local_body(cells, results)
    (row,) = body["rows"]
    assert row["epsilon"] == "1"
    assert set(row["ways"]) == {*ARMS, "majority"}
    for way in row["ways"].values():
        assert set(way) == {ALL, WORST, "East", "West"}
    alone = row["ways"]["alone"]
    assert alone[ALL]["value"] == pytest.approx((alone["East"]["value"] + alone["West"]["value"]) / 2)
    assert row["ways"]["majority"][WORST]["value"] == 0.0
    gain = row["differences"]["federated - alone"][ALL]
    assert gain["value"] == pytest.approx(row["ways"]["federated"][ALL]["value"] - alone[ALL]["value"])
    assert gain["low"] > 0.0
