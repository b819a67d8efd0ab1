"""A deployed task: each party builds it from one public text, and comes to the same plan without others' records."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsafe.data import load_task
from fedsafe.data.dataset import Examples
from fedsafe.data.deployed import own_task
from fedsafe.errors import ConfigError, DataError
from fedsafe.runs import run
from fedsafe.runs.compose import calibrate, compose
from fedsafe.runs.config import make_config

SCHEMA = """
format = "fedsafe.schema/1"
holders = ["hospital"]
[label]
column = "ill"
classes = ["no", "yes"]
[columns.age]
kind = "numeric"
low = 0
high = 100
[columns.sex]
kind = "categorical"
categories = ["f", "m"]
"""


@pytest.fixture
def spec(tmp_path: Path):
    path = tmp_path / "schema.toml"
    path.write_text(SCHEMA)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    clients = {"south": 30, "north": 20}
    return {"name": "deployed", "schema": str(path), "schema_sha256": digest, "clients": clients}


def records(n: int, width: int = 4) -> Examples:
    rng = np.random.default_rng(n)
    return Examples(x=rng.random((n, width), np.float32), y=rng.integers(0, 2, n))


def config_of(spec):
    return make_config(
        {
            "task": spec,
            "model": "logistic",
            "rounds": 2,
            "federation": {"partition": {"name": "natural"}, "cohort": {"name": "poisson", "rate": 1.0}},
            "client": {"steps": 1, "rate": 0.5},
            "server": {"aggregator": "fedavg"},
            "privacy": {"record": {"epsilon": 3.0}, "client": {"epsilon": float("inf")}},
            "engine": {"name": "inline"},
        }
    )


def at(client: str, spec, n: int):
    return own_task(
        spec, client=client, schema=Path(spec["schema"]), own=records(n), validation=records(n + 1)
    )


def test_server_and_clients_come_to_one_plan_from_one_text(spec):
    config = config_of(spec)
    hashes = {calibrate(compose(config)).hash}
    hashes |= {calibrate(compose(config, data=at("north", spec, 20))).hash}
    hashes |= {calibrate(compose(config, data=at("south", spec, 30))).hash}
    assert len(hashes) == 1


def test_a_client_has_its_own_records_at_its_place_and_nobody_elses(spec):
    parts = compose(config_of(spec), data=at("south", spec, 30))
    assert parts.federated.names == ("north", "south")
    own, others = (parts.task.train.take(parts.records[client]) for client in (1, 0))
    assert np.array_equal(own.x, records(30).x)
    assert np.array_equal(own.y, records(30).y)
    assert not others.x.any()
    assert not parts.task.evaluation_public


def test_a_server_without_public_records_runs_and_measures_nothing(spec, tmp_path):
    finished = run(config_of(spec), out=tmp_path / "run")
    assert finished.metrics == {}
    assert len(finished.findings()) == 0
    assert len(finished.rounds()) == 2
    assert finished.accuracy is None


def test_public_records_at_the_server_are_judged_on(spec, tmp_path):
    path = tmp_path / "public.csv"
    path.write_text("age,sex,ill\n10,f,no\n80,m,yes\n")
    task = load_task({**spec, "evaluation": str(path)})
    assert (len(task.evaluation), task.evaluation_public) == (2, True)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"clients": {}}, ConfigError, "name each client"),
        ({"clients": {"south": 0}}, ConfigError, "task.clients.south"),
        ({"kind": "x"}, ConfigError, "unknown key 'kind'"),
        ({"schema": None}, ConfigError, "needs `schema`"),
        ({"schema_sha256": "00"}, DataError, "was agreed"),
    ],
)
def test_what_cannot_be_agreed_on_is_one_clear_line(spec, change, error, said):
    with pytest.raises(error, match=said):
        load_task({**spec, **change})


def test_a_client_refuses_another_number_of_records_another_schema_and_another_federation(spec, tmp_path):
    with pytest.raises(DataError, match="21 records to train on, and 20 were agreed"):
        at("north", spec, 21)
    with pytest.raises(ConfigError, match="does not name 'nort'"):
        at("nort", spec, 20)
    with pytest.raises(ConfigError, match="schema_sha256 is missing"):
        at("north", {**spec, "schema_sha256": None}, 20)
    other = tmp_path / "other.toml"
    other.write_text(SCHEMA.replace("100", "99"))
    with pytest.raises(DataError, match="was agreed"):
        own_task(spec, client="north", schema=other, own=records(20), validation=replace(records(20)))
