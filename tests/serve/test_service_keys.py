"""Keys are shown once, kept as hashes, and a file that others could write is not trusted."""

import os

import pytest

from fedsafe.errors import ConfigError
from fedsafe.serve.keys import Keys, new_key


def test_a_key_is_its_callers_and_the_file_does_not_hold_it(tmp_path):
    file = tmp_path / "keys"
    ours, theirs = new_key(file, "ours"), new_key(file, "theirs.2")
    keys = Keys.read(file)
    assert keys.names == ("ours", "theirs.2")
    assert (keys.who(ours), keys.who(theirs)) == ("ours", "theirs.2")
    for wrong in ("", ours[:-1], ours + "x", "fsk_", "é\udcff", file.read_text().split(":")[1][:64]):
        assert keys.who(wrong) is None
    assert ours not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_name_is_given_once(tmp_path):
    new_key(tmp_path / "keys", "ours")
    with pytest.raises(ConfigError, match="has a key of 'ours' already"):
        new_key(tmp_path / "keys", "ours")
    for name in ("", "a b", "a:b", "../x", "a" * 65, "é"):
        with pytest.raises(ConfigError, match="letters, digits"):
            new_key(tmp_path / "keys", name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no key"),
        ("# a comment\n\n", "holds no key"),
        ("ours:123\n", "line 1 is not NAME:SHA256"),
        (f"a:{'0' * 64}\na:{'1' * 64}\n", "line 2 names a caller twice"),
        ("é\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path, content, message):
    file = tmp_path / "keys"
    file.write_text(content, encoding="utf-8")
    os.chmod(file, 0o600)
    with pytest.raises(ConfigError, match=message):
        Keys.read(file)


def test_a_file_that_others_may_write_is_refused(tmp_path):
    new_key(tmp_path / "keys", "ours")
    os.chmod(tmp_path / "keys", 0o660)
    with pytest.raises(ConfigError, match="written by others"):
        Keys.read(tmp_path / "keys")
    with pytest.raises(ConfigError, match="cannot be read"):
        Keys.read(tmp_path / "none")


def test_a_last_line_without_its_end_swallows_no_key(tmp_path):
    file = tmp_path / "keys"
    first = new_key(file, "ours")
    file.write_text(file.read_text().rstrip("\n"))
    second = new_key(file, "theirs")
    keys = Keys.read(file)
    assert (keys.who(first), keys.who(second)) == ("ours", "theirs")


def test_operators_are_those_whose_line_says_so(tmp_path):
    file = tmp_path / "keys"
    new_key(file, "ward")
    key = new_key(file, "watch", operator=True)
    keys = Keys.read(file)
    assert (keys.who(key), keys.operators) == ("watch", {"watch"})
    file.write_text(file.read_text().replace(":operator", ":owner"))
    with pytest.raises(ConfigError, match="line 2 is not NAME:SHA256 or NAME:SHA256:operator"):
        Keys.read(file)
