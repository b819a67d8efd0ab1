"""One experiment by ``fedsafe run``, by ``flwr run .``, and on a SuperLink with a SuperNode for each client.

    python benchmarks/flower_runtimes.py > result.json

Everything that Flower starts lives in a folder of its own and on free ports, and is ended before this returns. Needs
``/proc``, to find the SuperLink that ``flwr run .`` leaves behind.
"""

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import tomli_w

from fedsafe.runs import Run
from fedsafe.runs.config import Config, parse_config

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = ROOT / "experiments" / "flower.toml"
LOCAL, DEPLOYED = "local", "deployed"
_BIN = Path(sys.executable).parent
_PATIENCE = 60.0
_MARKER = "FEDSAFE_FLOWER_FOLDER"


class Flower:
    """Flower's processes in a folder; none outlives the context.

    Args:
        folder: For state, logs and Ray's sockets, whose paths must be short.
        env: Further environment of every process.
    """

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self._ports = _free_ports(3)
        self._started: list[subprocess.Popen[bytes]] = []
        self.env = {
            **os.environ,
            "PATH": f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            _MARKER: str(folder),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(self._ports[0]),
            "FLWR_LOCAL_CONTROL_API_PORT": str(self._ports[1]),
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
            "RAY_TMPDIR": str(folder / "ray"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            **env,
        }

    def __enter__(self) -> Self:
        """Write where the SuperLinks will be, and what to bundle."""
        home = self.folder / "flwr"
        home.mkdir(parents=True)
        (self.folder / "ray").mkdir()
        # Without the environment beside it, of which Flower would look at every file.
        self._app.mkdir()
        shutil.copy(ROOT / "pyproject.toml", self._app)
        shutil.copytree(EXPERIMENT.parent, self._app / EXPERIMENT.parent.name)
        links = {
            "default": LOCAL,
            LOCAL: {"address": ":local:"},
            DEPLOYED: {"address": self._address, "insecure": True},
        }
        (home / "config.toml").write_text(tomli_w.dumps({"superlink": links}))
        return self

    def __exit__(self, *_: object) -> None:
        """End every process."""
        self.stop()

    def deploy(self, nodes: int) -> None:
        """Start a SuperLink and its SuperNodes on this machine."""
        port = str(self._ports[2])
        self._start("superlink", "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", port)
        self.wait_until_healthy(DEPLOYED)
        for number, free in enumerate(_free_ports(nodes)):
            where = ("--superlink", self._address, "--host", "127.0.0.1", "--port", str(free))
            config = ("--node-config", f"partition-id={number}")
            self._start(f"supernode-{number}", "flower-supernode", "--insecure", *where, *config)

    def wait_until_healthy(self, link: str) -> None:
        """Wait for a SuperLink to answer."""
        port = self._ports[0] if link == LOCAL else self._ports[2]

        def healthy() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1.0) as reply:
                    return bool(reply.status == 200)
            except OSError:
                return False

        if not self._until(healthy, seconds=_PATIENCE):
            raise RuntimeError(f"the SuperLink of {link!r} did not start; see the logs in {self.folder}")

    def run(
        self, link: str, *, nodes: int, cpus: int | None = None, timeout: float = 600.0, **run_config: str
    ) -> str:
        """``flwr run .`` from a copy of what the repository bundles, to the end; what it printed.

        Args:
            link: The simulation engine, or what was deployed.
            nodes: How many to simulate.
            cpus: Processes of the simulation; one for each processor by default.
            timeout: Seconds.
            run_config: Values of ``[tool.flwr.app.config]``.
        """
        path = self.folder / f"run-{time.monotonic_ns()}.toml"
        path.write_text(tomli_w.dumps(run_config))
        command = ["flwr", "run", ".", link, "--stream", "--run-config", str(path)]
        if link == LOCAL:
            simulated = f"num-supernodes={nodes} client-resources-num-cpus=1"
            simulated += f" init-args-num-cpus={cpus}" if cpus is not None else ""
            command += ["--federation-config", simulated]
        done = subprocess.run(
            command,
            cwd=self._app,
            env=self._env_of("flwr"),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return done.stdout + done.stderr

    def log(self, name: str) -> str:
        """What a process that was started here has said."""
        return (self.folder / f"{name}.log").read_text()

    def living(self) -> dict[int, str]:
        """Process id and command of everything that was started from here, by whatever process."""
        marker = f"{_MARKER}={self.folder}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    # A process that has ended and waits for its parent has no environment left.
                    if marker in (entry / "environ").read_bytes().split(b"\0"):
                        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                        found[int(entry.name)] = command.decode(errors="replace").strip()
                except OSError:
                    continue
        return found

    def stop(self) -> None:
        """Ask every process to end, and end those that have not after ten seconds."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.living():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            self._until(lambda: not self.living(), seconds=10.0)
        for process in self._started:
            process.wait(10.0)

    def _env_of(self, name: str) -> dict[str, str]:
        # Two processes that unpack one bundle into one folder find each other's half.
        return {**self.env, "FLWR_HOME": str(self.folder / name)}

    @property
    def _app(self) -> Path:
        return self.folder / "app"

    @property
    def _address(self) -> str:
        return f"127.0.0.1:{self._ports[2]}"

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as file:
            process = subprocess.Popen(
                command,
                env=self._env_of(name),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)

    @staticmethod
    def _until(done: Callable[[], bool], *, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True


def compare_runtimes(config_text: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Run one experiment in all three ways.

    Args:
        config_text: The configuration as TOML, with ``federation.clients`` set.
        seeds: One run of each kind for each.

    Returns:
        For each runtime the accuracies, the wall seconds of each run, and the means and spread of both; and whether
        all of them came to the same privacy plan.

    Raises:
        RuntimeError: A run did not complete; the message has what it printed.
    """
    config = parse_config(config_text)
    folder = Path(tempfile.mkdtemp(prefix="fsf"))
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        (folder / "config.toml").write_text(config_text)
        with Flower(folder / "f") as flower:
            flower.deploy(_clients(config))
            ways = {
                "fedsafe run": _by_fedsafe,
                "flwr run . (simulation engine)": partial(_by_flower, flower, LOCAL, config),
                "flwr run . (SuperLink and SuperNodes)": partial(_by_flower, flower, DEPLOYED, config),
            }
            for number, (name, way) in enumerate(ways.items()):
                found[name] = [_timed(way, folder, folder / f"out-{number}-{seed}", seed) for seed in seeds]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "seeds": list(seeds),
        "clients": _clients(config),
        "rounds": config.rounds,
        "same_plan": all(
            len({run["plan"] for run in same}) == 1 for same in zip(*found.values(), strict=True)
        ),
        "runtimes": {name: _summary(runs) for name, runs in found.items()},
    }


def _clients(config: Config) -> int:
    if config.federation.clients is None:
        raise ValueError("set federation.clients: that many nodes are started")
    return config.federation.clients


def _by_fedsafe(folder: Path, out: Path, seed: int) -> str:
    command = [sys.executable, "-m", "fedsafe", "run", str(folder / "config.toml"), "--out", str(out)]
    done = subprocess.run(
        [*command, "--set", f"seed={seed}"], cwd=folder, capture_output=True, text=True, timeout=600.0
    )
    return done.stdout + done.stderr


def _by_flower(flower: Flower, link: str, config: Config, folder: Path, out: Path, seed: int) -> str:
    return flower.run(
        link,
        nodes=_clients(config),
        config=str(folder / "config.toml"),
        out=str(out),
        overrides=f"seed={seed}",
    )


def _timed(way: Callable[[Path, Path, int], str], folder: Path, out: Path, seed: int) -> dict[str, Any]:
    began = time.perf_counter()
    printed = way(folder, out, seed)
    seconds = time.perf_counter() - began
    run = Run(out)
    if not out.is_dir() or run.end is None:
        raise RuntimeError(f"a run did not complete:\n{printed}")
    return {"accuracy": run.accuracy, "seconds": seconds, "plan": run.start.plan["hash"]}


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    accuracies, seconds = ([run[key] for run in runs] for key in ("accuracy", "seconds"))
    return {
        "accuracies": accuracies,
        "accuracy_mean": statistics.mean(accuracies),
        "accuracy_spread": max(accuracies) - min(accuracies),
        "seconds": [round(value, 1) for value in seconds],
        "seconds_median": round(statistics.median(seconds), 1),
    }


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now; all are held until all are known."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


if __name__ == "__main__":
    print(json.dumps(compare_runtimes(EXPERIMENT.read_text(), range(3)), indent=2))
