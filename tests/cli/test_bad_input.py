"""Every bad input ends with one clear line, an exit code that says so, and nothing half-written."""

import lzma
import re

import pytest

SHOP_SCHEMA = """
format = "fedsafe.schema/1"
note = "a note"
[label]
column = "bought"
classes = ["no", "yes"]
[columns.age]
kind = "numeric"
low = 0
high = 100
"""


def refused(command, tmp_path, *words: str, code: int = 1) -> str:
    """The one line that a refused command said; nothing else may be left of it."""
    assert command.code == code, command.err
    lines = command.err.splitlines()
    assert len(lines) == 1, command.err
    assert lines[0].startswith("fedsafe: ")
    assert "Traceback" not in command.out + command.err
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    for word in words:
        assert word in lines[0]
    return lines[0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rouns=3", ["rouns", "did you mean 'rounds'"]),
        ("federation.client=3", ["'federation.client'", "did you mean 'federation.clients'"]),
        ("privacy.record.epsilonn=1", ["did you mean 'privacy.record.epsilon'"]),
        ("zzzz=1", ["'zzzz'", "known here", "rounds"]),
        ("rounds=ten", ["rounds", "'ten'", "integer"]),
        ("rounds=2.5", ["rounds", "2.5", "integer"]),
        ("federation=3", ["federation"]),
        ("rounds.more=3", ["rounds.more=3", "is a value, not a section"]),
        ("rounds=0", ["rounds = 0", "greater than or equal to 1"]),
        ("privacy.record.epsilon=0", ["privacy.record.epsilon = 0", "greater than 0"]),
        ("privacy.client.epsilon=-1.0", ["privacy.client.epsilon = -1.0", "greater than 0"]),
        ("privacy.client.epsilon=nan", ["privacy.client.epsilon = nan"]),
        ("privacy.record.delta=1", ["privacy.record.delta = 1", "less than 1"]),
        ("privacy.record.delta=0.0", ["privacy.record.delta = 0.0", "greater than or equal to"]),
        ("privacy.record.clip=inf", ["privacy.record.clip = inf", "less than or equal to 1000000"]),
        ("client.rate=1.5", ["client.rate = 1.5", "less than or equal to 1"]),
        ("federation.clients=241", ["241 clients", "240 records"]),
        ("federation.partition={name='nope'}", ["nope"]),
        ("federation.cohort.name=fixed", ["federation.cohort.name = 'fixed'", "poisson"]),
        ("server.aggregator=median", ["median", "no proven sensitivity", "privacy.client.epsilon = inf"]),
        ("server.aggregator=nosy_mean", ["nosy_mean", "did you mean 'noisy_mean'"]),
        ("client.objective=nope", ["nope"]),
        ("model=logistik", ["logistik", "logistic"]),
        ("model=tiny_federation:no_such_model", ["no_such_model"]),
        ("model=tiny_federation:batch_normalised", ["BatchNorm1d", "nn.GroupNorm"]),
        ("task=adlt", ["adlt", "adult"]),
        ("task=5", ["task", "5"]),
        ("task=no_such_module:task", ["no_such_module"]),
        ("task={path='nope.csv', schema='nope.toml'}", ["nope.toml", "cannot be read"]),
        ("assess.assessors=['fairnes']", ["fairnes", "did you mean 'fairness'"]),
        ("assess.require=[{metric='performance.acuracy', op='>', threshold=1}]", ["performance.accuracy"]),
        ("assess.require=[{metric='performance.accuracy', op='=', threshold=1}]", ["op", "'='"]),
        ("assess.require=nope.toml", ["nope.toml"]),
        ("nonsense", ["nonsense", "a.b=value"]),
        ("=3", ["'=3'", "a.b=value"]),
    ],
)
def test_a_bad_option_is_named_with_its_value_and_remedy(fedsafe, tiny_toml, tmp_path, override, words):
    command = fedsafe("run", tiny_toml(), "--out", "out", "--set", override)
    refused(command, tmp_path, *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "spark"], ["spark", "ray", "inline"]),
        (["--workers", "two"], ["two", "integer"]),
        (["--workers", "0"], ["engine.workers = 0"]),
        (["--seed", "-1"], ["seed = -1"]),
        (["--colour"], ["--colour"]),
    ],
)
def test_a_bad_flag_is_one_line_too(fedsafe, tiny_toml, tmp_path, words, said):
    command = fedsafe("run", tiny_toml(), "--out", "out", *words)
    refused(command, tmp_path, *said, code=command.code)
    assert command.code in (1, 2)


def test_a_configuration_that_is_missing_or_not_toml_is_named(fedsafe, tmp_path):
    refused(fedsafe("run", "none.toml", "--out", "out"), tmp_path, "none.toml", "No such file")
    (tmp_path / "bad.toml").write_text("rounds = = 3")
    refused(fedsafe("run", "bad.toml", "--out", "out"), tmp_path, "bad.toml", "not valid TOML", "line 1")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe\x00")
    refused(fedsafe("run", "bad.toml", "--out", "out"), tmp_path, "bad.toml", "not valid TOML")
    refused(fedsafe("run", tmp_path, "--out", "out"), tmp_path, "cannot be read")


def test_a_table_without_the_label_or_a_file_that_is_not_a_table_is_named(fedsafe, tiny_toml, tmp_path):
    (tmp_path / "shop.toml").write_text(SHOP_SCHEMA)
    (tmp_path / "shop.csv").write_text("age,sold\n" + "20,yes\n30,no\n" * 20)
    task = "task={path='shop.csv', schema='shop.toml'}"
    refused(fedsafe("run", tiny_toml(), "--out", "out", "--set", task), tmp_path, "shop.csv", "bought")
    (tmp_path / "shop.csv").unlink()
    refused(fedsafe("run", tiny_toml(), "--out", "out", "--set", task), tmp_path, "shop.csv")
    (tmp_path / "shop.csv").write_bytes(lzma.compress(b"age,bought"))
    refused(fedsafe("run", tiny_toml(), "--out", "out", "--set", task), tmp_path, "shop.csv")


def test_a_corrupt_adult_file_is_refused_and_not_replaced_by_the_shipped_one(fedsafe, tiny_toml, tmp_path):
    folder = tmp_path / "data" / "adult"
    folder.mkdir(parents=True)
    (folder / "adult_48842.csv.xz").write_bytes(b"not what it was")
    environment = {"FEDSAFE_DATA_DIR": str(tmp_path / "data")}
    command = fedsafe("run", tiny_toml(task="adult"), "--out", "out", env=environment)
    refused(command, tmp_path, "adult_48842.csv.xz")


def test_an_output_folder_in_use_is_refused_and_left_alone(fedsafe, tiny_toml, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("years of work")
    command = fedsafe("run", tiny_toml(), "--out", "used")
    refused(command, tmp_path, "output folder in use: used", "--out", "--resume")
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["thesis.tex"]
    refused(fedsafe("run", tiny_toml(), "--out", "tiny.toml"), tmp_path, "output folder in use: tiny.toml")
    refused(fedsafe("run", tiny_toml(), "--out", "/proc/no/out"), tmp_path, "/proc/no/out")


def test_resuming_what_is_no_run_or_with_other_options_is_refused(fedsafe, tiny_toml, tmp_path):
    refused(fedsafe("run", "--resume", "none"), tmp_path, "none is not a run folder")
    (tmp_path / "empty").mkdir()
    refused(fedsafe("run", "--resume", "empty"), tmp_path, "empty is not a run folder", "config.toml")
    for options in (["--set", "rounds=9"], ["--seed", "0"], ["--out", "out"], ["--reproducible"]):
        command = fedsafe("run", "--resume", "empty", *options)
        refused(command, tmp_path, "--resume", f"leave out {options[0]}")
    command = fedsafe("run", tiny_toml(), "--resume", "empty")
    refused(command, tmp_path, "--resume", "leave out CONFIG")


@pytest.mark.parametrize("words", [["report"], ["ledger", "show"], ["ledger", "verify"]])
def test_reading_what_is_no_run_is_refused(fedsafe, tmp_path, words):
    refused(fedsafe(*words, "none"), tmp_path, "none", "not a run folder")


def test_a_json_command_that_fails_prints_nothing_on_standard_output(fedsafe, tiny_toml, tmp_path):
    command = fedsafe("run", tiny_toml(rounds=0), "--out", "out", "--json")
    assert command.out == ""
    assert command.code == 1
    assert re.fullmatch(r"(loading \.\.\.\n)?fedsafe: .*rounds = 0.*\n", command.err)
