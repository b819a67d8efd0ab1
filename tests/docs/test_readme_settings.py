"""The settings and tables of the README are those of the code."""

import ast
import re
import tomllib

import pytest
from readme import CODE, PROJECT, README, ROOT, rows, section, settings

from fedsafe.aggregation import RULES, check_aggregator
from fedsafe.assess import ASSESSORS, READS_CLIENTS, find_assessor
from fedsafe.assess.requirements import parse_requirements
from fedsafe.client.objectives import OBJECTIVES, build_objective
from fedsafe.client.stacked.layers import RULES as LAYERS
from fedsafe.data import load_task
from fedsafe.data.partition import partition
from fedsafe.data.tasks import SHIPPED
from fedsafe.models.zoo import ZOO
from fedsafe.runs import make_config, read_config
from fedsafe.runs.sinks import SINKS

KINDS = ("binary", "multiclass", "regression", "next_token")
# Names that settings give only as examples.
PARTITIONS = {"natural": {"holders": {"writer": ["a", "b", "b", "a"] * 20}, "clients": None}}


@pytest.mark.parametrize("setting", settings())
def test_every_setting_is_one(setting):
    values = tomllib.loads(setting)
    if set(values) == {"noised"}:
        values = {"federation": {"evaluation": values}}
    config = make_config(values)
    if "aggregator" in values.get("server", {}):
        spec = config.server.aggregator
        name = spec if isinstance(spec, str) else spec["name"]
        check_aggregator(spec, client_private=RULES[name].proven_sensitivity, record_private=False)
    spec = values.get("federation", {}).get("partition")
    if spec is not None:
        known = {"clients": 4, **PARTITIONS.get(spec["name"], {})}
        assert partition([0, 1, 2, 3] * 20, spec=spec, seed=0, **known)
    parse_requirements(config.assess.require)


def test_there_are_settings_to_check():
    assert len(settings()) > 25


def test_the_rules_without_a_proof_are_marked():
    marked = {}
    for strategy, told, *_ in [*rows("Strategies"), *rows("Privacy")]:
        for setting in re.findall(r"`(server\.aggregator = [^`]+)`", told):
            spec = tomllib.loads(setting)["server"]["aggregator"]
            marked[spec if isinstance(spec, str) else spec["name"]] = strategy.endswith("*")
    assert marked == {name: not rule.proven_sensitivity for name, rule in RULES.items()}


def test_the_table_of_kinds_is_that_of_the_code():
    table = {row[0].strip("`"): row for row in rows("Tasks and data")}
    assert set(table) == set(KINDS)
    for kind, (_, _, loss, recorded) in table.items():
        assert build_objective(None, kind) is OBJECTIVES[re.findall(r"`(\w+)`", loss)[0]]
        assert ("r2" in recorded) == (kind == "regression")
    assert set(SHIPPED) <= set(CODE)


def test_the_table_of_assessors_is_that_of_the_code():
    contract = ast.parse(
        (ROOT / "tests" / "assess" / "test_assessor_contract.py").read_text(encoding="utf-8")
    )
    (not_for,) = [
        ast.literal_eval(line.value)
        for line in contract.body
        if isinstance(line, ast.Assign) and line.targets[0].id == "NOT_FOR"
    ]
    table = {row[0].split("`")[1]: row for row in rows("Assessors")}
    assert set(table) == set(ASSESSORS)
    for name, (cell, _, kinds) in table.items():
        # The assessors of preferences are for no task but one of pairs.
        told = set(KINDS) if kinds == "all" else set(kinds.split(", ")) - {"pairs"}
        assert told == set(KINDS) - not_for.get(name, set()), name
        assert cell.endswith("†") == (name in READS_CLIENTS)
        assert find_assessor(name).name == name


def test_models_layers_sinks_and_kinds_of_extension_are_those_of_the_code():
    models = section("Models")
    assert set(ZOO) <= set(re.findall(r"`(\w+)`", models))
    assert all(layer.__name__ in models for layer in LAYERS)
    extend = section("Make it yours")
    assert all(f'"{sink}"' in extend for sink in SINKS)
    used = {
        kind
        for path in (ROOT / "fedsafe").rglob("*.py")
        for kind in re.findall(r'(?:resolve|plugin_path)\(\s*"(\w+)"', path.read_text(encoding="utf-8"))
    }
    assert len(used) == 16
    for kind in used:
        assert kind in extend.lower(), kind


def test_what_the_prose_says_of_the_embedded_data_and_its_federation():
    task, config = load_task("adult"), read_config(None)
    assert task.features == 78
    assert f"{100 * (1.0 - task.evaluation.y.mean()):.1f} %" in README
    parts = partition(task.train.y, config.federation.clients, config.federation.partition, config.seed)
    sizes = [*map(len, parts)]
    assert f"{len(sizes)} clients of {min(sizes)} to {max(sizes)} records" in README


def test_the_extra_is_the_one_that_is_named():
    assert "`flower-datasets`" in README
    assert "flower-datasets" in PROJECT["project"]["optional-dependencies"]


def test_every_task_that_ships_has_an_experiment():
    for name in SHIPPED:
        config = read_config(ROOT / "experiments" / f"{name}.toml")
        assert (config.task if isinstance(config.task, str) else config.task["name"]) == name
