"""The lines of data and traffic of deployment: what a client's file may be, and how many bytes a round is.

    python benchmarks/accept_deploy_data.py          # by itself, a few minutes; writes results/deploy_data.json
    python benchmarks/accept_deploy.py               # as a part of all lines of deployment

Two clients reach the server through a relay on loopback that counts every byte that TCP carries: TLS, HTTP, polling and
heartbeats.
"""

import contextlib
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import tomli_w
from deployment import SERVER, Deployment, free_ports
from lines import Lines, fedsafe

from fedsafe.data.dataset import hold_out
from fedsafe.deploy.driving import lines_of
from fedsafe.deploy.federation import Client, Federation, read_client
from fedsafe.deploy.folder import Wanted, write_federation
from fedsafe.deploy.pages import write_client_commands

NAMES = ("north", "south")
ROWS, ROUNDS = 200, 5
MOST_OVER = 0.05
SLOW = 600.0
SCHEMA: dict[str, Any] = {
    "format": "fedsafe.schema/1",
    "label": {"column": "ill", "classes": ["no", "yes"]},
    "columns": {
        "age": {"kind": "numeric", "low": 20, "high": 90},
        "smokes": {"kind": "categorical", "categories": ["no", "yes"]},
    },
}
EXPERIMENT: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [158, 158]},  # 26,071 parameters, in six tensors
    "rounds": ROUNDS,
    "federation": {"cohort": {"name": "poisson", "rate": 1.0}},
    "client": {"steps": 2, "rate": 0.2, "optimizer": {"name": "sgd", "lr": 0.5}},
    "server": {"aggregator": "fedavg"},
    "privacy": {"record": {"epsilon": 3.0, "delta": 1e-5}, "client": {"epsilon": float("inf")}},
}


@dataclass
class Relay:
    """Carries TCP connections to a port of this machine, and counts.

    Args:
        to: The port.
    """

    to: int
    up: int = 0
    down: int = 0
    connections: int = 0
    _listening: socket.socket = field(default_factory=socket.socket)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def __enter__(self) -> Self:
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                near.close()  # the server is not there yet; the client tries again
                continue
            with self._lock:
                self.connections += 1
            threading.Thread(target=self._carry, args=(near, far, "up"), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, "down"), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                with self._lock:
                    setattr(self, way, getattr(self, way) + len(data))
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Count:
    """What a relay had carried when so many rounds were recorded."""

    rounds: int
    seconds: float
    up: int
    down: int
    connections: int


def federation_of(folder: Path, parameters_of: dict[str, Any] = EXPERIMENT) -> Federation:
    """Two clients with records that follow the schema."""
    given = folder.with_name(f"{folder.name}-given")
    given.mkdir(parents=True)
    (given / "schema.toml").write_text(tomli_w.dumps(SCHEMA))
    (given / "experiment.toml").write_text(tomli_w.dumps(parameters_of))
    wanted = Wanted(
        name="traffic",
        clients=tuple(Client(name=name) for name in NAMES),
        port=free_ports(1)[0],
        config=given / "experiment.toml",
        schema=given / "schema.toml",
        records=dict.fromkeys(NAMES, len(hold_out(ROWS, 0.2, 0)[1])),
    )
    federation = write_federation(folder, wanted)
    for number, name in enumerate(NAMES):
        (federation.client_folder(name) / "records" / "patients.csv").write_text("\n".join(table(number)))
    return federation


def table(seed: int) -> list[str]:
    """The lines of a client's file."""
    rng = np.random.default_rng(seed)
    lines = ["age,smokes,ill"]
    for _ in range(ROWS):
        age, smokes = int(rng.integers(20, 90)), bool(rng.random() < 0.4)
        ill = age / 90 + 0.4 * smokes + rng.normal(0, 0.2) > 0.8
        lines.append(f"{age},{'yes' if smokes else 'no'},{'yes' if ill else 'no'}")
    return lines


def counted(relay: Relay, record: Path, done: threading.Event) -> Iterator[Count]:
    """One count each time that a round was recorded."""
    before = -1
    while True:
        ended = done.wait(0.05)
        rounds = sum(line.get("kind") == "round" for line in lines_of(record))
        if rounds != before:
            yield Count(rounds, time.monotonic(), relay.up, relay.down, relay.connections)
            before = rounds
        if ended:
            return


def traffic(lines: Lines, folder: Path) -> None:
    """The 26k-parameter model over five rounds, through the relay."""
    federation = federation_of(folder / "traffic")
    with Relay(federation.port) as relay, Deployment(federation, OMP_NUM_THREADS="1") as deployment:
        for name in federation.names:
            own = read_client(federation.client_folder(name))
            replace(own, server=f"127.0.0.1:{relay.port}").write()
            write_client_commands(federation, name)
        deployment.start_all()
        deployment.wait_until_connected(SLOW)
        done, counts = threading.Event(), list[Count]()
        record = federation.server / "runs" / "run-1" / "record.jsonl"
        watch = threading.Thread(target=lambda: counts.extend(counted(relay, record, done)))
        watch.start()
        words = ("start", str(federation.folder), "--wait-for-nodes", "300")
        started = deployment.command(*words, timeout=3000)
        done.set()
        watch.join()
        if started.returncode != 0:
            raise RuntimeError(f"{started.stderr.strip()} {deployment.log(SERVER)[-2000:]}")
        predicted = deployment.command("predict", str(federation.folder))
    _add_traffic(lines, federation, counts)
    shown = json.loads((federation.folder / "prediction.json").read_text())
    lines.add(
        "the realised spend is never above the predicted, and both are shown beside each other",
        f"fedsafe deploy predict {federation.folder}",
        f"exit {predicted.returncode}; {'; '.join(predicted.stdout.strip().splitlines()[2:-1])}",
        met=predicted.returncode == 0
        and bool(shown["realised"])
        and all(client["told_by"] == "gate" for client in shown["realised"]["clients"].values()),
    )


def _add_traffic(lines: Lines, federation: Federation, counts: list[Count]) -> None:
    first = next(count for count in counts if count.rounds == 1)
    last = next(count for count in counts if count.rounds == ROUNDS)
    start = lines_of(federation.server / "runs" / "run-1" / "record.jsonl")[0]
    parameters = int(start["model"]["parameters"])
    share = (ROUNDS - 1) * len(federation.names)
    up, down = (last.up - first.up) / share, (last.down - first.down) / share
    twice = 2 * 4 * parameters
    joining = (first.up + first.down) / len(federation.names) - up - down
    seconds = (last.seconds - first.seconds) / (ROUNDS - 1)
    replies = [
        path.stat().st_size
        for name in federation.names
        for path in (federation.client_folder(name) / "state" / "replies").glob("*.reply")
    ]
    lines.add(
        "for the 26k-parameter model, traffic per round and client is the model twice plus under 5 %",
        "fedsafe deploy start DIR, with a relay between SuperNodes and SuperLink",
        f"{parameters} parameters are {twice // 2} bytes; up {up:.0f}, down {down:.0f} bytes per round and client: the "
        f"model twice and {100 * ((up + down) / twice - 1):+.2f} %, TLS, polling and heartbeats included; rounds of "
        f"{seconds:.1f} s, {last.connections - first.connections} new connections in {ROUNDS - 1} rounds; joining, "
        f"once: {joining:.0f} bytes for a client; a reply is {max(replies)} bytes",
        met=up + down < (1 + MOST_OVER) * twice,
    )


BAD = {
    "a wrong column": ("header", "age,smoker,ill", ("smokes",)),
    "a category outside the schema": (7, "44,sometimes,no", ("smokes", "sometimes")),
    "NaN": (9, "nan,no,no", ("age",)),
    "a value outside its range": (11, "143,no,no", ("age",)),
}


def files(lines: Lines, folder: Path) -> None:
    """Files that are not as the schema says."""
    federation = federation_of(folder / "files")
    own = federation.client_folder(NAMES[0])
    path = own / "records" / "patients.csv"
    good = path.read_text()
    checked = fedsafe("data", "check", str(own))
    lines.add(
        "a data file that is as the schema says passes",
        "fedsafe data check CLIENT_DIR",
        f"exit {checked.returncode}: {checked.stdout.strip()}",
        met=checked.returncode == 0,
    )
    for line, (row, text, said) in BAD.items():
        rows = good.splitlines()
        rows[0 if row == "header" else row] = text
        path.write_text("\n".join(rows))
        checked = fedsafe("data", "check", str(own))
        words = checked.stdout + checked.stderr
        named = [*said] if row == "header" else [*said, str(row)]
        lines.add(
            f"a data file with {line} is refused locally, with row and column",
            "fedsafe data check CLIENT_DIR",
            f"exit {checked.returncode}: {words.strip().splitlines()[0] if words.strip() else ''}",
            met=checked.returncode != 0 and all(word in words for word in named),
        )


def measure(lines: Lines, folder: Path) -> None:
    """Add the lines of data and traffic."""
    with lines.section("data files", "fedsafe data check CLIENT_DIR"):
        files(lines, folder)
    with lines.section("traffic", "fedsafe deploy start DIR"):
        traffic(lines, folder)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        measured = Lines(Path(name))
        measure(measured, Path(name))
        sys.exit(measured.write("deploy_data"))
