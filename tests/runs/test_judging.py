"""Requirements and assessors are checked before a run; a reply and a file time tell nothing they should not."""

import pytest
from tiny_federation import config

from fedsafe.errors import ConfigError
from fedsafe.runs import make_config, run
from fedsafe.runs.judge import read_requirements


@pytest.mark.parametrize("content", ["", "[[requires]]\nmetric = 'x'\n", "require = 3\n", "require = []\n"])
def test_a_requirement_file_without_requirements_is_refused(tmp_path, content):
    path = tmp_path / "rules.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match="require"):
        read_requirements(make_config(config(assess__require=str(path))).assess)


def test_a_requirement_file_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_requirements(make_config(config(assess__require=str(path))).assess)


def test_an_assessor_named_twice_is_refused_before_a_folder_exists(tmp_path):
    with pytest.raises(ConfigError, match="twice"):
        run(config(assess__assessors=["performance", "performance"]), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_checkpoint_bears_the_time_of_the_start(tmp_path):
    path = run(config(), out=tmp_path / "run").path
    times = {file.stat().st_mtime_ns for file in (path / "checkpoints").iterdir()}
    assert times == {(path / "config.toml").stat().st_mtime_ns}
