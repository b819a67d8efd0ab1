"""A comparison's cells: each is the run that its configuration says, shared where it should be and nowhere else."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from tiny_federation import config

import fedsafe.client.stacked.stacked_trainer as training
import fedsafe.runs.compare as compare
from fedsafe.errors import ConfigError, FedSafeError
from fedsafe.runs import make_config, run
from fedsafe.runs.comparison import CLIPPED, Comparison, budget_name, read_budget
from fedsafe.runs.comparison_cell import comparison_cells
from fedsafe.runs.compose import compose
from fedsafe.runs.stacked_runs import prepare_runs, stacked_runs

SEEDED = {"privacy__noise_key": "seed"}
JUDGED = {"assess__assessors": ["performance", "fairness"]}
BASE = make_config(config(**SEEDED, **JUDGED))
EPSILONS = (0.1, 0.3, CLIPPED, math.inf)


def compared(**changes):
    return Comparison(**{"base": BASE, "epsilons": EPSILONS, "seeds": 2, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    body = compare.run_comparison(compared(), folder)
    assert json.loads((folder / "comparison.json").read_text()) == body
    return (
        folder,
        body,
        pd.read_parquet(folder / "runs.parquet"),
        pd.read_parquet(folder / "findings.parquet"),
    )


@pytest.fixture(scope="module")
def rows(whole):
    return whole[2]


@pytest.mark.parametrize("epsilon", [0.1, math.inf])
def test_a_cell_is_the_run_alone(rows, epsilon, tmp_path):
    cell = next(cell for cell in compared().cells() if cell.epsilon == epsilon and cell.seed == 1)
    alone = run(cell.config, out=tmp_path / "run")
    lines = [json.loads(line) for line in (alone.path / "record.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "round"][-1]
    row = rows[(rows.budget == budget_name(epsilon)) & (rows.seed == 1)].iloc[0]
    assert row.parameters_sha256 == last["parameters_sha256"]
    assert row.accuracy == alone.rounds().accuracy.iloc[-1]
    found = {json.dumps([f["metric"], f["where"]]): f["value"] for f in alone.last_findings()}
    (kept,) = comparison_cells([cell.config])
    ours = {json.dumps([f["metric"], f["where"]]): f["value"] for f in kept[1]["findings"]}
    measured = {key for key in found if "comparison." not in key}  # a run compares with its accepted model
    assert {key: ours[key] for key in measured} == {key: found[key] for key in measured}
    assert kept[1]["claims"] == alone.claims


def test_all_runs_differ(rows):
    assert len(set(rows.parameters_sha256)) == len(rows) == 8


def test_cells_of_a_seed_share_records_and_start():
    runs = prepare_runs([cell.config for cell in compared().cells()])
    seeds = [cell.seed for cell in compared().cells()]
    for one, seed in zip(runs, seeds, strict=True):
        first = runs[seeds.index(seed)]
        assert np.array_equal(one.parts.initial, first.parts.initial)
        assert one.parts.records is first.parts.records
    assert not np.array_equal(runs[0].parts.initial, runs[1].parts.initial)


def test_clipped_without_noise_is_neither_private_nor_free(rows):
    clipped = rows[rows.budget == "clipped"]
    assert (clipped.noise_record == 0.0).all()
    assert (clipped.noise_client == 0.0).all()
    assert clipped.epsilon_record.isna().all()
    assert clipped.epsilon_client.isna().all()


def test_clipping_is_not_lost_with_the_noise():
    # Clips so small that nothing moves: without them the model would.
    small = {"privacy__record__clip": 1e-6, "privacy__client__clip": 1e-6}
    comparison = compared(base=make_config(config(**SEEDED, **small)), epsilons=(CLIPPED, math.inf), seeds=1)
    moved = []
    for cell, (_, kept) in zip(
        comparison.cells(), comparison_cells([c.config for c in comparison.cells()]), strict=True
    ):
        (prepared,) = prepare_runs([cell.config])
        moved.append(kept["parameters_sha256"] != _fingerprint(prepared.parts.initial))
        if cell.epsilon == CLIPPED:
            assert "clipped, and added no noise" in kept["claims"][0]["statement"]
            assert kept["releases"] == {"record": None, "client": None}
    assert moved[1]


def _fingerprint(parameters):
    from fedsafe.params import fingerprint

    return fingerprint(parameters)


def test_another_budget_or_seed_adds_only_its_cells(whole, monkeypatch):
    folder = whole[0]
    asked = []

    def counted(configs):
        asked.extend((one.seed, one.privacy.record.epsilon) for one in configs)
        yield from comparison_cells(configs)

    counted.__name__ = comparison_cells.__name__
    monkeypatch.setattr(compare, "comparison_cells", counted)
    again = compare.run_comparison(compared(), folder)
    assert asked == []
    assert again["time"]["fresh"] == 0
    assert again["time"]["kept"] == 8
    compare.run_comparison(compared(epsilons=(*EPSILONS, 0.2)), folder)
    assert sorted(asked) == [(0, 0.2), (1, 0.2)]
    asked.clear()
    compare.run_comparison(compared(epsilons=(0.1,), seeds=3), folder)
    assert asked == [(2, 0.1)]


def test_what_publishing_costs_is_more_than_any_run(whole):
    body = whole[1]
    for line in body["publishing"]:
        assert (line["private"], line["runs"]) == (4, 8)
        bounds = [s["bound"] for s in body["statements"] if s["unit"] == line["unit"] and s["bound"]]
        assert max(bounds) < line["epsilon"] < 2 * sum(bounds)
        assert line["best"] > max(bounds)


def test_tables_are_tidy(whole, rows):
    _, body, _, findings = whole
    assert list(rows.budget.unique()) == ["0.1", "0.3", "clipped", "inf"] == body["settings"]["epsilons"]
    assert set(findings.columns) >= {
        "budget",
        "seed",
        "metric",
        "where",
        "status",
        "value",
        "low",
        "high",
        "n",
    }
    assert (findings.groupby(["budget", "seed"]).size() > 3).all()


# Pairing.


def streams(comparison, monkeypatch):
    """For each run: the clients of each round, and where their batches and noise come from."""
    seen = []
    whole = training.StackedTrainer.train

    def spied(self, parameters, jobs):
        seen.append(
            [
                (job.client, job.batches._subkey, job.noise._subkey, job.training and job.training.noise)
                for job in jobs
            ]
        )
        return whole(self, parameters, jobs)

    monkeypatch.setattr(training.StackedTrainer, "train", spied)
    runs = prepare_runs([cell.config for cell in comparison.cells()])
    found = []
    for one in runs:
        seen.clear()
        list(stacked_runs([one]))
        found.append([job for jobs in seen[1:] for job in jobs])  # the first warms up
    return found


def test_paired_runs_share_cohorts_batches_and_noise_at_the_scale_of_each(monkeypatch):
    one, other = streams(compared(epsilons=(0.1, 0.3), seeds=1, paired=True), monkeypatch)
    assert [job[:3] for job in one] == [job[:3] for job in other]
    assert one[0][3] > other[0][3] > 0.0
    one, other = streams(compared(epsilons=(0.1, 0.3), seeds=1), monkeypatch)
    assert not {job[1] for job in one} & {job[1] for job in other}
    assert not {job[2] for job in one} & {job[2] for job in other}


def test_a_configuration_that_is_paired_makes_a_paired_comparison():
    paired = make_config(config(**SEEDED, **JUDGED, privacy__paired=True))
    comparison = compared(base=paired)
    assert comparison.paired
    assert [cell.config for cell in comparison.cells()] == [
        cell.config for cell in compared(paired=True).cells()
    ]


def test_pairing_claims_nothing(tmp_path):
    body = compare.run_comparison(compared(epsilons=(0.1, 0.3), seeds=1, paired=True), tmp_path)
    assert all("their difference gives the updates away" in claim["not_covered"][0] for claim in body["axis"])
    assert all(
        line["epsilon"] is None and "give the updates away" in line["reason"] for line in body["publishing"]
    )
    assert all("simulated: no guarantee" in claim["randomness"] for claim in body["axis"])
    assert all(line["statement"].startswith("Simulated: no guarantee") for line in body["statements"])


def test_secret_noise_is_never_paired():
    with pytest.raises(ConfigError, match="--reproducible"):
        compared(base=make_config(config()), paired=True)
    with pytest.raises(ConfigError, match="add --reproducible"):
        make_config(config(privacy__paired=True))
    (paired,) = prepare_runs([make_config(config(**SEEDED, privacy__paired=True))])
    forged = dataclasses.replace(paired, key=bytes(32))
    with pytest.raises(ConfigError, match="give their updates away"):
        next(stacked_runs([forged]))


def test_nodes_are_never_paired():
    with pytest.raises(ConfigError, match=r"privacy\.paired"):
        compose(make_config(config(**SEEDED, privacy__paired=True, engine={"name": "flower"})))


# Requests.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epsilons": (0.0,)}, "--epsilon 0: a budget is above 0"),
        ({"epsilons": (-1.0,)}, "above 0"),
        ({"epsilons": (1.0, 1.0)}, "names 1 twice"),
        ({"epsilons": ()}, "empty"),
        ({"seeds": 0}, "--seeds 0"),
        ({"grid": {"unit": ["record", "mixed"]}}, "'mixed' is no unit of privacy: use record, client, both"),
        ({"grid": {"unit": ["record"]}, "unit": "client"}, "say the same thing"),
        ({"grid": {"privacy.paired": ["true"]}}, "use --paired"),
        ({"grid": {"audit.every": ["1"]}}, "audited alike"),
        ({"unit": "mixed"}, "'mixed' is no unit of privacy: use record, client, both"),
        ({"grid": {"seed": ["1", "2"]}}, "use --seeds"),
        ({"grid": {"privacy.record.epsilon": ["1"]}}, "use --epsilon"),
        ({"grid": {"task": ["adult"]}}, "one task"),
        ({"grid": {"rounds": ["1", "1"]}}, "twice"),
        ({"grid": {"client.optimizer.lr": ["1", "1.0"]}}, "names one number twice, as 1 and 1.0"),
        ({"grid": {"rounds": []}}, "no values"),
        ({"grid": {"rouns": ["1"]}}, "did you mean 'rounds'"),
        ({"grid": {"rounds": ["many"]}}, "rounds = 'many'"),
        ({"grid": {"rounds.more": ["1"]}}, "--grid 'rounds.more=1'"),
        ({"grid": {"server.aggregator": ["local_gaussian"]}}, "clipped takes the noise out of a noisy mean"),
    ],
)
def test_a_wrong_request_is_one_line(changes, said):
    with pytest.raises(FedSafeError) as refused:
        list(compared(**changes).cells())
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_budget_is_refused():
    assert read_budget("clipped") == CLIPPED
    assert math.isinf(read_budget("inf"))
    for text in ("much", "nan", ""):
        with pytest.raises(ConfigError, match="is not a number"):
            read_budget(text)


def test_a_grid_is_a_series_for_each_value():
    comparison = compared(grid={"client.optimizer.lr": ["0.1", "0.3"], "rounds": ["2", "3"]})
    cells = list(comparison.cells())
    assert len(cells) == 2 * 2 * 4 * 2
    assert {(cell.config.client.optimizer.lr, cell.config.rounds) for cell in cells} == {
        (0.1, 2),
        (0.1, 3),
        (0.3, 2),
        (0.3, 3),
    }
    assert cells[0].series == {"client.optimizer.lr": "0.1", "rounds": "2"}


@pytest.mark.parametrize(
    ("unit", "off", "levels"),
    [
        (None, (), ("record", "client")),
        (None, ("client",), ("record",)),
        (None, ("record",), ("client",)),
        (None, ("record", "client"), ("record",)),
        ("client", (), ("client",)),
        ("both", ("client",), ("record", "client")),
    ],
)
def test_which_levels_the_budgets_are_for(unit, off, levels):
    changes = {f"privacy__{level}__epsilon": math.inf for level in off}
    comparison = compared(base=make_config(config(**changes)), unit=unit)
    assert comparison.levels == levels
    cell = next(comparison.cells())
    for level in ("record", "client"):
        expected = 0.1 if level in levels else math.inf if level in off else 0.1
        assert getattr(cell.config.privacy, level).epsilon == expected
