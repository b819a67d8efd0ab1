"""The name that a run has to its nodes: one, on the disk, whenever its server was killed."""

import pytest

from fedsafe.apps.notes import RunNotes
from fedsafe.errors import RecordError


def begun(path, folder):
    """A server's notes once its run has begun."""
    notes = RunNotes(path)
    notes.on_start(folder, None, 1)
    return notes.run


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "private").mkdir()
    return tmp_path


def test_a_run_that_goes_on_has_the_name_that_it_began_with(folder):
    name = begun(None, folder)
    assert (folder / "private" / "run.token").stat().st_mode & 0o777 == 0o600
    assert begun(folder, folder) == begun(folder, folder) == name
    assert len(name) == 32


def test_a_server_that_was_killed_while_it_wrote_the_name_gives_one_that_stays(folder):
    (folder / "private" / "run.token").touch()
    name = begun(folder, folder)
    assert len(name) == 32
    assert begun(folder, folder) == name


def test_what_is_no_run_has_no_name(tmp_path):
    with pytest.raises(RecordError, match="is no run folder"):
        RunNotes(tmp_path / "away")
