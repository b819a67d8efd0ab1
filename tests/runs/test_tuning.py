"""A search for settings, from names to a page: trials are runs of their own, kept, and told to nobody without need."""

import json
import math
import os
from types import SimpleNamespace

import pandas as pd
import pytest
from tiny_federation import config, task

import fedsafe.runs.tuning as searching
from fedsafe.errors import ConfigError
from fedsafe.report.comparison import render_comparison
from fedsafe.report.comparison_tuning import headlines, how_it_was_paid, render_search
from fedsafe.runs import make_config
from fedsafe.runs.comparison import Comparison
from fedsafe.runs.tuning import Tuning
from fedsafe.runs.tuning_cell import tuning_cells
from fedsafe.runs.tuning_result import _counted, run_tuned

BASE = make_config(config(assess__assessors=["performance"]))
SEEDED = make_config(config(assess__assessors=["performance"], privacy__noise_key="seed"))
# Of such a search, Poisson's law gives no trial in one of three hundred.
TUNING = Tuning(names=["clip,lr"], trials=6)


def compared(**changes):
    return Comparison(**{"base": BASE, "epsilons": (0.1, math.inf), "seeds": 1, **changes})


@pytest.fixture
def asked(monkeypatch):
    """The settings of every trial that is trained."""
    found = []

    def counted(configs, **options):
        found.extend((one.privacy.record.clip, one.client.optimizer.lr) for one in configs)
        yield from tuning_cells(configs, **options)

    counted.__name__ = tuning_cells.__name__
    monkeypatch.setattr(searching, "tuning_cells", counted)
    return found


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    done, trials = run_tuned(compared(), TUNING, folder)
    return folder, done, trials


def test_the_best_trial_of_each_budget_is_what_its_runs_have(secret):
    _, done, trials = secret
    private, free = done.body["tuning"]["choices"]
    for choice in (private, free):
        mine = [trial for trial in trials if trial["budget"] == choice["epsilon"]]
        assert [trial["chosen"] for trial in mine].count(True) == (1 if mine else 0)
        if mine:
            assert choice["score"] == max(trial["score"] for trial in mine)
    for cell in done.cells:
        values = (private if math.isfinite(cell.epsilon) else free)["values"]
        for key, value in values.items():
            found = cell.config.model_dump()
            for part in key.split("."):
                found = found[part]
            assert found == float(value)
    assert set(free["values"]) == {"client.optimizer.lr"}  # without privacy there is no clip
    assert len({trial["parameters_sha256"] for trial in trials}) == len(trials)


def test_the_same_search_trains_nothing_again(secret, asked):
    folder, done, trials = secret
    again, same = run_tuned(compared(), TUNING, folder)
    assert asked == []
    assert again.body["time"]["fresh"] == 0
    assert [trial["parameters_sha256"] for trial in same] == [trial["parameters_sha256"] for trial in trials]
    assert again.body["tuning"] == done.body["tuning"]


def test_a_lost_trial_is_all_that_is_made_again(secret, asked):
    folder, _, trials = secret
    next((folder / "private" / "cells").glob("*.json")).unlink()
    _, same = run_tuned(compared(), TUNING, folder)
    assert len(asked) == 1
    keys = [(one["budget"], one["trial"], one["client.optimizer.lr"]) for one in trials]
    assert [(one["budget"], one["trial"], one["client.optimizer.lr"]) for one in same] == keys


def test_what_the_figure_rests_on_is_told_to_nobody(secret):
    """How many trials there were, what was tried and what scored worse."""
    folder, done, trials = secret
    assert done.body["tuning"]["rows"] is None
    private = folder / "private"
    assert os.stat(private).st_mode & 0o077 == 0
    assert (
        len(pd.read_csv(private / "trials.csv"))
        == len(pd.read_parquet(private / "trials.parquet"))
        == len(trials)
    )
    # A value that was chosen for one budget is told, also where it was not chosen for another.
    chosen, others = (
        {str(one["client.optimizer.lr"]) for one in trials if one["chosen"] is told} for told in (True, False)
    )
    # A search whose number of trials was drawn as none has a choice all the same, which the other one may have tried.
    told = {str(choice["values"]["client.optimizer.lr"]) for choice in done.body["tuning"]["choices"]}
    others -= chosen | told
    seen = render_comparison(done.body) + "".join(
        path.read_text()
        for path in folder.rglob("*")
        if path.suffix in (".json", ".csv", ".toml") and private not in path.parents
    )
    for value in others:
        assert f">{value}<" not in seen
        assert f'"{value}"' not in seen
        assert f"lr = {value}\n" not in seen
    for digest in (one["parameters_sha256"] for one in trials):
        assert digest not in seen
    assert not (folder / "trials.csv").exists()


def test_the_page_says_what_the_search_costs_above_all_else(secret):
    _, done, trials = secret
    page = render_comparison(done.body)
    section = page[page.index('id="tuning"') : page.index('id="choose"')]
    (headline,) = headlines(done.body["tuning"])
    assert "more than the 0.1 that was asked for" in headline
    for cost in done.body["tuning"]["choices"][0]["units"]:
        assert cost["search"] > 1.5 * cost["alone"]
    for text in (headline, "Papernot and Steinke", "not free", "Scored on 18 records", "no guarantee"):
        assert text in section
    owners = render_search(done.body, trials)
    assert "Not for publication" in owners
    assert owners.count("<svg") == 2
    assert "was best of" in owners


def test_the_table_has_both_figures(secret):
    table = pd.read_csv(secret[0] / "tuning.csv")
    assert list(table.budget.astype(str)) == ["0.1", "inf"]
    for unit in ("record", "client"):
        assert table[f"search_{unit}"][0] > table[f"alone_{unit}"][0]
        assert math.isnan(table[f"search_{unit}"][1])
    assert json.loads((secret[0] / "comparison.json").read_text())["tuning"]["on"] == "held-out"


def test_final_runs_are_judged_where_nothing_was_tuned(secret):
    _, done, _ = secret
    assert {result["evaluation_records"] for result in done.results} == {42}
    assert done.body["task"] == "tiny_federation:task"
    assert "on which nothing was tuned" in done.body["settings"]["evaluation"]


def test_a_public_search_is_free_and_shown(tmp_path):
    done, trials = run_tuned(compared(epsilons=(0.1,)), Tuning(names=["lr"], trials=3, on="public"), tmp_path)
    found = done.body["tuning"]
    assert found["rows"] == trials
    assert len(trials) == 3
    assert all(cost["search"] == cost["alone"] for cost in found["choices"][0]["units"])
    page = render_comparison(done.body)
    assert "costs nothing" in page
    assert "was best of 3" in page
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 3


def test_plans_that_trials_choose_between_are_all_paid_for(tmp_path):
    done, trials = run_tuned(
        compared(base=SEEDED, epsilons=(0.1,)), Tuning(names=["steps=1,2"], trials=2), tmp_path
    )
    (choice,) = done.body["tuning"]["choices"]
    assert (choice["law"], len(trials)) == ("fixed", 2)
    record = choice["units"][0]
    assert record["search"] > 1.5 * record["alone"]
    assert "one run of every plan" in render_comparison(done.body)


def test_trials_on_other_records_are_other_trials(tmp_path, asked):
    options = {"base": SEEDED.model_copy(update={"task": "given in Python"}), "epsilons": (math.inf,)}
    tuning = Tuning(names=["lr"], trials=2)
    for records in (240, 240, 200):
        run_tuned(compared(**options), tuning, tmp_path, data=task(records=records))
    assert len(asked) == 4


def test_a_search_on_other_records_or_by_other_code_is_counted(tmp_path, monkeypatch):
    def searched(records):
        # Without privacy there is always a trial, and no plan to look at.
        options = {"base": BASE.model_copy(update={"task": "given in Python"}), "epsilons": (math.inf,)}
        given = task(records=records)
        return searching.tune(
            compared(**options), Tuning(names=["lr"], trials=1), tmp_path, data=given
        ).earlier

    assert [searched(240), searched(240), searched(200)] == [0, 0, 1]
    monkeypatch.setattr(searching, "code_digest", lambda: "of a later version")
    assert searched(200) == 2


def test_the_figure_with_a_search_says_whose_it_is_where_seeds_cut_the_records_anew():
    def how(**cost):
        costs = [{"unit": "client", "alone": 0.1, "search": 0.2, "reason": None, **cost}]
        choice = {
            "epsilon": "0.1",
            "series": {},
            "law": "poisson",
            "searched": ["a"],
            "values": {},
            "units": costs,
        }
        found = {"on": "held-out", "trials": 2, "choices": [choice]}
        return " ".join(how_it_was_paid(found))

    free, paid = (SimpleNamespace(free=free) for free in (True, False))
    for seeds, grid, told in ((2, {}, True), (1, {}, False), (1, {"federation.clients": ["5", "6"]}, False)):
        tuned = SimpleNamespace(comparison=compared(seeds=seeds, grid=grid))
        assert (_counted(paid, BASE, tuned, "client") is not None) == told
        assert _counted(free, BASE, tuned, "client") is _counted(paid, BASE, tuned, "record") is None
    assert "the first seed's partition" in how(counted="the client of one number")
    assert "of the client of one number." in how(counted="the client of one number")
    assert "partition" not in how(counted=None)
    assert "partition" not in how(counted="the client of one number", search=None)


@pytest.mark.parametrize(
    ("tuning", "changes", "said"),
    [
        ({"trials": 0}, {}, "--trials 0"),
        ({"on": "private"}, {}, "--tune-on 'private' is unknown: use held-out or public"),
        ({}, {"base": SEEDED, "paired": True}, "leave --paired or --tune out"),
        ({"names": ["rounds=2..4"]}, {}, "each value is another plan"),
        ({"names": ["clib"]}, {}, "unknown configuration key"),
        ({}, {"base": make_config(config(data={"evaluation": "validation"}))}, "judges on training records"),
    ],
)
def test_a_wrong_request_is_one_line_and_trains_nothing(tuning, changes, said, tmp_path, asked):
    with pytest.raises(ConfigError) as refused:
        run_tuned(compared(**changes), Tuning(**{"names": ["lr"], "trials": 2, **tuning}), tmp_path)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert asked == []
