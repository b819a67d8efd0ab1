import json
import os
import signal
import threading
import time

import numpy as np
import pytest
from guarded_model import guard, unseen

from fedsafe.errors import ConfigError, RecordError
from fedsafe.serve.decision import Decision
from fedsafe.serve.decision_log import DecisionLog, LogHead, audit_key, read_log, verify_log
from fedsafe.serve.disk import Disk

KEY = bytes(range(32))
X = np.arange(12, dtype=np.float32).reshape(4, 3)
DECISIONS = [
    Decision(id="1", answered=True, label="yes", confidence=0.9, p_values={"combined": 0.5}),
    Decision(id="2", answered=False, reasons=("ood",), p_values={"combined": 0.01}),
    Decision(id="3", answered=False, reasons=('schema:not finite at \u00fc\n"x"',)),
    Decision(id="4", answered=True, value=1.5, notes=("flip:sex",)),
]


def written(path, **options):
    log = DecisionLog(path, KEY, model="a" * 64, **options)
    log.append(DECISIONS, X, caller="ward 3")
    head = log.head
    log.close()
    return head


def test_a_log_verifies_and_goes_on_after_a_restart(tmp_path):
    path = tmp_path / "log.jsonl"
    first = written(path)
    second = written(path, sync="batch")
    assert (first.sequence, second.sequence) == (4, 9)
    assert verify_log(path, KEY) == second == verify_log(path, KEY, head=first)
    assert [line["kind"] for line in read_log(path)] == ["open", *["decision"] * 4] * 2


def test_neither_inputs_nor_callers_are_in_it_and_hashes_are_keyed(tmp_path):
    path = tmp_path / "log.jsonl"
    written(path)
    text = path.read_text()
    assert "ward" not in text
    import hashlib

    assert hashlib.sha256(X[0].tobytes()).hexdigest() not in text
    other = DecisionLog(tmp_path / "other.jsonl", bytes(32), model="a")
    assert other.keyed(X[0].tobytes()) not in text
    other.close()


@pytest.mark.parametrize("what", ["changed", "dropped", "swapped", "doubled", "cut", "other key", "no hash"])
def test_every_change_is_found(tmp_path, what):
    path, key = tmp_path / "log.jsonl", KEY
    head = written(path)
    lines = path.read_text().splitlines(keepends=True)
    if what == "changed":
        lines[1] = lines[1].replace('"yes"', '"no"')
    elif what == "dropped":
        del lines[2]
    elif what == "swapped":
        lines[1], lines[2] = lines[2], lines[1]
    elif what == "doubled":
        lines.insert(2, lines[1])
    elif what == "cut":
        lines = lines[:-1]
    elif what == "no hash":
        lines[1] = (
            json.dumps({key: value for key, value in json.loads(lines[1]).items() if key != "hash"}) + "\n"
        )
    else:
        key = bytes(32)
    path.write_text("".join(lines))
    with pytest.raises(RecordError, match=r"edited|cut"):
        verify_log(path, key, head=head)


def test_a_cut_end_is_found_by_a_head_that_was_kept_elsewhere_alone(tmp_path):
    path = tmp_path / "log.jsonl"
    head = written(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert verify_log(path, KEY).sequence == 3
    with pytest.raises(RecordError, match="does not contain line 4"):
        verify_log(path, KEY, head=head)


def test_a_half_written_last_line_is_cut_off_and_the_log_goes_on(tmp_path):
    path = tmp_path / "log.jsonl"
    written(path)
    with path.open("a") as file:
        file.write('{"sequence":5,"kind":"deci')
    assert verify_log(path, KEY).sequence == 4
    written(path)
    assert verify_log(path, KEY).sequence == 9


def test_a_log_is_of_one_process_and_one_key(tmp_path):
    path = tmp_path / "log.jsonl"
    log = DecisionLog(path, KEY, model="a")
    with pytest.raises(RecordError, match="in use"):
        DecisionLog(path, KEY, model="a")
    log.close()
    with pytest.raises(RecordError, match="does not fit the key"):
        DecisionLog(path, bytes(32), model="a")
    with pytest.raises(ConfigError, match="sync"):
        DecisionLog(path, KEY, model="a", sync="sometimes")
    (tmp_path / "strange").write_text("hello\n")
    with pytest.raises(RecordError, match="none of a decision log"):
        DecisionLog(tmp_path / "strange", KEY, model="a")
    with pytest.raises(RecordError, match="cannot be opened"):
        DecisionLog(tmp_path / "no" / "folder", KEY, model="a")


def test_a_batch_that_the_disk_does_not_take_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    log = DecisionLog(path, KEY, model="a")
    size = path.stat().st_size

    def full(descriptor, content):
        os.write(descriptor, content[:20])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fedsafe.serve.decision_log.write_all", full)
        with pytest.raises(RecordError, match="No space left"):
            log.append(DECISIONS, X)
    assert path.stat().st_size == size
    log.append(DECISIONS, X)
    log.close()
    assert verify_log(path, KEY).sequence == 4


def test_a_killed_process_loses_no_line_of_a_decision_that_was_given_out(tmp_path):
    path = tmp_path / "log.jsonl"
    here, there = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.close(here)
        log = DecisionLog(path, KEY, model="a", sync="never")
        for at in range(10**6):
            log.append([Decision(id=str(at), answered=True, label="yes")], np.zeros((1, 3), np.float32))
            os.write(there, f"{at}\n".encode())
        os._exit(0)
    os.close(there)
    with os.fdopen(here) as given:
        while (last := int(given.readline())) < 200:
            pass
        os.kill(child, signal.SIGKILL)
        last = max([last, *map(int, given.read().split("\n")[:-1])])
    os.waitpid(child, 0)
    verify_log(path, KEY)
    ids = [line["id"] for line in read_log(path) if line["kind"] == "decision"]
    assert len(ids) >= last + 1
    assert ids == [str(at) for at in range(len(ids))]


def test_lines_are_what_json_makes_of_them(tmp_path):
    path = tmp_path / "log.jsonl"
    strange = Decision(
        id='a"b\\',
        answered=False,
        label='\u00fc"',
        value=1e300,
        confidence=1e-9,
        p_values={'"': 0.1234567, "b": 1},
    )
    log = DecisionLog(path, KEY, model="a" * 64)
    log.append([*DECISIONS, strange], [b"1", b"2", b"3", b"4", b"5"], seconds=1.5)
    with pytest.raises(RecordError, match="nan cannot be logged"):
        log.append([Decision(id="n", answered=True, value=float("nan"))], [b"6"])
    log.close()
    lines = path.read_text().splitlines()[1:]
    assert len(lines) == 5
    for number, (line, decision) in enumerate(zip(lines, [*DECISIONS, strange], strict=True), start=1):
        known = json.loads(line)
        slow = {
            "sequence": number,
            "kind": "decision",
            "time": "1970-01-01T00:00:01.500+00:00",
            "id": decision.id,
            "model": "a" * 16,
            "caller": "",
            "input": log.keyed(str(number).encode()),
            "answered": decision.answered,
            "label": decision.label,
            "value": decision.value,
            "confidence": None if decision.confidence is None else round(decision.confidence, 2),
            "reasons": decision.reasons,
            "notes": decision.notes,
            "p": {
                name: 0.01 if p <= 0.01 else 0.05 if p <= 0.05 else 1.0
                for name, p in decision.p_values.items()
            },
            "hash": known["hash"],
        }
        assert line == json.dumps(slow, separators=(",", ":"))


def test_a_line_holds_no_digits_that_name_its_record(tmp_path):
    def logged(name, decision):
        log = DecisionLog(tmp_path / name, KEY, model="a")
        log.append([decision], [b"x"], seconds=0.0)
        log.close()
        line = json.loads((tmp_path / name).read_text().splitlines()[1])
        return {key: value for key, value in line.items() if key != "hash"}

    one = Decision(
        id="1", answered=True, value=1234.56, confidence=0.87654, p_values={"ood": 0.0444, "combined": 0.7}
    )
    other = Decision(
        id="1", answered=True, value=1201.1, confidence=0.88111, p_values={"ood": 0.0123, "combined": 0.2}
    )
    assert logged("one", one) == logged("other", other)


def test_hashes_of_inputs_callers_and_lines_are_apart(tmp_path):
    log = DecisionLog(tmp_path / "log.jsonl", KEY, model="a")
    kinds = [log.keyed(b"x", what) for what in ("input", "caller", "line")]
    assert len(set(kinds)) == 3
    log.append(DECISIONS[:1], [b"caller:ward"], caller="ward")
    log.close()
    [line] = [line for line in read_log(tmp_path / "log.jsonl") if line["kind"] == "decision"]
    assert line["caller"] == log.keyed(b"ward", "caller")[:16] != line["input"][:16]


def test_another_end_of_a_line_is_a_change(tmp_path):
    path = tmp_path / "log.jsonl"
    written(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(RecordError, match="edited"):
        verify_log(path, KEY)


@pytest.mark.parametrize("name", ["fstat", "ftruncate"])
def test_a_file_that_cannot_be_looked_at_or_cut_is_one_clear_line(tmp_path, monkeypatch, name):
    log = DecisionLog(tmp_path / "log.jsonl", KEY, model="a", sync="never")

    def fails(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(f"fedsafe.serve.decision_log.os.{name}", fails)
        patch.setattr("fedsafe.serve.decision_log.write_all", fails)
        with pytest.raises(RecordError, match="cannot be written"):
            log.append(DECISIONS, X)
    if name == "ftruncate":
        with pytest.raises(RecordError, match="half a line"):
            log.append(DECISIONS, X)
    log.close()


def test_lines_come_to_the_disk_beside_the_decisions_and_a_failing_disk_ends_them(tmp_path, monkeypatch):
    synced, fails = [], threading.Event()

    def fsync(descriptor):
        synced.append(threading.current_thread().name)
        if fails.is_set():
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("fedsafe.serve.disk.os.fsync", fsync)
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    disk = Disk(file, seconds=0.001)
    for count in (1, 2):
        disk.changed()
        until(lambda count=count: len(synced) == count)
    assert set(synced) == {"fedsafe-disk"}
    fails.set()
    disk.changed()
    until(lambda: disk.failed)
    assert len(synced) == 3
    disk.close()
    os.close(file)
    log = DecisionLog(tmp_path / "log.jsonl", KEY, model="a")
    log.append(DECISIONS, X)
    until(lambda: log._disk.failed)
    with pytest.raises(RecordError, match="on the disk: Input/output error"):
        log.append(DECISIONS, X)
    fails.clear()
    log.close()
    assert verify_log(tmp_path / "log.jsonl", KEY).sequence == 4


def until(happened):
    end = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_keys_are_made_once_for_their_owner(tmp_path):
    path = tmp_path / "key"
    key = audit_key(path)
    assert len(key) == 32
    assert audit_key(path) == key
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("no key")
    with pytest.raises(RecordError, match="no key"):
        audit_key(path)


def test_lines_say_what_was_decided(tmp_path):
    log = DecisionLog(tmp_path / "log.jsonl", KEY, model="b" * 64)
    found = guard(log=log)
    decisions = found.predict(unseen().x[:30], caller="me")
    found.close()
    lines = [line for line in read_log(tmp_path / "log.jsonl") if line["kind"] == "decision"]
    assert [line["id"] for line in lines] == [decision.id for decision in decisions]
    assert [line["answered"] for line in lines] == [decision.answered for decision in decisions]
    assert lines[0]["input"] == log.keyed(np.float32(unseen().x[0]).tobytes())
    assert verify_log(tmp_path / "log.jsonl", KEY, head=LogHead(sequence=-1, hash="")).sequence == 30
