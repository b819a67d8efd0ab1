"""What a gate asks of its own folder before it answers anybody: what others could read is not taken, or is closed."""

import os

import pytest
from hospitals import Hospital

from fedsafe.deploy.serving import SECRET, serve
from fedsafe.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    """Of a hospital whose gate is not running, as it comes out of an archive that keeps no modes."""
    hospital = Hospital(tmp_path / "north")
    hospital.gate.close()
    state = hospital.folder / "state"
    (state / SECRET).write_bytes(os.urandom(32))
    state.chmod(0o755)
    return hospital.folder


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_secret_that_others_can_read_is_no_secret(folder, mode):
    (folder / "state" / SECRET).chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:o}.*chmod 600"):
        serve(folder, runtime="127.0.0.1:9")


def test_the_state_is_its_owners_alone_whatever_it_was_before(folder):
    (folder / "state" / SECRET).write_bytes(b"short")
    (folder / "state" / SECRET).chmod(0o600)
    with pytest.raises(ConfigError, match="has 5 bytes"):
        serve(folder, runtime="127.0.0.1:9")
    assert (folder / "state").stat().st_mode & 0o777 == 0o700
