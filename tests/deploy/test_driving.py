"""What is said of a run from its folder: progress, refusals by reason, and figures for Prometheus."""

import json
import tomllib

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from fedsafe.cli.deploy import _line
from fedsafe.deploy import driving
from fedsafe.deploy.driving import Exchange, State, last_run, newest_run, resolved_experiment
from fedsafe.deploy.server_figures import RunFigures
from fedsafe.errors import ConfigError, RecordError


@pytest.fixture
def trial(make, tmp_path):
    return make(tmp_path / "trial")


def write(path, *lines, torn=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)


@pytest.fixture
def begun(trial):
    """A run of which two rounds are recorded, and a third line is being written."""
    out = trial.server / "runs" / "run-1"
    rounds = [
        {
            "kind": "round",
            "round": number,
            "metrics": {"accuracy": 0.7},
            "spend": {"record": number / 10, "client": None},
        }
        for number in (1, 2)
    ]
    write(out / "record.jsonl", {"kind": "start"}, *rounds, torn='{"kind": "rou')
    write(
        out / "private" / "replies.jsonl",
        {"round": 0, "kind": "join", "asked": 2, "replied": 2, "refused": {}},
        {"round": 1, "kind": "train", "asked": 2, "replied": 2, "refused": {}},
        {"round": 2, "kind": "train", "asked": 2, "replied": 1, "refused": {"budget_spent": 1}},
    )
    write(out / "private" / "timings.jsonl", {"round": 1, "seconds": 1.5}, {"round": 2, "seconds": 2.0})
    noted = {"number": 7, "out": str(out), "rounds": 2}
    (trial.server / "state" / "run.json").write_text(json.dumps(noted))
    return trial


def test_prometheus_is_told_rounds_replies_refusals_spend_and_times(begun):
    registry = CollectorRegistry()
    registry.register(RunFigures(begun))
    said = dict(
        line.rsplit(" ", 1)
        for line in generate_latest(registry).decode().splitlines()
        if not line.startswith("#")
    )
    assert said["fedsafe_server_rounds"] == "2.0"
    assert said["fedsafe_server_rounds_planned"] == "2.0"
    assert said['fedsafe_server_epsilon_planned{unit="record"}'] == "0.2"
    assert said["fedsafe_server_messages_total"] == "6.0"
    assert said["fedsafe_server_replies_total"] == "5.0"
    assert said['fedsafe_server_refusals_total{reason="budget_spent"}'] == "1.0"
    assert said["fedsafe_server_round_seconds_total"] == "3.5"


def test_before_the_first_run_there_is_nothing_to_say(trial):
    registry = CollectorRegistry()
    registry.register(RunFigures(trial))
    assert generate_latest(registry) == b""
    assert newest_run(trial) is None
    with pytest.raises(RecordError, match="no run was started"):
        last_run(trial)
    with pytest.raises(ConfigError, match="has no run to resume"):
        driving.start(trial, resume=True)


def test_the_state_of_a_run_has_its_newest_whole_round_and_refusals(begun, monkeypatch):
    class Client:
        def ListRuns(self, request):
            assert request.run_id == 7
            return type("Answer", (), {"run_dict": {}})()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(driving, "_control", lambda federation: Client())
    state = driving.state_of(begun, last_run(begun))
    assert state.rounds == 2
    assert state.exchange == Exchange(asked=2, replied=1, refused={"budget_spent": 1})
    assert "round 2/2, accuracy 0.7000, epsilon per record 0.2" in _line(state)
    assert "1 of 2 replied, 1 refused: budget_spent" in _line(state)


def test_a_finished_run_says_so():
    assert State(status="finished: completed", rounds=2, of=2).finished
    assert not State(status="running", rounds=2, of=2).finished


def test_the_experiment_that_is_handed_over_has_absolute_paths_and_is_otherwise_the_same(trial):
    written = tomllib.loads((trial.folder / "experiment.toml").read_text())
    resolved = resolved_experiment(trial)
    assert resolved["task"].pop("schema") == str((trial.folder / "schema.toml").resolve())
    assert written["task"].pop("schema") == "schema.toml"
    assert resolved == written


def test_without_the_operators_token_nothing_is_driven(trial):
    with pytest.raises(ConfigError, match=r"operator\.token cannot be read"):
        driving.start(trial)


def test_an_experiment_of_another_kind_is_not_handed_over(trial):
    (trial.folder / "experiment.toml").write_text('task = "adult"\n')
    with pytest.raises(ConfigError, match="is not 'deployed'"):
        driving.start(trial)
