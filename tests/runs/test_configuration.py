"""The configuration is strict, prints every default, and reads back what it wrote."""

import tomllib

import pytest

from fedsafe.errors import ConfigError
from fedsafe.runs.config import Config, default_source, make_config, parse_config, read_config


def leaves(values, path=()):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield ".".join((*path, key))


def test_what_is_written_has_every_default_and_reads_back_as_the_same():
    config = read_config(None)
    text = config.to_toml()
    assert parse_config(text) == config
    unset = {
        "privacy.record.max_participations",
        "privacy.record.noise",
        "privacy.client.noise",
        "federation.cohort.size",
        "client.batch_size",
        "assess.assessors",
        "assess.constitution",
        *(f"engine.{key}" for key in ("chunk", "stack", "address", "gpus")),
        "client.objective",
        "client.precision",
        "client.local",
        "client.local_steps",
        *(
            f"client.optimizer.{key}"
            for key in ("momentum", "nesterov", "weight_decay", "beta1", "beta2", "eps", "schedule")
        ),
        "federation.evaluation",
        "federation.availability",
        "audit",
        "byzantine",
        *(f"server.optimizer.{key}" for key in ("beta1", "beta2", "tau")),
    }
    known = set(leaves(config.model_dump()))
    assert unset | set(leaves(tomllib.loads(text))) >= known


def test_only_partitions_that_know_it_go_without_a_number_of_clients():
    natural = make_config({"federation": {"partition": {"name": "natural", "by": "site"}}})
    assert natural.federation.clients is None
    assert parse_config(natural.to_toml()).federation.clients is None
    flower = make_config({"federation": {"partition": {"name": "flwr:NaturalIdPartitioner"}}})
    assert flower.federation.clients is None
    assert make_config({"federation": {"partition": "iid"}}).federation.clients == 300
    assert make_config({"federation": {"clients": 7}}).federation.clients == 7


def test_the_default_experiment_is_private_at_both_levels_with_a_key_from_the_system():
    config = read_config(None)
    assert config == make_config(tomllib.loads(default_source()))
    assert config.privacy.noise_key == "os"
    assert config.privacy.record.epsilon <= 10
    assert config.privacy.client.epsilon <= 10
    assert Config().privacy.client.epsilon <= 10, "an empty file is private too"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("rounds=7", "rounds", 7),
        ("privacy.client.epsilon=inf", "privacy.client.epsilon", float("inf")),
        ("privacy.record.epsilon=3", "privacy.record.epsilon", 3.0),
        ("engine.name=inline", "engine.name", "inline"),
        ('engine.name="inline"', "engine.name", "inline"),
        ("model={name='mlp', hidden=[8]}", "model", {"name": "mlp", "hidden": [8]}),
        (" federation.clients = 12 ", "federation.clients", 12),
        ("assess.assessors=['privacy']", "assess.assessors", ["privacy"]),
    ],
)
def test_an_override_changes_its_value_and_nothing_else(override, path, value):
    changed, plain = read_config(None, [override]).model_dump(), read_config(None).model_dump()
    *sections, last = path.split(".")
    for section in sections:
        changed, plain = changed[section], plain[section]
    assert changed.pop(last) == value
    plain.pop(last)
    assert changed == plain


def test_later_overrides_win():
    assert read_config(None, ["rounds=3", "rounds=5"]).rounds == 5


@pytest.mark.parametrize(
    "wrong", [{"rounds": "3"}, {"rounds": True}, {"seed": 1.0}, {"engine": {"chunk": 0}}]
)
def test_a_value_is_never_converted_to_fit(wrong):
    with pytest.raises(ConfigError, match="configuration"):
        make_config(wrong)


def test_a_section_that_may_be_left_out_says_its_keys_and_how_to_leave_it_out():
    for value in (True, "yes", 3):
        with pytest.raises(ConfigError, match="keys every, noised, epsilon; leave it out to have none"):
            make_config({"federation": {"evaluation": value}})
    with pytest.raises(ConfigError, match=r"did you mean 'federation\.evaluation\.noised'"):
        make_config({"federation": {"evaluation": {"noise": True}}})
    with pytest.raises(ConfigError, match=r"keys name, rate, size$"):
        make_config({"federation": {"cohort": 0.3}})


def test_another_optimizer_is_suggested_with_its_own_learning_rate():
    with pytest.raises(ConfigError, match=r'server\.optimizer = \{ name = "adam", lr = 0\.1 \}'):
        read_config(None, ["server.optimizer.name=adam"])
