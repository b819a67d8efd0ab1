"""What several packages' tests share: a fork server for commands, and one Ray for all."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from quiet_environment import QUIET, TESTS

# How fast a machine is, and what else runs on it, is nothing to test.
settings.register_profile("fedsafe", deadline=None)
settings.load_profile("fedsafe")


@dataclass
class Command:
    """One ``fedsafe`` process."""

    pid: int
    files: tuple[Path, Path]
    poll: Callable[[int], int | None]
    code: int | None = field(default=None)

    def running(self) -> bool:
        if self.code is None:
            self.code = self.poll(self.pid)
        return self.code is None

    def wait(self, seconds: float = 120.0) -> int:
        end = time.monotonic() + seconds
        while self.running():
            if time.monotonic() > end:
                self.signal(signal.SIGKILL)
                raise TimeoutError(f"still running after {seconds} s: {self.err}")
            time.sleep(0.01)
        assert self.code is not None
        return self.code

    def signal(self, number: int) -> None:
        if self.running():
            os.kill(self.pid, number)

    @property
    def out(self) -> str:
        return self.files[0].read_text() if self.files[0].exists() else ""

    @property
    def err(self) -> str:
        return self.files[1].read_text() if self.files[1].exists() else ""


@pytest.fixture(scope="session")
def command_server() -> Iterator[Callable[[dict[str, Any]], Any]]:
    server = subprocess.Popen(
        [sys.executable, TESTS / "command_server.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **QUIET},
    )
    assert server.stdin is not None
    assert server.stdout is not None
    assert json.loads(server.stdout.readline()) == "ready"

    def ask(request: dict[str, Any]) -> Any:
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    yield ask
    server.stdin.close()
    server.wait(60)
    server.stdout.close()


@pytest.fixture
def start(command_server: Any, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """``start("run", ...)`` starts a command in the test's folder and returns at once."""
    started: list[Command] = []
    said = tmp_path / "said"
    said.mkdir()

    def begin(*argv: object, env: dict[str, str] | None = None) -> Command:
        files = (said / f"{len(started)}.out", said / f"{len(started)}.err")
        request = {
            "argv": [str(word) for word in argv],
            "cwd": str(tmp_path),
            "env": env or {},
            "out": str(files[0]),
            "err": str(files[1]),
        }
        pid = command_server(request)
        started.append(Command(pid, files, lambda pid: command_server({"poll": pid})))
        return started[-1]

    yield begin
    for command in started:
        command.signal(signal.SIGKILL)
        command.wait()


@pytest.fixture
def fedsafe(start: Callable[..., Command]) -> Callable[..., Command]:
    """``fedsafe("run", ...)`` runs a command to its end."""

    def run(*argv: object, env: dict[str, str] | None = None) -> Command:
        command = start(*argv, env=env)
        command.wait()
        return command

    return run


@pytest.fixture
def tiny_toml(tmp_path: Path) -> Callable[..., Path]:
    """``tiny_toml(rounds=5)`` writes the tiny configuration with changes and returns its path."""
    import tomli_w
    from tiny_federation import config

    def write(**changes: Any) -> Path:
        path = tmp_path / "tiny.toml"
        path.write_text(tomli_w.dumps(config(**changes)))
        return path

    return write


@pytest.fixture(scope="session")
def ray_temp() -> Iterator[Path]:
    """A folder for Ray's sessions; its sockets need a short path."""
    folder = Path(tempfile.mkdtemp(prefix="fsr"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def ray_of_two(ray_temp: Path) -> Iterator[None]:
    """One Ray of two processors for every test in this process."""
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "RAY_TMPDIR", "OMP_NUM_THREADS")}
    os.environ.update(PYTHONPATH=f"{TESTS}:{TESTS / 'engine'}", RAY_TMPDIR=str(ray_temp), OMP_NUM_THREADS="1")
    from fedsafe.engine.cluster import start_ray, stop_ray

    with warnings.catch_warnings():
        # Ray leaves its log files, and then its processes, to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        assert start_ray(2)
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        stop_ray()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="session")
def real_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``real_command("--help")``: the command as a user starts it, in a new interpreter."""

    def run(*argv: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        words: Sequence[str] = [sys.executable, "-m", "fedsafe", *map(str, argv)]
        return subprocess.run(
            words, capture_output=True, text=True, cwd=cwd, env={**os.environ, **QUIET, **env}, timeout=120
        )

    return run
