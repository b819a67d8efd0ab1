"""Record lines: what is written is read back, versions are told apart, JSON stays JSON."""

import dataclasses
import json
import math

import numpy as np
import pytest

from fedsafe.errors import RecordError
from fedsafe.records import SCHEMA, End, Round, Start, dumps, from_json, to_plain

START = Start(
    run="fixture",
    created="2026-01-02T03:04:05+00:00",
    revision=None,
    versions={"fedsafe": "0.1.0"},
    machine={"cores": 2},
    seed=7,
    reproducible=False,
    task={"name": "adult", "classes": ["<=50K", ">50K"]},
    model={"name": "mlp", "parameters": 12},
    trainer="stacked",
    federation={
        "clients": 3,
        "partition": {"name": "iid"},
        "records_per_client": {"min": 1, "median": 2, "max": 3},
    },
    claims=({"unit": "record", "epsilon": 2.5}, {"unit": "client", "epsilon": None}),
    plan={"hash": "ab"},
    settings_sha256="cd",
)
ROUND = Round(
    round=1,
    metrics={"accuracy": 0.5, "loss": 0.7},
    spend={"record": 0.1, "client": None},
    ledger={"sequence": 4, "head": "ff"},
    checkpoint="checkpoints/round-00001.safetensors",
    parameters_sha256="00",
)
END = End(rounds=1, seconds=2.5, status="completed", reason=None, accuracy=0.5)


@pytest.mark.parametrize("line", [START, ROUND, END], ids=lambda line: line.kind)
def test_every_line_is_read_back_equal_through_json_text(line):
    written = line.to_json()
    assert list(written)[:2] == ["schema", "kind"]
    assert from_json(json.loads(dumps(written))) == line


@pytest.mark.parametrize("line", [START, ROUND, END], ids=lambda line: line.kind)
def test_lines_cannot_be_changed(line):
    with pytest.raises(dataclasses.FrozenInstanceError):
        line.kind_ = "x"


def test_an_infinite_epsilon_and_a_diverged_loss_are_written_as_null():
    line = dataclasses.replace(
        ROUND,
        metrics={"accuracy": np.float32(0.25), "loss": math.nan},
        spend={"record": math.inf, "client": 1.0},
    )
    text = dumps(line.to_json())
    assert "NaN" not in text
    assert "Infinity" not in text
    back = from_json(json.loads(text))
    assert back.metrics == {"accuracy": 0.25, "loss": None}
    assert back.spend == {"record": None, "client": 1.0}


def test_another_schema_major_is_refused_and_says_which_version_wrote_it():
    line = {**START.to_json(), "schema": "fedsafe.record/2", "versions": {"fedsafe": "9.8.7"}}
    with pytest.raises(RecordError, match=r"by fedsafe 9\.8\.7 with schema 'fedsafe\.record/2'"):
        from_json(line)


@pytest.mark.parametrize("schema", ["fedsafe.record/10", "other.record/1", "fedsafe.record", None, 1])
def test_a_foreign_schema_is_refused(schema):
    with pytest.raises(RecordError, match="schema"):
        from_json({**END.to_json(), "schema": schema})


def test_a_minor_version_with_a_new_key_is_read():
    assert from_json({**END.to_json(), "schema": SCHEMA + ".4", "carbon": 3}) == END


def test_a_missing_key_and_an_unknown_kind_are_named():
    line = ROUND.to_json()
    del line["spend"], line["ledger"]
    with pytest.raises(RecordError, match="round line of the record lacks spend, ledger"):
        from_json(line)
    with pytest.raises(RecordError, match="'pause'"):
        from_json({**END.to_json(), "kind": "pause"})
    with pytest.raises(RecordError, match="expected a record line of kind 'round', found 'end'"):
        Round.from_json(END.to_json())


def test_numpy_values_and_nested_collections_become_plain():
    value = {
        1: np.int64(3),
        "array": np.array([[1.0, math.inf], [-math.inf, 2.0]]),
        "scalar": np.bool_(True),
        "nested": ({"x": np.float64(0.5)}, frozenset({"b", "a"})),
    }
    assert to_plain(value) == {
        "1": 3,
        "array": [[1.0, None], [None, 2.0]],
        "scalar": True,
        "nested": [{"x": 0.5}, ["a", "b"]],
    }


def test_what_json_cannot_hold_is_refused_by_name():
    with pytest.raises(RecordError, match="object"):
        dumps({"x": object()})


def test_a_float_is_written_so_that_it_reads_back_to_the_last_bit():
    values = np.random.default_rng(3).standard_normal(200).tolist()
    assert json.loads(dumps({"v": values}))["v"] == values
