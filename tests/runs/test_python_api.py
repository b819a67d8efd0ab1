"""A run from Python: objects in, data frames out, nothing changed that was not asked for."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_federation import CLIENTS, config, task
from torch import nn

import fedsafe as fedsafe_package
from fedsafe.errors import ConfigError, FedSafeError
from fedsafe.records import End, Round, Start
from fedsafe.runs.resume import resume
from fedsafe.runs.run import run
from fedsafe.store import RunFolder


class Diary:
    """Writes down what it is told."""

    def __init__(self):
        self.entries = []

    def on_start(self, path, start, first_round):
        assert (path / "record.jsonl").read_text().count("\n") == 1
        assert isinstance(start, Start)
        self.entries.append(("start", first_round))

    def on_round(self, line):
        assert isinstance(line, Round)
        self.entries.append(("round", line.round))

    def on_assessment(self, assessment):
        self.entries.append(("assessment", assessment.round))

    def on_end(self, end):
        assert isinstance(end, End)
        self.entries.append(("end", end.rounds))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    diary = Diary()
    return run(config(), out=tmp_path_factory.mktemp("run") / "out", callbacks=[diary]), diary


def test_callbacks_hear_everything_in_order(finished):
    assert finished[1].entries == [
        ("start", 1), ("round", 1), ("round", 2), ("assessment", 2), ("round", 3), ("assessment", 3), ("end", 3),
    ]  # fmt: skip


def test_rounds_and_findings_are_data_frames(finished):
    result = finished[0]
    rounds = result.rounds()
    assert list(rounds.columns) == ["round", "accuracy", "loss", "epsilon_record", "epsilon_client"]
    assert rounds["round"].tolist() == [1, 2, 3]
    assert rounds["epsilon_record"].is_monotonic_increasing
    assert rounds["epsilon_record"].iloc[-1] == result.claims[0]["epsilon"]
    assert rounds["epsilon_client"].iloc[-1] == result.claims[1]["epsilon"]
    findings = result.findings()
    assert {"round", "assessor", "metric", "status", "value", "interval", "n"} <= set(findings.columns)
    assert sorted(findings["round"].unique()) == [2, 3]
    assert set(findings["assessor"]) == {"performance", "comparison"}
    last = findings[(findings["metric"] == "performance.accuracy") & (findings["round"] == 3)]
    assert last["value"].item() == result.accuracy == result.end.accuracy
    assert result.requirements().empty


def test_a_planned_run_does_all_its_rounds_and_spends_no_more_than_planned(tmp_path, fedsafe):
    """Cohorts are large and the cap small: clients sit out, and no round is refused."""
    values = config(rounds=6, federation__cohort__rate=0.9, privacy__record__max_participations=2)
    result = run(values, out=tmp_path / "out")
    assert result.end.status == "completed"
    assert len(result.rounds()) == 6
    shown = fedsafe("ledger", "show", "out").out
    assert "participations: at most 2 of 2 planned" in shown
    for unit in ("record", "client"):
        line = next(line for line in shown.splitlines() if line.startswith(unit))
        planned, realised = (float(line.split(word)[1].split(",")[0]) for word in ("epsilon ", "realised "))
        assert 0 < realised <= planned <= 0.1


def test_a_module_and_a_task_of_ones_own_are_trained_from_their_weights(tmp_path):
    given = task(records=100)
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(given.features, 3), nn.Tanh(), nn.Linear(3, 1))
    before = copy.deepcopy(model.state_dict())
    values = config(
        rounds=1,
        privacy={"record": {"epsilon": math.inf}, "client": {"epsilon": math.inf}},
        client__optimizer__lr=1e-12,
    )
    result = run(values, model=model, data=given, out=tmp_path / "out")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    tensors, _ = RunFolder.open(result.path).read_checkpoint(1)
    expected = torch.cat([value.flatten() for value in before.values()]).numpy()
    np.testing.assert_allclose(tensors["parameters"], expected, atol=1e-7)
    assert result.start.task["train_records"] == 100
    assert result.start.federation["clients"] == CLIENTS


def test_a_run_on_objects_is_resumed_with_the_same_objects_only(tmp_path):
    given = task(records=100)

    class Stop(Diary):
        def on_round(self, line):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config(), data=given, out=tmp_path / "out", callbacks=[Stop()])
    with pytest.raises(FedSafeError) as caught:
        resume(tmp_path / "out")
    assert "\n" not in str(caught.value)
    result = resume(tmp_path / "out", data=given)
    assert result.rounds()["round"].tolist() == [1, 2, 3]


def test_a_whole_run_gives_the_same_on_ray_as_inline_and_leaves_a_ray_that_was_there(tmp_path, ray_of_two):
    import ray

    results = []
    for number, engine in enumerate(({"name": "inline"}, {"name": "ray", "workers": 2, "chunk": 2})):
        values = config(privacy__noise_key="seed", engine=engine)
        results.append(run(values, out=tmp_path / str(number)))
    assert ray.is_initialized()
    findings = [result.findings().to_json() for result in results]
    assert findings[0] == findings[1]
    assert results[0].rounds().equals(results[1].rounds())


def test_asking_for_more_workers_than_ray_has_is_refused_before_a_folder_is_made(tmp_path, ray_of_two):
    with pytest.raises(FedSafeError, match=r"engine\.workers = 9"):
        run(config(engine={"name": "ray", "workers": 9}), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_public_names_run_resume_and_open_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = fedsafe_package.run(config(rounds=1))
    assert result.path.parent == Path("runs")
    assert (result.path / "report.html").is_file()
    assert fedsafe_package.resume(result.path).claims == result.claims
    assert fedsafe_package.open_run(result.path).accuracy == result.accuracy


def test_a_wrong_configuration_leaves_no_folder(tmp_path):
    with pytest.raises(ConfigError):
        run({"round": 3}, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_evaluation_on_validation_records_keeps_them_out_of_training(tmp_path):
    values = config(data={"evaluation": "validation", "validation_fraction": 0.25})
    start = run(values, out=tmp_path / "out").start
    assert start.task["train_records"] == 180
    assert start.task["evaluation_records"] == 60
    assert "private" in start.task["evaluation"]


@pytest.mark.parametrize("about", [["low", 0], {"data": 3, "low": 0, "high": 1}])
def test_what_is_said_about_data_is_a_mapping_without_the_data(about, tmp_path):
    with pytest.raises(ConfigError, match="`about` is"):
        fedsafe_package.run(
            config(), data=(np.zeros((4, 2)), np.arange(4) % 2), about=about, out=tmp_path / "out"
        )


def test_other_public_bounds_are_other_data_to_a_resumed_run(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.random((240, 3)), rng.integers(0, 2, 240)
    values, out = config(assess__assessors=["performance"]), tmp_path / "run"
    fedsafe_package.run(values, data=data, about={"low": 0, "high": 1}, out=out)
    lines = (out / "record.jsonl").read_text().splitlines(keepends=True)
    (out / "record.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(FedSafeError, match="data"):
        fedsafe_package.resume(out, data=data, about={"low": -1, "high": 1})
    assert fedsafe_package.resume(out, data=data, about={"low": 0, "high": 1}).end is not None


@pytest.mark.parametrize("callbacks", [[object()], Diary(), [Diary]])
def test_what_is_no_callback_is_refused_before_a_folder_exists(callbacks, tmp_path):
    with pytest.raises(ConfigError, match="callback"):
        run(config(), out=tmp_path / "run", callbacks=callbacks)
    assert not (tmp_path / "run").exists()


# Comparing.


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return rng.random((240, 3)), rng.integers(0, 2, 240)


@pytest.fixture(scope="module")
def compared(arrays, tmp_path_factory):
    """A module and data of one's own, kept in a folder."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
    before = copy.deepcopy(model.state_dict())
    options = {
        "epsilons": [0.1, "clipped", math.inf],
        "seeds": 2,
        "grid": {"client.optimizer.lr": [0.1, 0.5]},
        "model": model,
        "data": arrays,
        "about": {"low": 0, "high": 1},
        "out": tmp_path_factory.mktemp("compared") / "out",
    }
    values = config(assess__assessors=["performance"], privacy__noise_key="seed")
    result = fedsafe_package.compare(values, **options)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    return result, values, options


def test_a_comparison_is_data_frames(compared):
    result = compared[0]
    cells = result.cells()
    assert len(cells) == 2 * 3 * 2
    assert cells["parameters_sha256"].nunique() == 12
    assert {"budget", "client.optimizer.lr", "seed", "epsilon_record", "accuracy", "configuration"} <= set(
        cells
    )
    assert (result.findings().groupby(["budget", "client.optimizer.lr", "seed"]).size() > 1).all()
    summary = result.summary()
    accuracy = summary[(summary["measure"] == "accuracy") & (summary["budget"] == "0.1")]
    assert accuracy["client.optimizer.lr"].tolist() == ["0.1", "0.5"]
    here = cells[(cells["budget"] == "0.1") & (cells["client.optimizer.lr"] == "0.1")]
    assert accuracy["value"].iloc[0] == pytest.approx(here["accuracy"].mean())
    assert (accuracy["low"] <= accuracy["value"]).all()
    assert {"lost", "lost_low", "lost_high"} <= set(summary)
    assert set(result.statements()["unit"]) == {"record", "client"}
    assert {claim["unit"] for claim in result.claims} == {"record", "client"}
    assert "no guarantee" in result.claims[0]["randomness"]
    assert [line["private"] for line in result.publishing] == [4, 4]
    assert len(repr(result)) < 100


def test_what_is_saved_is_what_the_command_writes_and_is_gone_on_with(compared, tmp_path):
    result, values, options = compared
    page = result.save(tmp_path / "copy")
    assert page.read_text().startswith("<!DOCTYPE html>")
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    tables = {f"{table}.{end}" for table in ("runs", "findings") for end in ("csv", "parquet")}
    assert names == {*tables, "cells", "configurations", "comparison.html", "comparison.json", "private"}
    assert ((tmp_path / "copy" / "private").stat().st_mode & 0o077) == 0
    for folder in (tmp_path / "copy", options["out"]):
        again = fedsafe_package.compare(values, **{**options, "out": folder})
        assert again.body["time"]["kept"] == 12
        assert again.body["time"]["fresh"] == 0


def test_a_cell_on_objects_is_the_run_on_these_objects(compared, tmp_path):
    result, _, options = compared
    row = result.cells().iloc[1]
    alone = fedsafe_package.run(
        options["out"] / "configurations" / row["configuration"],
        out=tmp_path / "run",
        **{name: options[name] for name in ("model", "data", "about")},
    )
    lines = RunFolder.open(alone.path).record()
    assert [line for line in lines if isinstance(line, Round)][-1].parameters_sha256 == row[
        "parameters_sha256"
    ]


def test_other_records_or_weights_are_other_cells(compared, arrays, tmp_path):
    _, values, options = compared
    small = {**options, "epsilons": [math.inf], "seeds": 1, "grid": None}
    kept = fedsafe_package.compare(values, **small)
    assert fedsafe_package.compare(values, **small).body["time"]["fresh"] == 0
    x = arrays[0].copy()
    x[0, 0] = 0.5
    assert fedsafe_package.compare(values, **{**small, "data": (x, arrays[1])}).body["time"]["fresh"] == 1
    other = copy.deepcopy(options["model"])
    other[0].weight.data[0, 0] += 1.0
    found = fedsafe_package.compare(values, **{**small, "model": other})
    assert found.body["time"]["fresh"] == 1
    assert found.cells()["parameters_sha256"][0] != kept.cells()["parameters_sha256"][0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epsilons": [0]}, "a budget is above 0"),
        ({"epsilons": ["much"]}, "is not a number"),
        ({"unit": "mixed"}, "is no unit of privacy"),
        ({"grid": {"rouns": [1]}}, "did you mean 'rounds'"),
        ({"grid": {"model": ["mlp"]}}, "the grid names model"),
        ({"paired": True}, "add --reproducible"),
        ({"workers": 0}, "workers = 0"),
        ({"about": {"low": 0}}, "of data that is not given"),
    ],
)
def test_a_wrong_comparison_is_one_line_and_leaves_nothing(wrong, said, tmp_path):
    model = nn.Linear(5, 1) if "grid" in wrong else None
    with pytest.raises(FedSafeError, match=said) as refused:
        fedsafe_package.compare(
            config(), **{"epsilons": [0.1], "model": model, "out": tmp_path / "out", **wrong}
        )
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
