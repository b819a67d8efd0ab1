"""The ServerApp runs what ``fedsafe run`` runs, and refuses what cannot work on Flower's machines."""

import json
import tomllib
from pathlib import Path

import pytest
from flower_nodes import RUN_CONFIG, nodes, serve
from tiny_federation import config

import fedsafe
from fedsafe.apps.settings import read_settings
from fedsafe.errors import ConfigError, EngineError
from fedsafe.runs import Run, make_config, read_config

CLIENTS = 4


def settings(bundle: Path | None = None, **run_config):
    def found() -> Path:
        assert bundle is not None, "the bundle was looked for"
        return bundle

    return read_settings({**RUN_CONFIG, **{k.replace("_", "-"): v for k, v in run_config.items()}}, found)


@pytest.fixture
def experiment(tiny_toml) -> Path:
    return tiny_toml(federation__clients=CLIENTS, privacy__noise_key="seed")


def test_a_run_over_flowers_grid_is_the_run_of_the_command_line_bit_for_bit(experiment, tmp_path):
    """Same plan, cohorts, noise, models, findings and ledger, for a key that follows from the seed."""
    serve(nodes(2, 0, 3, 1), config=str(experiment), out=str(tmp_path / "flower"), overrides="seed=3")
    ours = fedsafe.run(read_config(experiment, ["seed=3"]), out=tmp_path / "ours")
    theirs = Run(tmp_path / "flower")
    assert theirs.start.plan == ours.start.plan
    rounds = [
        [json.loads(line) for line in (run.path / "record.jsonl").read_text().splitlines()[1:-1]]
        for run in (theirs, ours)
    ]
    for line in (*rounds[0], *rounds[1]):
        del line["ledger"]["head"]  # salted
    assert rounds[0] == rounds[1]
    assert len(rounds[0]) == 3
    assert (theirs.path / "findings.jsonl").read_text() == (ours.path / "findings.jsonl").read_text()


def test_a_run_over_flowers_grid_leaves_a_whole_run_folder_that_says_flower(experiment, tmp_path):
    serve(nodes(0, 1, 2, 3), config=str(experiment), out=str(tmp_path / "run"))
    folder = tmp_path / "run"
    assert tomllib.loads((folder / "config.toml").read_text())["engine"]["name"] == "flower"
    run = Run(folder)
    assert run.start.machine["engine"] == "flower"
    assert run.end is not None
    assert run.end.status == "completed"
    assert len(list((folder / "checkpoints").iterdir())) == 3
    assert (folder / "private" / "ledger.sqlite").is_file()
    assert "<html" in (folder / "report.html").read_text()
    assert {claim["unit"] for claim in run.claims} == {"record", "client"}


def test_without_privacy_the_keys_of_the_nodes_change_nothing(tiny_toml, tmp_path):
    inf = float("inf")
    path = tiny_toml(
        federation__clients=CLIENTS,
        federation__cohort__rate=1.0,
        client__rate=1.0,
        privacy__record__epsilon=inf,
        privacy__client__epsilon=inf,
    )
    prints = []
    for number in range(2):
        serve(nodes(0, 1, 2, 3), config=str(path), out=str(tmp_path / f"run{number}"))
        prints.append(last_model(tmp_path / f"run{number}"))
    fedsafe.run(read_config(path), out=tmp_path / "ours")
    assert prints == [last_model(tmp_path / "ours")] * 2


def last_model(folder: Path) -> str:
    return json.loads((folder / "record.jsonl").read_text().splitlines()[-2])["parameters_sha256"]


def test_with_privacy_two_runs_of_one_seed_have_noise_of_their_own(tiny_toml, tmp_path):
    path = tiny_toml(federation__clients=2, rounds=1)
    for number in range(2):
        serve(nodes(0, 1), config=str(path), out=str(tmp_path / f"run{number}"))
    assert last_model(tmp_path / "run0") != last_model(tmp_path / "run1")


def test_a_run_that_cannot_have_its_nodes_leaves_no_folder(experiment, tmp_path):
    with pytest.raises(EngineError, match="has 4 clients, and 2 nodes are connected"):
        serve(nodes(0, 1), config=str(experiment), out=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_no_configuration_is_the_default_experiment():
    assert settings().config.model_dump(exclude={"engine"}) == read_config(None).model_dump(
        exclude={"engine"}
    )
    assert settings().out is None


def test_a_relative_configuration_is_a_file_of_the_bundle(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.toml").write_text("rounds = 2")
    assert settings(tmp_path, config="experiments/mine.toml").config.rounds == 2
    with pytest.raises(
        ConfigError, match=r"yours\.toml' is not in the uploaded bundle.*experiments/mine\.toml"
    ):
        settings(tmp_path, config="experiments/yours.toml")


def test_an_absolute_configuration_is_a_file_of_this_machine(tmp_path):
    (tmp_path / "mine.toml").write_text("rounds = 2")
    assert settings(config=str(tmp_path / "mine.toml")).config.rounds == 2
    with pytest.raises(ConfigError, match="cannot be read"):
        settings(config=str(tmp_path / "none.toml"))


def test_overrides_are_words_as_in_a_shell():
    found = settings(overrides="rounds=3 'model={ name = \"mlp\", hidden = [8] }' seed=4").config
    assert (found.rounds, found.seed, found.model) == (3, 4, {"name": "mlp", "hidden": [8]})
    with pytest.raises(ConfigError, match="unknown configuration key 'round'"):
        settings(overrides="round=3")
    with pytest.raises(ConfigError, match=r"overrides = .*No closing quotation"):
        settings(overrides="model='mlp")


@pytest.mark.parametrize("value", [0.0, -1, "soon", float("nan")])
def test_waiting_takes_seconds_above_zero(value):
    with pytest.raises(ConfigError, match=r"wait-for-nodes = .*: give seconds above 0"):
        settings(wait_for_nodes=value)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ('task={path="my.csv",schema="/s.toml"}', "task.path"),
        ('task={path="/my.csv",schema="s.toml"}', "task.schema"),
        ("assess.require=rules.toml", "assess.require"),
    ],
)
def test_a_relative_path_inside_the_configuration_is_refused(override, key):
    with pytest.raises(ConfigError, match=rf"{key} = '\w+\.\w+' is a relative path"):
        settings(overrides=f"'{override}'")


def test_an_engine_of_ours_in_the_configuration_gives_way_to_flower():
    assert settings(overrides="engine.name=ray engine.workers=7").config.engine.name == "flower"


def test_the_engine_flower_without_flower_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'flower' is for runs that `flwr run"):
        fedsafe.run(make_config(config(engine__name="flower")), out=tmp_path / "run")


def test_an_interrupted_run_over_flower_is_not_resumed(experiment, tmp_path):
    """Its nodes are gone with their keys: the round that was under way would get a second noise."""
    serve(nodes(0, 1, 2, 3), config=str(experiment), out=str(tmp_path / "run"))
    record = tmp_path / "run" / "record.jsonl"
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(ConfigError, match="ran on Flower's own runtime"):
        fedsafe.resume(tmp_path / "run")
