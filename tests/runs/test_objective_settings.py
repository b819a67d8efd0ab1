"""Objectives with settings, in a configuration and in whole runs."""

import json
import tomllib

import pytest

import fedsafe
from fedsafe.client.objectives import Perturbing
from fedsafe.data import load_task
from fedsafe.errors import ConfigError, ModelError
from fedsafe.runs.client_config import objective_of
from fedsafe.runs.config import make_config

SMALL = {
    "task": "digits",
    "model": {"name": "mlp", "hidden": [8]},
    "rounds": 2,
    "federation": {"clients": 4, "partition": {"name": "iid"}, "cohort": {"rate": 1.0}},
    "server": {"aggregator": "fedavg"},
    "privacy": {"client": {"epsilon": float("inf")}},
    "assess": {"assessors": ["performance"], "require": []},
    "engine": {"name": "inline"},
}


def with_objective(objective, **more):
    return SMALL | {"client": {"objective": objective, "steps": 2, "rate": 0.1}} | more


@pytest.mark.parametrize("objective", ["adversarial", {"name": "adversarial", "norm": "linf"}])
def test_every_setting_is_in_the_resolved_configuration(objective):
    found = make_config(with_objective(objective)).client.objective.model_dump(exclude_none=True)
    assert found == {"name": "adversarial", "radius": 0.1, "norm": "linf", "steps": 7, "weight": 1.0}


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        ({"name": "adversarial", "beta": 1.0}, "beta belongs to trades"),
        ({"name": "gaussian", "radius": 0.1}, "radius belongs to adversarial and trades and ibp"),
        ({"name": "trades", "radius": 0.0}, "radius"),
        ({"name": "ibp", "kappa": 1.5}, "kappa"),
        ({"name": "adversarial", "norm": "l1"}, "norm"),
        ({"radius": 0.1}, "name"),
    ],
)
def test_settings_that_do_nothing_or_mean_nothing_are_refused(objective, says):
    with pytest.raises(ConfigError, match=says) as caught:
        make_config(with_objective(objective))
    assert "\n" not in str(caught.value)


def test_bounds_come_from_the_schema_of_the_task():
    task = load_task("adult")
    config = make_config({"client": {"objective": {"name": "adversarial", "radius": 0.25}}})
    bounds = objective_of(config.client, task).ascent.bounds
    assert bounds.free.tolist() == task.schema.perturbable.tolist()
    assert bounds.low.tolist() == task.schema.low.tolist()


@pytest.mark.parametrize("name", ["adversarial", "trades", "gaussian", "ibp"])
def test_a_run_trains_on_perturbed_records_and_says_so(name, tmp_path):
    run = fedsafe.run(with_objective(name), out=tmp_path / "robust")
    plain = fedsafe.run(with_objective("cross_entropy"), out=tmp_path / "plain")
    resolved = tomllib.loads((tmp_path / "robust" / "config.toml").read_text())
    assert resolved["client"]["objective"]["name"] == name
    metrics, others = run.metrics, plain.metrics
    assert metrics["loss"] != others["loss"]
    # The same plan of noise, and another program: nobody can take the one's budget for the other's.
    lines = [
        json.loads((tmp_path / which / "record.jsonl").read_text().splitlines()[0])
        for which in ("robust", "plain")
    ]
    assert lines[0] != lines[1]


def test_a_model_without_bounds_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ModelError, match='"ibp" cannot train this model'):
        fedsafe.run(
            with_objective("ibp", task="digits", model={"name": "resnet", "width": 4, "blocks": 1}),
            out=tmp_path / "run",
        )


def test_tokens_are_refused_in_one_line(monkeypatch):
    config = make_config({"client": {"objective": "adversarial"}})

    class Tokens:
        kind, schema = "next_token", None

    from fedsafe.data.inputs import TokenSchema

    Tokens.schema = TokenSchema(tokens=("a", "b"), length=4)
    with pytest.raises(ConfigError, match="inputs are tokens"):
        objective_of(config.client, Tokens)


def test_a_fixed_part_is_attacked_through():
    """The perturbation is one of raw inputs: features are not computed beforehand."""
    import torch
    from torch import nn

    from fedsafe.client import build_objective, precompute
    from fedsafe.data.inputs import ArraySchema
    from fedsafe.models import FixedFeatures

    module = FixedFeatures(nn.Flatten(), nn.Linear(4, 1))
    x = torch.rand(3, 2, 2)
    robust = build_objective("adversarial", "binary", ArraySchema(shape=(2, 2), lowest=0.0, highest=1.0))
    assert isinstance(robust, Perturbing)
    assert precompute(module, x, robust) == (module, x)
    assert precompute(module, x)[1].shape == (3, 4)
