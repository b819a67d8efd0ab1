"""A grid under attack: its cells are runs, the worst attack is the worst, and wrong requests are refused at once."""

import json
import math

import pandas as pd
import pytest
from tiny_federation import config

import fedsafe.runs.byzantine_grid as gridding
from fedsafe.errors import ConfigError
from fedsafe.privacy.accounting import epsilon, group_epsilon
from fedsafe.report.byzantine import render_byzantine
from fedsafe.runs import make_config, run
from fedsafe.runs.adversaries import adversaries_of
from fedsafe.runs.byzantine import NO_ATTACK, Grid
from fedsafe.runs.byzantine_cell import read_release

WHOLE = {"clients": 12, "cohort": {"rate": 1.0}}
BASE = make_config(config(privacy__noise_key="seed", federation=WHOLE, rounds=2))
AXES = {
    "attacks": ("sign_flip", "label_flip"),
    "aggregators": ("mean", "trimmed_mean"),
    "shares": (0.25, 0.4),
    "epsilons": (math.inf, 1.0),
}


def grid(**changes):
    return Grid(**{"base": BASE, **AXES, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("grid")


@pytest.fixture(scope="module")
def body(folder):
    return gridding.run_grid(grid(), folder)


@pytest.fixture(scope="module")
def rows(folder, body):
    return pd.read_csv(folder / "cells.csv", keep_default_na=False)


def line(body, **place):
    (found,) = [one for one in body["cells"] if place.items() <= one.items()]
    return found


def test_every_combination_has_a_row(body, rows, folder):
    assert len(rows) == len(body["cells"]) == 3 * 2 * 2 * 2
    assert sorted(set(rows["epsilon"])) == [1.0, math.inf]
    assert rows.shape == pd.read_parquet(folder / "cells.parquet").shape
    assert json.loads((folder / "grid.json").read_text()) == body


@pytest.mark.parametrize(
    ("attack", "aggregator", "budget"), [("sign_flip", "trimmed_mean", 1.0), (NO_ATTACK, "mean", math.inf)]
)
def test_a_cell_is_the_run_alone(rows, tmp_path, attack, aggregator, budget):
    (cell,) = [
        cell
        for cell in grid().cells()
        if (cell.attack, cell.aggregator, cell.epsilon, cell.share) == (attack, aggregator, budget, 0.4)
    ]
    alone = run(cell.config, out=tmp_path / "run")
    where = (rows["attack"] == attack) & (rows["aggregator"] == aggregator)
    (row,) = rows[where & (rows["epsilon"] == budget) & (rows["share"] == 0.4)].to_dict("records")
    assert row["value"] == alone.accuracy


def test_rules_that_ask_are_told_and_others_share_the_unattacked_run(body, rows):
    clean = rows[rows["attack"] == NO_ATTACK]
    assert clean[clean["aggregator"] == "mean"].groupby("epsilon")["cell"].nunique().tolist() == [1, 1]
    assert clean[clean["aggregator"] == "trimmed_mean"].groupby("epsilon")["cell"].nunique().tolist() == [
        2,
        2,
    ]
    assert body["runs"] == rows["cell"].nunique() == 2 * (1 + 2 + 2 * 2 * 2)


def test_who_is_an_adversary_is_counted(rows):
    attacked = rows[rows["attack"] != NO_ATTACK]
    assert attacked.groupby("share")["adversaries"].unique().map(list).to_dict() == {0.25: [3], 0.4: [5]}
    assert set(rows[rows["attack"] == NO_ATTACK]["adversaries"]) == {0}
    cell = next(cell for cell in grid().cells() if cell.attack == "label_flip")
    assert len(adversaries_of(cell.config, 12)) == 3


def test_the_worst_attack_is_the_one_that_leaves_least(body):
    for worst in body["worst"]:
        place = {axis: worst[axis] for axis in ("partition", "epsilon", "share", "aggregator")}
        values = [line(body, **place, attack=attack)["value"] for attack in AXES["attacks"]]
        assert worst["value"] == min(values)
    assert len(body["worst"]) == 2 * 2 * 2


def test_a_model_that_is_not_finite_is_the_worst():
    lines = [
        {"partition": "iid", "epsilon": 1.0, "share": 0.1, "aggregator": "mean"} | {"attack": a, "value": v}
        for a, v in (("a", 0.1), ("b", None), (NO_ATTACK, 0.0))
    ]
    assert [one["attack"] for one in gridding.worst_attacks(lines)] == ["b"]


def test_losses_are_against_the_mean_without_attack(body):
    plain = line(body, aggregator="mean", attack=NO_ATTACK, share=0.4, epsilon="inf")
    attacked = line(body, aggregator="trimmed_mean", attack="sign_flip", share=0.4, epsilon="inf")
    assert attacked["lost"] == pytest.approx(plain["value"] - attacked["value"])
    own = gridding.mean_cells(
        [
            dict.fromkeys(("seed", "low", "high", "backdoor_success"))
            | {"partition": "iid", "epsilon": 1.0, "share": 0.1, "aggregator": "median", "adversaries": 1}
            | {"attack": attack, "value": value}
            for attack, value in ((NO_ATTACK, 0.9), ("alie", 0.7))
        ]
    )
    assert own[1]["lost"] == pytest.approx(0.2)


def test_publishing_composes(body):
    private = [cell for cell in grid().cells() if cell.epsilon == 1.0]
    runs = len({cell.config.digest for cell in private})
    (claim,) = [claim for claim in body["claims"] if claim["target"] == 1.0]
    assert body["composed"]["private"] == runs == body["runs"] // 2
    assert 3.0 * claim["epsilon"] < body["composed"]["epsilon"] < runs * claim["epsilon"]


def test_what_composes_is_what_was_released():
    release = read_release(
        {"kind": "sampled", "rate": 0.25, "noise": 2.0, "count": 4, "adjacency": "zero-out"}
    )
    kept = {"release": {"kind": "sampled", "rate": 0.25, "noise": 2.0, "count": 4, "adjacency": "zero-out"}}
    found = gridding.composed({"a": {**kept, "delta": 1e-5}, "b": {"release": None, "delta": 1e-5}})
    assert found["epsilon"] == epsilon(release, 1e-5)
    assert (found["private"], found["runs"]) == (1, 2)
    twice = gridding.composed({name: {**kept, "delta": 1e-5} for name in "ab"})
    assert found["epsilon"] < twice["epsilon"] < 2.0 * found["epsilon"]


def test_where_a_person_has_several_records_publishing_costs_no_less_than_a_run():
    """The claim of each run is for all of them."""
    release = {"kind": "sampled", "rate": 0.25, "noise": 4.0, "count": 4, "adjacency": "zero-out"}
    kept = {"release": release, "delta": 1e-5, "group": 3}
    one, two = (gridding.composed(dict.fromkeys(names, kept)) for names in ("a", "ab"))
    assert one["epsilon"] == group_epsilon(read_release(release), 1e-5, 3)
    assert one["epsilon"] < two["epsilon"] < 2.0 * one["epsilon"]
    assert "for all of the 3 records of one person" in one["accountant"]


def test_an_interrupted_grid_goes_on(folder, body, monkeypatch):
    def none(configs):
        raise AssertionError("everything is there")
        yield

    monkeypatch.setattr(gridding, "byzantine_cells", none)
    again = gridding.run_grid(grid(attacks=("sign_flip",)), folder / ".." / folder.name)
    assert line(again, attack="sign_flip", aggregator="mean", share=0.4, epsilon=1.0) == line(
        body, attack="sign_flip", aggregator="mean", share=0.4, epsilon=1.0
    )


def test_seeds_give_means_with_intervals(tmp_path):
    found = gridding.run_grid(
        grid(attacks=("sign_flip",), aggregators=("mean",), shares=(0.25,), epsilons=(math.inf,), seeds=3),
        tmp_path,
    )
    values = pd.read_csv(tmp_path / "cells.csv")
    sums = values[values["attack"] == "sign_flip"]["value"]
    attacked = line(found, attack="sign_flip")
    assert attacked["value"] == pytest.approx(sums.mean())
    assert attacked["low"] < attacked["value"] < attacked["high"] or sums.nunique() == 1
    assert sorted(values["seed"].unique()) == [0, 1, 2]


def test_skewed_is_the_configurations_own_or_by_label():
    def partitions(base):
        return [
            cell.config.federation.partition for cell in grid(base=base, partitions=("iid", "skewed")).cells()
        ]

    assert {one["name"] for one in partitions(BASE)} == {"iid", "dirichlet"}
    own = {"name": "quantity", "alpha": 2.0}
    base = make_config(config(federation={**WHOLE, "partition": own}))
    assert {"name": "iid"} in partitions(base)
    assert own in partitions(base)


def test_options_are_the_configurations_own():
    section = {"attack": {"name": "sign_flip", "scale": 9.0}, "share": 0.1}
    rule = {"name": "trimmed_mean", "share": 0.1, "before": {"name": "bucketing", "size": 3}}
    base = make_config(config(federation=WHOLE, byzantine=section, server={"aggregator": rule}))
    cells = list(grid(base=base, aggregators=("trimmed_mean", "krum+nearest_neighbour_mixing")).cells())
    attacked = next(
        cell for cell in cells if cell.attack == "sign_flip" and cell.aggregator == "trimmed_mean"
    )
    assert attacked.config.byzantine.attack == {"name": "sign_flip", "scale": 9.0}
    assert attacked.config.server.aggregator == {**rule, "share": 0.25}
    mixed = next(cell for cell in cells if cell.aggregator.startswith("krum"))
    assert mixed.config.server.aggregator == {
        "name": "krum",
        "before": "nearest_neighbour_mixing",
        "share": 0.25,
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shares": (1.5,)}, "asks for 18 adversaries of 12 clients"),
        ({"shares": (0.5,)}, "below 0.5"),
        ({"shares": (0.01,)}, "is no adversary"),
        ({"attacks": ("ali",)}, "did you mean 'alie'"),
        ({"attacks": ("label_flp",)}, "did you mean 'label_flip'"),
        ({"aggregators": ("medain",)}, "did you mean 'median'"),
        ({"aggregators": ("median+mixing",)}, "before = 'mixing'"),
        ({"aggregators": ("fedavg",)}, "needs the update of each client"),
        ({"attacks": ("model_replacement",)}, "set byzantine.poison"),
        ({"partitions": ("skew",)}, "did you mean 'skewed'"),
        ({"epsilons": (0.0,)}, "above 0"),
        ({"epsilons": ()}, "is empty"),
        ({"attacks": ("alie", "alie")}, "twice"),
        ({"seeds": 0}, "from 1"),
    ],
)
def test_a_wrong_request_is_one_line(changes, said):
    with pytest.raises(ConfigError, match=said) as error:
        grid(**changes)
    assert "\n" not in str(error.value)


def test_a_backdoor_needs_a_trigger_and_nothing_is_trained_without(tmp_path):
    with pytest.raises(ConfigError, match="backdoor"):
        gridding.run_grid(grid(attacks=("backdoor",)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_poison_fits_rules_without_rows():
    cells = grid(attacks=("label_flip",), aggregators=("fedavg",)).cells()
    assert {cell.config.server.aggregator for cell in cells} == {"fedavg"}


def test_the_page_says_it_all(body):
    page = render_byzantine(body, "fedsafe byzantine x")
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count('<table class="heat">') == 4
    for text in (
        f"{body['runs']} runs",
        "label flip",
        "Allouah",
        "composes",
        "their own updates alone",
    ):
        assert text in page
    # One worst attack for each rule, share and budget.
    assert page.count(" least") >= 8
    assert ('class="notice"' in page) == any(figures["vacuous"] for figures in body["noise"])


def test_a_page_shows_warnings_and_models_that_are_lost(body):
    changed = json.loads(json.dumps(body))
    changed["warnings"] = ["epsilon 1: every rule is vacuous"]
    changed["noise"][0]["warning"] = changed["warnings"][0]
    changed["cells"][1]["value"] = changed["cells"][1]["lost"] = None
    page = render_byzantine(changed)
    assert page.count("every rule is vacuous") == 2
    assert "diverged" in page
