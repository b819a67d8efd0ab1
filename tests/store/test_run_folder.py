"""The run folder: whole or absent, held by one process, unhurt by a kill at any byte."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fedsafe.errors import RecordError
from fedsafe.records import End, Round
from fedsafe.store import RunFolder
from fedsafe.store import folder as folder_module

CONFIG = 'task = "adult"\n'


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", CONFIG)


def make_round(number: int) -> Round:
    return Round(
        round=number,
        metrics={"accuracy": 0.5, "loss": 0.7},
        spend={"record": 0.1, "client": None},
        ledger={"sequence": number, "head": "ff"},
        checkpoint=None,
        parameters_sha256="00",
    )


def test_a_new_folder_has_its_configuration_and_a_private_part_for_the_owner_only(tmp_path):
    umask = os.umask(0o000)
    try:
        run = RunFolder.create(tmp_path / "a" / "b", CONFIG)
    finally:
        os.umask(umask)
    assert (run.path / "config.toml").read_text() == CONFIG == run.config
    assert stat.S_IMODE(run.private.stat().st_mode) == 0o700
    assert RunFolder.open(run.path) == run
    assert run.record() == []
    assert run.checkpoints() == []


def test_an_existing_empty_folder_is_used(tmp_path):
    target = tmp_path / "empty"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    run = RunFolder.create(tmp_path / "link", CONFIG)
    assert run.config == CONFIG
    assert stat.S_IMODE((target / "private").stat().st_mode) == 0o700


@pytest.mark.parametrize("occupied_by", ["folder", "run", "file"])
def test_a_path_in_use_is_refused_and_left_alone(tmp_path, occupied_by):
    target = tmp_path / "run"
    if occupied_by == "run":
        RunFolder.create(target, CONFIG)
    elif occupied_by == "folder":
        target.mkdir()
        (target / "thesis.tex").write_text("x")
    else:
        target.write_text("x")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(
        RecordError, match=r"output folder in use: .*run; choose another --out, or --resume it"
    ):
        RunFolder.create(target, "other = 1\n")
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("exists", [False, True])
def test_a_creation_that_fails_leaves_nothing(tmp_path, monkeypatch, exists):
    target = tmp_path / "run"
    if exists:
        target.mkdir()

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "replace_file", full)
    with pytest.raises(RecordError, match="No space left"):
        RunFolder.create(target, CONFIG)
    assert list(tmp_path.rglob("*")) == ([target] if exists else [])


def test_a_folder_that_fills_up_while_ours_is_made_wins(tmp_path, monkeypatch):
    target = tmp_path / "run"
    fill = folder_module._fill

    def race(sibling: Path, config: str) -> None:
        fill(sibling, config)
        target.mkdir()
        (target / "theirs").write_text("x")

    monkeypatch.setattr(folder_module, "_fill", race)
    with pytest.raises(RecordError, match="in use"):
        RunFolder.create(target, CONFIG)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["run", "theirs"]


def test_what_is_not_a_run_folder_is_refused_with_what_is_missing(tmp_path, run):
    with pytest.raises(RecordError, match="does not exist"):
        RunFolder.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="is not a folder"):
        RunFolder.open(tmp_path / "file")
    (tmp_path / "other").mkdir()
    with pytest.raises(RecordError, match=r"no config\.toml and no record\.jsonl"):
        RunFolder.open(tmp_path / "other")
    (run.path / "record.jsonl").unlink()
    with pytest.raises(RecordError, match=r"it has no record\.jsonl"):
        RunFolder.open(run.path)


def test_a_second_process_cannot_hold_the_folder_and_a_kill_releases_it(run):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import sys\nfrom fedsafe.store import RunFolder\n"
                "with RunFolder.open(sys.argv[1]).lock():\n print('held', flush=True)\n sys.stdin.read()"
            ),
            str(run.path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RecordError, match=rf"in use by another process \(pid {holder.pid}\)"), run.lock():
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with run.lock():
            assert (run.private / "lock").read_text() == f"{os.getpid()}\n"


def test_the_lock_is_released_after_an_error_and_is_held_once_in_a_process(run):
    with pytest.raises(ZeroDivisionError), run.lock():
        raise ZeroDivisionError
    with run.lock(), pytest.raises(RecordError, match="in use"), run.lock():
        pass


def test_a_copy_without_its_private_part_can_be_read_but_not_locked(run):
    run.append_record(make_round(1))
    run.private.rmdir()
    assert RunFolder.open(run.path).record() == [make_round(1)]
    with pytest.raises(RecordError, match="shared copy"), run.lock():
        pass


def test_lines_are_read_back_in_order(run):
    lines = [{"round": i, "text": 'é "\n'} for i in range(5)]
    run.append("findings.jsonl", *lines[:3])
    run.append("findings.jsonl", lines[3])
    run.append("findings.jsonl", lines[4], durable=True)
    run.append("findings.jsonl")
    assert run.read("findings.jsonl") == lines
    assert run.read("requirements.jsonl") == []


def test_a_kill_at_any_byte_of_the_last_line_loses_that_line_only_and_the_next_append_heals_the_file(run):
    path = run.path / "record.jsonl"
    for number in (1, 2, 3):
        run.append_record(make_round(number))
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        assert [line.round for line in run.record()] == [1, 2], end
        run.append_record(make_round(9))
        assert [line.round for line in run.record()] == [1, 2, 9], end
    assert len(whole) - start > 100


@pytest.mark.parametrize("length", [1, 70_000, 200_000])
def test_a_torn_first_line_of_any_length_is_cut(run, length):
    (run.path / "findings.jsonl").write_bytes(b"x" * length)
    assert run.read("findings.jsonl") == []
    run.append("findings.jsonl", {"a": 1})
    assert (run.path / "findings.jsonl").read_bytes() == b'{"a":1}\n'


def test_a_long_torn_line_after_a_complete_one_is_cut(run):
    (run.path / "findings.jsonl").write_bytes(b'{"a":1}\n' + b"x" * 150_000)
    run.append("findings.jsonl", {"b": 2})
    assert run.read("findings.jsonl") == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize("bad", [b'{"round":\n', b"\n", b"[1]\n", b'{"a":NaN}\n', b"\xff\xfe\n"])
def test_a_malformed_line_elsewhere_is_an_error_that_says_where(run, bad):
    (run.path / "findings.jsonl").write_bytes(b'{"a":1}\n' + bad + b'{"a":2}\n')
    with pytest.raises(RecordError, match=r"line 2 of .*findings\.jsonl"):
        run.read("findings.jsonl")


def test_a_value_that_cannot_be_written_leaves_the_file_alone(run):
    run.append("findings.jsonl", {"a": 1})
    with pytest.raises(RecordError):
        run.append("findings.jsonl", {"a": 2}, {"a": object()})
    assert run.read("findings.jsonl") == [{"a": 1}]


def test_numbers_that_are_not_finite_are_written_as_null(run):
    run.append("findings.jsonl", {"interval": [0.5, float("inf")], "value": float("nan")})
    assert run.read("findings.jsonl") == [{"interval": [0.5, None], "value": None}]


def test_truncation_by_count_and_by_predicate_keeps_the_bytes_of_what_stays(run):
    path = run.path / "findings.jsonl"
    path.write_bytes(b'{"round": 1}\n{"round":2 }\n{"round":3}\n{"rou')
    assert run.truncate_after("findings.jsonl", lambda line: line["round"] != 2) == 1
    assert path.read_bytes() == b'{"round": 1}\n{"round":3}\n'
    assert run.truncate_after("findings.jsonl", 1) == 1
    assert path.read_bytes() == b'{"round": 1}\n'
    assert run.truncate_after("findings.jsonl", 5) == 0
    assert run.truncate_after("findings.jsonl", 0) == 1
    assert path.read_bytes() == b""
    assert run.truncate_after("requirements.jsonl", 0) == 0
    assert not (run.path / "requirements.jsonl").exists()
    with pytest.raises(RecordError, match="-1"):
        run.truncate_after("findings.jsonl", -1)


def test_a_truncation_that_fails_leaves_the_old_lines_and_no_other_file(run, monkeypatch):
    run.append("findings.jsonl", {"round": 1}, {"round": 2})
    before = sorted(os.listdir(run.path))

    def refuse(source: object, target: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="Input/output"):
        run.truncate_after("findings.jsonl", 1)
    assert len(run.read("findings.jsonl")) == 2
    assert sorted(os.listdir(run.path)) == before


def test_a_writer_killed_at_any_moment_leaves_a_readable_prefix(run):
    script = (
        "import sys\nfrom fedsafe.store import RunFolder\nrun = RunFolder.open(sys.argv[1])\n"
        "i = 0\nwhile True:\n run.append('findings.jsonl', {'i': i, 'pad': 'x' * 5000})\n i += 1\n"
        " if i == 20: print('go', flush=True)\n"
    )
    for _ in range(3):
        (run.path / "findings.jsonl").unlink(missing_ok=True)
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(run.path)], stdout=subprocess.PIPE, text=True
        )
        with writer:
            writer.stdout.readline()
            writer.kill()
        lines = run.read("findings.jsonl")
        assert [line["i"] for line in lines] == list(range(len(lines)))
        assert len(lines) >= 20


@pytest.mark.parametrize("name", ["../escape.jsonl", "/tmp/escape.jsonl", "", "a/../../b"])
def test_a_name_cannot_lead_outside_the_folder(run, name):
    for action in (
        lambda: run.read(name),
        lambda: run.append(name, {"a": 1}),
        lambda: run.truncate_after(name, 0),
        lambda: run.replace_text(name, "x"),
        lambda: run.read_checkpoint(name),
    ):
        with pytest.raises(RecordError, match="inside a run folder"):
            action()


def test_timings_are_private(run):
    run.append_timing(round=1, seconds=0.25)
    outside = [path for path in run.path.rglob("*") if path.is_file() and run.private not in path.parents]
    assert run.read("private/timings.jsonl") == [{"round": 1, "seconds": 0.25}]
    assert all("0.25" not in path.read_text() for path in outside)


def test_text_is_replaced_whole(run):
    assert run.replace_text("report.html", "<p>é</p>") == run.path / "report.html"
    run.replace_text("report.html", "b")
    assert (run.path / "report.html").read_text() == "b"


def test_an_end_line_is_read_back_among_rounds(run):
    end = End(rounds=1, seconds=1.0, status="stopped", reason="a failed requirement", accuracy=0.5)
    run.append_record(make_round(1))
    run.append_record(end)
    assert run.record() == [make_round(1), end]
    assert json.loads((run.path / "record.jsonl").read_text().splitlines()[1])["status"] == "stopped"


def test_the_store_and_the_records_need_no_torch_flwr_or_ray():
    script = (
        "import sys, fedsafe.store, fedsafe.records\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'flwr', 'ray'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
