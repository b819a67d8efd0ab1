"""A grid's series: by noise, clip, cohort, rounds, rule and unit; unlike claims stand on axes of their own."""

import math

import pytest
from tiny_federation import config

import fedsafe.runs.compare as compare
from fedsafe.runs import make_config
from fedsafe.runs.comparison import Comparison

BASE = make_config(config(privacy__noise_key="seed"))
EPSILONS = (0.1, math.inf)


def cells(**grid):
    found = Comparison(base=BASE, epsilons=EPSILONS, seeds=1, grid=grid).cells()
    return [cell.config for cell in found]


def body(folder, base=BASE, epsilons=EPSILONS, **grid):
    return compare.run_comparison(Comparison(base=base, epsilons=epsilons, seeds=1, grid=grid), folder)


@pytest.mark.parametrize(
    ("key", "values", "read"),
    [
        ("privacy.record.clip", ["0.5", "1.0"], lambda c: c.privacy.record.clip),
        ("federation.cohort.rate", ["0.25", "0.5"], lambda c: c.federation.cohort.rate),
        ("rounds", ["2", "3"], lambda c: c.rounds),
        ("server.optimizer.momentum", ["0.0", "0.5"], lambda c: c.server.optimizer.momentum),
    ],
)
def test_a_series_differs_in_what_the_grid_names_and_in_nothing_else(key, values, read):
    one, free, other, also_free = cells(**{key: values})
    assert [str(read(each)) for each in (one, other)] == values
    assert [str(read(each)) for each in (free, also_free)] == values
    section = key.partition(".")[0]
    assert one.model_dump(exclude={section}) == other.model_dump(exclude={section})


def test_by_noise_the_budget_stays_and_rounds_follow(tmp_path):
    grid = {"privacy.client.noise": ["3.0", "6.0"], "privacy.record.noise": ["20.0", "40.0"]}
    found = cells(**grid)
    assert [one.privacy.client.noise for one in found] == [3.0, None] * 2 + [6.0, None] * 2
    # Without privacy there is no noise to set: one run, and not four.
    assert len({one.digest for one in found if math.isinf(one.privacy.record.epsilon)}) == 1
    result = body(tmp_path, epsilons=(0.2,), **{"privacy.client.noise": ["15.0", "30.0"]})
    noise = [line["noise_multiplier"] for line in result["statements"] if line["unit"] == "client"]
    assert noise == [15.0, 30.0]
    assert len(result["settings"]["panels"]) == 1


def test_by_rule_unlike_adversaries_stand_apart(tmp_path):
    rules = ["noisy_mean", "local_gaussian", "adaptive_clip"]
    result = body(tmp_path, **{"server.aggregator": rules, "client.optimizer.lr": ["0.5", "1.0"]})
    panels = result["settings"]["panels"]
    named = [[series["server.aggregator"] for series in panel["series"]] for panel in panels]
    assert named == [[rule] * 2 for rule in rules]
    assert panels[0]["differs"] == ""
    assert "adversary (" in panels[1]["differs"]
    assert "release (" in panels[2]["differs"]
    assert [claim["panel"] for claim in result["axis"]] == [0, 0, 1, 1, 2, 2]
    adversaries = {
        claim["panel"]: claim["adversary"] for claim in result["axis"] if claim["unit"] == "client"
    }
    assert adversaries[0] != adversaries[1]
    for front in result["fronts"]:
        series = result["settings"]["panels"][front["panel"]]["series"]
        assert all(point["series"] in series for point in front["points"])


def test_unlike_deltas_stand_apart_with_the_difference_named(tmp_path):
    result = body(tmp_path, **{"privacy.record.delta": ["1e-5", "1e-6"]})
    assert [len(panel["series"]) for panel in result["settings"]["panels"]] == [1, 1]
    assert "delta (1e-06 against 1e-05)" in result["settings"]["panels"][1]["differs"]


def test_by_unit_each_budget_is_for_its_own_level(tmp_path):
    result = body(tmp_path, epsilons=(0.2, math.inf), unit=["record", "client", "both"])
    panels = result["settings"]["panels"]
    assert [panel["units"] for panel in panels] == [["record"], ["client"], ["record", "client"]]
    assert [panel["differs"] for panel in panels] == [
        "", "unit (client, against record)", "unit (record and client, against record)",
    ]  # fmt: skip
    assert [panel["other"] for panel in panels] == [
        [{"unit": "client", "epsilon": "0.1"}], [{"unit": "record", "epsilon": "0.1"}], [],
    ]  # fmt: skip
    told = {
        (line["series"]["unit"], line["unit"]): line["bound"]
        for line in result["statements"]
        if line["epsilon"] == "0.2"
    }
    assert set(told) == {("record", "record"), ("client", "client"), ("both", "record"), ("both", "client")}
    assert all(bound == pytest.approx(0.2, rel=2e-3) for bound in told.values())
    # A level that stays as it is is spent by every run all the same.
    assert {line["unit"]: line["private"] for line in result["publishing"]} == {"record": 4, "client": 4}


def test_what_an_audit_proves_stands_beside_what_is_accounted_for(tmp_path):
    base = make_config(config(privacy__noise_key="seed", audit={"every": 3, "canaries": 60}))
    result = body(tmp_path, base=base, epsilons=(0.1, math.inf))
    audited, accounted = result["audits"]
    assert (audited["key"], accounted["key"]) == ("audited record gradient", "accounted record gradient")
    ends = {
        curve["key"].partition(" ")[0]: {point["epsilon"]: point["value"] for point in curve["points"]}
        for curve in result["audits"]
    }
    assert ends["audited"]["0.1"] <= ends["accounted"]["0.1"] == pytest.approx(0.1, rel=2e-3)
    assert ends["accounted"]["inf"] is None
    assert ends["audited"]["inf"] > ends["accounted"]["0.1"]
    assert result["settings"]["audited"]
    assert result["time"]["auditing"] > 0.0
