"""The noise key: from the operating system, in one private file, recognised again by the ledger."""

import stat

import pytest

from fedsafe.errors import LedgerError
from fedsafe.rng import KEY_BYTES, key_from_seed
from fedsafe.runs.keys import create_key, key_fingerprint, read_key


def test_a_key_comes_back_as_it_was_made(tmp_path):
    key = create_key(tmp_path, seed=None)
    assert read_key(tmp_path) == key
    assert len(key) == KEY_BYTES


def test_keys_from_the_system_differ_from_run_to_run(tmp_path):
    keys = []
    for name in "abc":
        (tmp_path / name).mkdir()
        keys.append(create_key(tmp_path / name, seed=None))
        assert read_key(tmp_path / name) == keys[-1]
    assert len(set(keys)) == 3


def test_a_key_from_a_seed_is_a_function_of_it(tmp_path):
    assert create_key(tmp_path, seed=5) == read_key(tmp_path) == key_from_seed(5)


def test_the_file_is_readable_by_its_owner_alone(tmp_path):
    create_key(tmp_path, seed=None)
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path):
    key = create_key(tmp_path, seed=None)
    with pytest.raises(FileExistsError):
        create_key(tmp_path, seed=None)
    assert read_key(tmp_path) == key


@pytest.mark.parametrize("content", ["", "ab", "zz" * 32, "ab" * 31, "ab" * 33, "\x00" * 64])
def test_a_damaged_key_is_refused(tmp_path, content):
    create_key(tmp_path, seed=None)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    with pytest.raises(LedgerError, match="noise key"):
        read_key(tmp_path)


def test_a_missing_key_is_refused_and_not_made(tmp_path):
    with pytest.raises(LedgerError, match="cannot go on without it"):
        read_key(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_fingerprint_recognises_a_key_and_does_not_show_it():
    key, other = key_from_seed(1), key_from_seed(2)
    assert key_fingerprint(key) == key_fingerprint(bytes(key)) != key_fingerprint(other)
    assert key.hex() not in key_fingerprint(key)
