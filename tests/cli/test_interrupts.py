"""Ctrl-C stops within seconds, keeps finished rounds, says how to resume, and leaves no process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from quiet_environment import QUIET

SLOW = {
    "rounds": 40,
    "assess__every": 1,
    "assess__assessors": ["performance", "tiny_federation:SlowAssessor"],
}


def recorded(run: Path) -> int:
    path = run / "record.jsonl"
    return path.read_text().count('"kind":"round"') if path.exists() else 0


def until(condition, alive, seconds=120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert alive()
        assert time.monotonic() < end
        time.sleep(0.01)


def within(seconds: float) -> float:
    """These seconds on a machine with nothing else to do; more by what others take of this one's processors."""
    began, used = time.monotonic(), time.process_time()
    while time.process_time() - used < 0.1:
        pass
    return seconds * max(1.0, (time.monotonic() - began) / 0.1)


def test_during_the_rounds(start, fedsafe, tiny_toml, tmp_path):
    command = start("run", tiny_toml(**SLOW), "--out", "run", "--json")
    until(lambda: recorded(tmp_path / "run") >= 2, command.running)
    command.signal(signal.SIGINT)
    assert command.wait(within(5.0)) == 130
    assert command.err.splitlines()[-1] == (
        "interrupted: finished rounds are kept; go on with: fedsafe run --resume run"
    )
    assert "Traceback" not in command.err
    assert command.out == ""
    done = recorded(tmp_path / "run")
    assert 2 <= done < 40
    assert fedsafe("ledger", "verify", "run").code == 0
    again = start("run", "--resume", "run")
    until(lambda: recorded(tmp_path / "run") > done, again.running)
    again.signal(signal.SIGINT)
    assert again.wait(within(5.0)) == 130


def test_before_the_rounds(start, tiny_toml, tmp_path):
    """Calibrating this plan takes seconds, and is not remembered by the fork server."""
    command = start("run", tiny_toml(privacy__record__epsilon=7.7, rounds=300), "--out", "run")
    until(lambda: "calibrating" in command.out, command.running)
    time.sleep(0.3)
    command.signal(signal.SIGINT)
    assert command.wait(within(5.0)) == 130
    assert command.err == "interrupted: nothing was started\n"
    assert not (tmp_path / "run").exists()


@pytest.fixture
def ray_command(tmp_path, ray_temp):
    """Starts a real command that starts a Ray of its own, in a session of its own."""
    started: list[subprocess.Popen] = []
    environment = {**os.environ, **QUIET, "RAY_TMPDIR": str(ray_temp)}

    def begin(*words: object) -> subprocess.Popen:
        with (tmp_path / "ray.out").open("w") as out, (tmp_path / "ray.err").open("w") as err:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "fedsafe", *map(str, words)],
                    cwd=tmp_path,
                    env=environment,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            )
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pid in session_of(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def session_of(process: subprocess.Popen) -> dict[int, str]:
    """Living processes that this command has started, and their descendants: all share its session."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == process.pid and fields[0] != "Z":
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except (OSError, ValueError, IndexError):
            continue
    return found


def gone(process: subprocess.Popen, word: str = "") -> bool:
    """Whether no process of the command with this word in its command line is left, within seconds."""
    end = time.monotonic() + within(10.0)
    while left := [line for line in session_of(process).values() if word in line]:
        if time.monotonic() > end:
            return not left
        time.sleep(0.1)
    return True


def said(tmp_path: Path) -> str:
    return (tmp_path / "ray.err").read_text()


def test_with_ray_before_the_rounds(ray_command, tiny_toml, tmp_path):
    process = ray_command("run", tiny_toml(engine__name="ray", engine__workers=1), "--out", "run")
    until(lambda: len(session_of(process)) > 2, lambda: process.poll() is None)  # Ray's first processes
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to Ray's processes too
    assert process.wait(within(5.0)) == 130
    assert said(tmp_path) == "interrupted: nothing was started\n"
    assert not (tmp_path / "run").exists()
    assert gone(process)


def test_with_ray_during_the_rounds_and_killed_after_a_resume(ray_command, fedsafe, tiny_toml, tmp_path):
    path = tiny_toml(**{**SLOW, "rounds": 5}, engine__name="ray", engine__workers=1)
    run = tmp_path / "run"
    process = ray_command("run", path, "--out", "run", "--reproducible")
    until(lambda: recorded(run) >= 1, lambda: process.poll() is None)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(within(5.0)) == 130
    assert said(tmp_path) == "interrupted: finished rounds are kept; go on with: fedsafe run --resume run\n"
    assert gone(process)

    done = recorded(run)
    process = ray_command("run", "--resume", "run")
    until(lambda: recorded(run) > done, lambda: process.poll() is None)
    process.kill()
    process.wait()
    # Two agents of Ray's own linger for a minute; whoever holds records and the key must not.
    for word in ("_Worker", "raylet --", "gcs_server"):
        assert gone(process, word)
    assert recorded(run) < 5

    assert fedsafe("run", "--resume", "run", "--engine", "inline").code == 0
    path = tiny_toml(**{**SLOW, "rounds": 5})
    assert fedsafe("run", path, "--out", "whole", "--reproducible").code == 0
    assert (run / "findings.jsonl").read_bytes() == (tmp_path / "whole" / "findings.jsonl").read_bytes()
    assert digests(run) == digests(tmp_path / "whole")


def digests(run: Path) -> list[str]:
    from fedsafe.records import Round
    from fedsafe.store import RunFolder

    return [line.parameters_sha256 for line in RunFolder.open(run).record() if isinstance(line, Round)]
