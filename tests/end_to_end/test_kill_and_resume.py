"""A run that is killed at any moment and resumed is the run that was never killed."""

import dataclasses
import json
import os
import re
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from tiny_federation import config, task

from fedsafe.errors import LedgerError
from fedsafe.runs import resume, run
from fedsafe.store import RunFolder
from fedsafe.store.checkpoints import content_digest

ROUNDS = 5
# The slow assessor holds each round open between the ledger's reservation and the record line.
SLOW = {
    "rounds": ROUNDS,
    "assess__every": 1,
    "assess__assessors": ["performance", "tiny_federation:SlowAssessor"],
    "assess__require": [{"metric": "performance.accuracy", "op": ">=", "threshold": 0.1}],
}


def recorded(run: Path) -> int:
    """Complete rounds."""
    path = run / "record.jsonl"
    return path.read_text().count('"kind":"round"') if path.exists() else 0


def reserved(run: Path) -> int:
    """Rounds in the ledger, read from a connection of our own."""
    if not (run / "private" / "ledger.sqlite").exists():
        return 0
    try:
        database = sqlite3.connect(f"file:{run}/private/ledger.sqlite?mode=ro", uri=True)
        try:
            return database.execute("SELECT COUNT(*) FROM event WHERE kind = 'round'").fetchone()[0]
        finally:
            database.close()
    except sqlite3.OperationalError:  # not made yet
        return 0


def until(condition, command, seconds=120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert command.running(), command.err
        assert time.monotonic() < end
        time.sleep(0.005)


def essence(path: Path) -> dict:
    """Everything of a run that must not depend on interruptions: times, salts and chain hashes are left out."""
    folder = RunFolder.open(path)
    lines = [json.loads(line) for line in (path / "record.jsonl").read_text().splitlines()]
    for line in lines:
        for name in ("run", "created", "seconds", "machine"):
            line.pop(name, None)
        line.get("ledger", {}).pop("head", None)
    with sqlite3.connect(path / "private" / "ledger.sqlite") as database:
        events = database.execute(
            "SELECT sequence, kind, round, body FROM event ORDER BY sequence"
        ).fetchall()
    database.close()
    bodies = [json.loads(body) for *_, body in events]
    for body in bodies:
        body.pop("salt", None)
    return {
        "record": lines,
        "ledger": [(*event[:3], body) for event, body in zip(events, bodies, strict=True)],
        "findings": (path / "findings.jsonl").read_bytes(),
        "requirements": (path / "requirements.jsonl").read_bytes(),
        "parameters": [content_digest(folder.read_checkpoint(n)[0]) for n in folder.checkpoints()],
        "timed rounds": [line["round"] for line in folder.read("private/timings.jsonl")],
        "files": sorted(str(file.relative_to(path)) for file in path.rglob("*") if ".tmp" not in file.name),
    }


@pytest.fixture(scope="module")
def uninterrupted(command_server, tmp_path_factory):
    """The same run, never killed."""
    import tomli_w
    from tiny_federation import config

    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.toml").write_text(tomli_w.dumps(config(**SLOW)))
    request = {"argv": ["run", "tiny.toml", "--out", "run", "--reproducible"], "cwd": str(folder), "env": {}}
    pid = command_server({**request, "out": str(folder / "out"), "err": str(folder / "err")})
    while (code := command_server({"poll": pid})) is None:
        time.sleep(0.05)
    assert code == 0, (folder / "err").read_text()
    return folder / "run"


@pytest.fixture
def begun(start, tiny_toml, tmp_path):
    """The slow run, started, and its folder."""

    def begin():
        return start("run", tiny_toml(**SLOW), "--out", "run", "--reproducible"), tmp_path / "run"

    return begin


def test_kills_between_rounds_inside_rounds_and_at_the_end_change_nothing(begun, start, uninterrupted):
    command, run = begun()
    moments = [
        lambda: reserved(run) == 1 and recorded(run) == 0,  # round 1 is charged, and not recorded
        lambda: recorded(run) == 2,
        lambda: reserved(run) == 4 and recorded(run) == 3,
        lambda: reserved(run) == 5 and recorded(run) == 4,
    ]
    for moment in moments:
        until(moment, command)
        command.signal(signal.SIGKILL)
        assert command.wait() == -signal.SIGKILL
        assert recorded(run) < ROUNDS
        command = start("run", "--resume", "run")
    assert command.wait() == 0, command.err
    assert essence(run) == essence(uninterrupted)


@pytest.mark.parametrize("delay", [0.05, 0.3, 0.9])
def test_a_kill_at_any_moment_can_be_resumed_or_left_nothing_released(begun, fedsafe, uninterrupted, delay):
    command, run = begun()
    time.sleep(delay)
    command.signal(signal.SIGKILL)
    command.wait()
    if not run.exists():
        return
    if (run / "record.jsonl").read_text() == "":
        assert reserved(run) == 0
        return
    assert fedsafe("run", "--resume", "run").code == 0
    assert essence(run) == essence(uninterrupted)


def test_what_a_round_wrote_before_its_record_line_is_dropped_and_written_again(
    fedsafe, uninterrupted, tmp_path
):
    """Killed between the last finding and the end of the record line, in the last round."""
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    lines = (run / "record.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == ROUNDS + 2
    (run / "record.jsonl").write_text("".join(lines[:-2]) + lines[-2][:50])
    with (run / "findings.jsonl").open("a") as file:
        file.write('{"round":5,"assessor":"per')
    assert fedsafe("run", "--resume", "run").code == 0
    assert essence(run) == essence(uninterrupted)


def test_a_run_killed_just_before_its_end_line_only_gets_that_line(fedsafe, uninterrupted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    lines = (run / "record.jsonl").read_text().splitlines(keepends=True)
    (run / "record.jsonl").write_text("".join(lines[:-1]))
    assert fedsafe("run", "--resume", "run").code == 0
    assert (run / "record.jsonl").read_text().startswith("".join(lines[:-1]))
    assert essence(run) == essence(uninterrupted)


def test_resuming_a_complete_run_changes_nothing(fedsafe, uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path / "run")
    names = ("record.jsonl", "findings.jsonl", "requirements.jsonl", "config.toml", "private/ledger.sqlite")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in names}
    command = fedsafe("run", "--resume", "run", "--json")
    assert command.code == 0
    assert json.loads(command.out)["rounds"] == ROUNDS
    assert {name: (tmp_path / "run" / name).read_bytes() for name in names} == before


@pytest.fixture
def halfway(uninterrupted, tmp_path):
    """A copy of the run as it was killed after round 3."""
    shutil.copytree(uninterrupted, tmp_path / "run")
    run = tmp_path / "run"
    lines = (run / "record.jsonl").read_text().splitlines(keepends=True)
    (run / "record.jsonl").write_text("".join(lines[:4]))
    with sqlite3.connect(run / "private" / "ledger.sqlite") as database:
        database.execute("DELETE FROM event WHERE round > 3")
        database.execute("DELETE FROM release WHERE round > 3")
    database.close()
    for number in (4, 5):
        (run / "checkpoints" / f"round-0000{number}.safetensors").unlink()
    (run / "report.html").unlink()
    return run


def change_ledger(run: Path, *statements: str) -> None:
    with sqlite3.connect(run / "private" / "ledger.sqlite") as database:
        for statement in statements:
            database.execute(statement)
    database.close()


def older_ledger(run):
    change_ledger(run, "DELETE FROM event WHERE round = 3", "DELETE FROM release WHERE round = 3")


def missing_event(run):
    change_ledger(run, "DELETE FROM event WHERE round = 2")


def edited_event(run):
    change_ledger(run, "UPDATE event SET body = replace(body, 'cohort', 'c0hort') WHERE round = 2")


def smaller_cohort(run):
    change_ledger(run, """UPDATE event SET body = '{"cohort":[],"digest":"00"}' WHERE round = 3""")


def cut_ledger(run):
    path = run / "private" / "ledger.sqlite"
    path.write_bytes(path.read_bytes()[:5000])


def empty_ledger(run):
    (run / "private" / "ledger.sqlite").write_bytes(b"")


def no_ledger(run):
    (run / "private" / "ledger.sqlite").unlink()


def no_key(run):
    (run / "private" / "noise.key").unlink()


def cut_key(run):
    (run / "private" / "noise.key").write_text("00ff\n")


def other_key(run):
    (run / "private" / "noise.key").write_text("00" * 32 + "\n")


def no_private_part(run):
    shutil.rmtree(run / "private")


def edited_config(run):
    text = (run / "config.toml").read_text()
    assert "lr = 1.0" in text
    (run / "config.toml").write_text(text.replace("lr = 1.0", "lr = 1.5"))


def bigger_epsilon(run):
    text = (run / "config.toml").read_text()
    assert "epsilon = 0.1" in text
    (run / "config.toml").write_text(text.replace("epsilon = 0.1", "epsilon = 9.0"))


def more_rounds(run):
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("rounds = 5", "rounds = 50"))


def key_from_the_system(run):
    text = (run / "config.toml").read_text()
    assert 'noise_key = "seed"' in text
    (run / "config.toml").write_text(text.replace('noise_key = "seed"', 'noise_key = "os"'))


def edited_plan(run):
    text = (run / "record.jsonl").read_text()
    (run / "record.jsonl").write_text(text.replace('"rounds":5', '"rounds":50', 1))


def other_checkpoint(run):
    folder = run / "checkpoints"
    shutil.copy(folder / "round-00002.safetensors", folder / "round-00003.safetensors")


def no_checkpoint(run):
    (run / "checkpoints" / "round-00003.safetensors").unlink()


def edited_requirements(run):
    text = (run / "config.toml").read_text()
    assert "threshold = 0.1" in text
    (run / "config.toml").write_text(text.replace("threshold = 0.1", "threshold = 0.2"))


def other_torch(run):
    text = (run / "record.jsonl").read_text()
    (run / "record.jsonl").write_text(re.sub(r'"torch":"[^"]*"', '"torch":"1.0"', text, count=1))


DAMAGES = [
    older_ledger, missing_event, edited_event, smaller_cohort, cut_ledger, empty_ledger, no_ledger, no_key,
    cut_key, other_key, no_private_part, edited_config, bigger_epsilon, more_rounds, key_from_the_system, edited_plan,
    other_checkpoint, no_checkpoint, edited_requirements, other_torch,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_run_whose_secrets_or_plan_were_touched_is_not_resumed(fedsafe, halfway, damage):
    damage(halfway)
    before = (halfway / "record.jsonl").read_bytes()
    command = fedsafe("run", "--resume", "run")
    assert command.code != 0, command.out
    assert len(command.err.splitlines()) == 1, command.err
    assert command.err.startswith("fedsafe: ")
    assert (halfway / "record.jsonl").read_bytes() == before
    assert not (halfway / "report.html").exists()


def test_other_records_than_the_run_began_with_are_refused(tmp_path):
    """The same noise over other inputs would give their difference away."""
    values = config(rounds=3, privacy__noise_key="seed")
    whole = task()
    run(values, data=whole, out=tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    folder.truncate_after("record.jsonl", 3)  # the start line and two rounds
    (tmp_path / "run" / "checkpoints" / "round-00003.safetensors").unlink()
    x = whole.train.x.copy()
    x[0, 0] += 0.25
    changed = dataclasses.replace(whole, train=dataclasses.replace(whole.train, x=x))
    with pytest.raises(LedgerError, match="not the ones this run began with"):
        resume(tmp_path / "run", data=changed)
    assert resume(tmp_path / "run", data=whole).end.rounds == 3


def test_a_round_whose_model_was_written_is_recorded_and_not_repeated(tmp_path, monkeypatch):
    """Repeated with another client failing, its model would differ by that client's update alone."""
    required = [{"metric": "performance.accuracy", "op": ">=", "threshold": 0.1}]
    values = config(rounds=3, privacy__noise_key="seed", assess__require=required)
    whole = run(values, out=tmp_path / "whole")
    run(values, out=tmp_path / "run")
    RunFolder.open(tmp_path / "run").truncate_after("record.jsonl", 3)

    def repeated(*arguments, **options):
        raise AssertionError("round 3 was trained again")

    monkeypatch.setattr("fedsafe.federation.strategy.NoisyAverage.configure_train", repeated)
    resume(tmp_path / "run")
    assert essence(tmp_path / "run") == essence(whole.path)


def test_the_same_run_untouched_is_resumed(fedsafe, halfway, uninterrupted):
    """The damages above are what is refused, not the copying."""
    assert fedsafe("ledger", "verify", "run").code == 0
    assert fedsafe("run", "--resume", "run").code == 0
    assert essence(halfway) == essence(uninterrupted)


@pytest.mark.parametrize("damage", [missing_event, edited_event, older_ledger, other_key])
def test_ledger_verify_finds_what_was_touched(fedsafe, halfway, damage):
    damage(halfway)
    command = fedsafe("ledger", "verify", "run")
    assert command.code != 0
    assert len(command.err.splitlines()) == 1


def test_a_run_that_goes_on_elsewhere_cannot_be_resumed_a_second_time(begun, fedsafe):
    command, run = begun()
    until(lambda: recorded(run) >= 1, command)
    second = fedsafe("run", "--resume", "run")
    assert second.code != 0
    assert "in use by another process" in second.err
    assert f"pid {command.pid}" in second.err
    assert command.running()
    assert os.path.exists(f"/proc/{command.pid}")
