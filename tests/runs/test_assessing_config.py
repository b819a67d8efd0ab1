"""A run folder whose config.toml is another or broken says that, and nothing of what the wrong one asks for."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fedsafe.errors import ConfigError
from fedsafe.runs.assessing import _config_of
from fedsafe.runs.config import make_config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task = [", "not valid TOML"),
        ('rounds = "many"', "valid integer"),
        ('tsk = "adult"', "did you mean 'task'"),
        ('task = "/nowhere/at_all.csv"', "restore it"),  # never looked for
    ],
)
def test_another_configuration_is_one_line_with_the_remedy(text, words):
    own = make_config({"task": "adult", "rounds": 3})
    start = SimpleNamespace(settings_sha256=own.digest)
    folder = SimpleNamespace(path=Path("runs/a"), config=text)
    with pytest.raises(ConfigError, match=words) as raised:
        _config_of(folder, start)
    said = str(raised.value)
    assert "\n" not in said
    assert "is not the one that" in said
    assert said.endswith("restore it")
    assert _config_of(SimpleNamespace(path=folder.path, config=own.to_toml()), start) == own
