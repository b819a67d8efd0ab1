"""Settings of clients and engine that would do nothing, or change what they may not, are refused in one line."""

import json
import tomllib

import pytest
import torch
from torch import nn

import fedsafe
from fedsafe.errors import ConfigError, ModelError
from fedsafe.runs.config import make_config
from fedsafe.runs.resume import resume

SMALL = {
    "rounds": 2,
    "federation": {"clients": 8, "cohort": {"rate": 1.0}},
    "assess": {"assessors": ["performance"]},
    "engine": {"name": "inline"},
}


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"schedule": "exponential"}, "never reaches final = 0: set final"),
        ({"nesterov": True}, "needs a momentum"),
        ({"name": "adam", "momentum": 0.5}, "momentum belongs to sgd"),
        ({"schedule": {"name": "cosine", "warmup": 1.0}}, "less than 1"),
    ],
)
def test_an_optimiser_that_would_not_do_what_it_says_is_refused(optimizer, message):
    with pytest.raises(ConfigError, match=message):
        make_config({**SMALL, "client": {"optimizer": optimizer}})


@pytest.mark.parametrize(
    "client",
    [
        {"proximal": 0.1},
        {"optimizer": {"momentum": 0.5}},
        {"optimizer": {"schedule": "cosine"}},
        {"optimizer": {"name": "adam"}},
    ],
)
def test_control_variates_want_plain_steps(client):
    config = {**SMALL, "client": client, "server": {"aggregator": "scaffold"}}
    config["privacy"] = {"client": {"epsilon": float("inf")}}
    with pytest.raises(ConfigError, match="plain steps of one size"):
        fedsafe.run(config)


@pytest.mark.parametrize("schedule", [None, "constant"])
def test_a_constant_schedule_is_plain(schedule):
    optimizer = {} if schedule is None else {"schedule": schedule}
    assert make_config({**SMALL, "client": {"optimizer": optimizer}}).client.plain_rate == 1.0


class Last(nn.Module):
    """Shows its layer the examples along the last dimension, which does not stack."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv1d(78, 1, 1)

    def forward(self, x):
        return self.mix(x.t().unsqueeze(0))[0].t()


class Rooted(nn.Module):
    """An operation that has no form in half precision."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(78, 1)

    def forward(self, x):
        return torch.fft.fft(self.head(x)).real


def test_half_precision_where_it_cannot_be_is_refused_before_a_folder_exists(tmp_path):
    config = {**SMALL, "client": {"precision": "bfloat16"}}
    with pytest.raises(ConfigError, match="is for models that stack, and this one trains by vmap"):
        fedsafe.run(config, model=Last(), out=tmp_path / "one")
    with pytest.raises(ModelError, match="cannot train in bfloat16"):
        fedsafe.run(config, model=Rooted(), out=tmp_path / "two")
    assert not list(tmp_path.iterdir())


def test_the_device_is_settled_at_the_start_and_stays(tmp_path):
    out = tmp_path / "run"
    fedsafe.run({**SMALL, "client": {"optimizer": {"momentum": 0.5, "schedule": "cosine"}}}, out=out)
    assert tomllib.loads((out / "config.toml").read_text())["engine"]["device"] == "cpu"
    lines = (out / "record.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["kind"] == "end"
    (out / "record.jsonl").write_text("".join(line + "\n" for line in lines[:-2]))
    with pytest.raises(ConfigError, match=r"began on engine.device = 'cpu'"):
        resume(out, engine={"device": "cuda"})
    resume(out, engine={"device": "cpu", "stack": 2})
    again = [json.loads(line) for line in (out / "record.jsonl").read_text().splitlines()]
    last = [line["parameters_sha256"] for line in again if line["kind"] == "round"]
    assert last == [
        json.loads(line)["parameters_sha256"] for line in lines if json.loads(line)["kind"] == "round"
    ]
