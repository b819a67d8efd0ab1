"""Only what was added to a file is read again, and whatever else happens to it is noticed."""

import json
import os

import pytest

from fedsafe.ui.files import Beneath
from fedsafe.ui.growing import GrowingLines


@pytest.fixture
def lines(tmp_path):
    return GrowingLines("a.jsonl", lambda line: line["n"])


def append(path, *numbers):
    with path.open("a") as file:
        file.writelines(json.dumps({"n": number}) + "\n" for number in numbers)


def test_what_is_added_is_read_once(tmp_path, lines, monkeypatch):
    import fedsafe.ui.growing

    path, files = tmp_path / "a.jsonl", Beneath(tmp_path)
    append(path, *range(1000))
    assert lines.refresh(files)
    assert lines.lines == list(range(1000))
    read = []
    real = fedsafe.ui.growing.read_from
    monkeypatch.setattr(
        fedsafe.ui.growing, "read_from", lambda *given: read.append(len(real(*given))) or real(*given)
    )
    assert not lines.refresh(files)
    append(path, 1000)
    assert lines.refresh(files)
    assert lines.lines == list(range(1001))
    assert sum(read) < 100


def test_a_line_counts_once_it_is_whole(tmp_path, lines):
    path, files = tmp_path / "a.jsonl", Beneath(tmp_path)
    append(path, 1)
    with path.open("a") as file:
        file.write('{"n": 2')
    lines.refresh(files)
    assert (lines.lines, lines.torn, lines.problem) == ([1], True, None)
    with path.open("a") as file:
        file.write("}\n")
    lines.refresh(files)
    assert (lines.lines, lines.torn) == ([1, 2], False)


@pytest.mark.parametrize("change", ["replaced", "cut", "edited", "deleted"])
def test_another_content_is_read_anew(tmp_path, lines, change):
    path, files = tmp_path / "a.jsonl", Beneath(tmp_path)
    append(path, 1, 2, 3)
    lines.refresh(files)
    if change == "replaced":
        append(tmp_path / "b", 7, 8, 9, 10)
        (tmp_path / "b").rename(path)
    elif change == "cut":
        path.write_text('{"n": 7}\n')
    elif change == "edited":
        path.write_text(path.read_text().replace("3", "4"))
        os.utime(path, ns=(1, 1))
    else:
        path.unlink()
    assert lines.refresh(files)
    expected = {"replaced": [7, 8, 9, 10], "cut": [7], "edited": [1, 2, 4], "deleted": []}
    assert lines.lines == expected[change]


def test_a_file_that_was_cut_and_grew_again_is_read_anew(tmp_path, lines):
    path, files = tmp_path / "a.jsonl", Beneath(tmp_path)
    append(path, 1, 2, 3)
    lines.refresh(files)
    path.write_text("")
    append(path, 4, 5, 6, 7)
    lines.refresh(files)
    assert lines.lines == [4, 5, 6, 7]


@pytest.mark.parametrize("bad", ["{", "[1]", "null", '{"n": ' + "[" * 100_000, '{"n": ' + "9" * 5000 + "}"])
def test_what_cannot_be_read_ends_the_lines_and_is_said(tmp_path, lines, bad):
    path, files = tmp_path / "a.jsonl", Beneath(tmp_path)
    append(path, 1)
    with path.open("a") as file:
        file.write(bad + "\n")
    append(path, 3)
    lines.refresh(files)
    assert lines.lines == [1]
    assert lines.problem.startswith("line 2: ")


def test_a_file_too_large_is_not_read(tmp_path, lines, monkeypatch):
    monkeypatch.setattr("fedsafe.ui.growing.MOST_BYTES", 100)
    append(tmp_path / "a.jsonl", *range(50))
    lines.refresh(Beneath(tmp_path))
    assert lines.lines == []
    assert "more than 100 are not read" in lines.problem
