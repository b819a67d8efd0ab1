"""A module beside the configuration is found wherever the run goes: other folders, workers, a resumed process."""

import shutil
import sys

import pytest
import tomli_w
from tiny_federation import config

from fedsafe.errors import ConfigError
from fedsafe.runs.resume import resume
from fedsafe.runs.run import run
from fedsafe.store import RunFolder

MODEL = """
from torch import nn

class Wide(nn.Module):
    def __init__(self, features, outputs):
        super().__init__()
        self.layer = nn.Linear(features, outputs)

    def forward(self, x):
        return self.layer(x)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a configuration and the module that it names; forgotten after the test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "project"
    (folder / "beside_toml").mkdir(parents=True)
    (folder / "beside_toml" / "__init__.py").write_text("")
    (folder / "beside_toml" / "wide.py").write_text(MODEL)
    (folder / "mine.toml").write_text(tomli_w.dumps(config(model="beside_toml.wide:Wide", rounds=2)))
    yield folder
    forget()


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "beside_toml"]:
        del sys.modules[name]


def test_the_command_finds_modules_of_the_current_folder_and_of_the_configurations(
    fedsafe, project, tmp_path
):
    command = fedsafe("run", "project/mine.toml", "--out", "out")
    assert command.code == 0, command.err
    assert RunFolder.open(tmp_path / "out").record()[0].model["name"] == "beside_toml.wide:Wide"
    shutil.move(project / "beside_toml", tmp_path / "beside_toml")
    assert fedsafe("run", "project/mine.toml", "--out", "again").code == 0
    shutil.rmtree(tmp_path / "beside_toml")
    command = fedsafe("run", "project/mine.toml", "--out", "third")
    assert command.code == 1
    assert command.err.count("\n") == 1
    assert "No module named 'beside_toml'" in command.err
    assert not (tmp_path / "third").exists()


class Interrupted:
    """Stops a run after its first round."""

    def on_start(self, path, start, first_round): ...

    def on_assessment(self, assessment): ...

    def on_end(self, end): ...

    def on_round(self, line):
        raise KeyboardInterrupt


def test_a_resumed_run_finds_the_modules_that_it_began_with(project, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        with pytest.raises(KeyboardInterrupt):
            run(project / "mine.toml", out=tmp_path / "out", callbacks=[Interrupted()])
    forget()
    assert str(project) not in sys.path
    shared = "\n".join(file.read_text() for file in (tmp_path / "out").glob("*.*"))
    assert str(project) not in shared, "a machine's path left the private part"
    remembered = tmp_path / "out" / "private" / "import_folders.jsonl"
    kept = remembered.read_text()
    remembered.unlink()
    with pytest.raises(ConfigError, match="No module named 'beside_toml'"):
        resume(tmp_path / "out")
    remembered.write_text(kept)
    assert resume(tmp_path / "out").end.status == "completed"


def test_workers_that_ray_started_earlier_find_them_too(project, tmp_path, ray_of_two):
    values = config(model="beside_toml.wide:Wide", rounds=1, engine={"name": "ray", "workers": 2})
    (project / "mine.toml").write_text(tomli_w.dumps(values))
    assert run(project / "mine.toml", out=tmp_path / "out").end.status == "completed"
