"""The FLUTE benchmark against Flower's simulation: logistic regression on MNIST, 1,000 clients of very unequal size.

    python benchmarks/flute.py

Ten clients a round train one epoch in batches of 10, for 100 rounds, without privacy (Garcia and others, 2022, give the
times of FLUTE and of Flower 1.0). Client k of 1,000 has records in proportion to k^-0.8, and ten at least. FedSafe's
batches are Poisson: six steps that each take a sixth of a client's records, ten of an average client. The peer shuffles
and takes tens, so that its large clients make more steps. Both measure each round's model on the 10,000 test digits.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from comparing import Comparison, Limit, run_json, script
from flower_rounds import flower_run, seconds_between
from our_rounds import WORKERS, seconds_of
from workloads import mapped

from fedsafe.data import load_task

CLIENTS, COHORT, ROUNDS, PEER_ROUNDS = 1000, 10, 100, 100
STEPS, LEARNING_RATE = 6, 0.03
PEER = "peers.flower_flute"


def client_sizes(records: int, clients: int) -> np.ndarray:
    """``(clients,)`` whole numbers that sum to ``records``: a power law above ten."""
    weights = np.arange(1, clients + 1) ** -0.8
    sizes = 10 + np.floor((records - 10 * clients) * weights / weights.sum()).astype(np.int64)
    sizes[0] += records - sizes.sum()
    return sizes


@contextmanager
def mnist(clients: int) -> Iterator[Path]:
    """A folder with the digits of all clients, one client's after another's, and where each client's begin."""
    task = load_task("mnist-writers")
    order = np.random.default_rng(0).permutation(len(task.train))
    sizes = client_sizes(len(order), clients)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, examples, rows in (("", task.train, order), ("test-", task.evaluation, slice(None))):
            np.save(folder / f"{part}x.npy", examples.x[rows].reshape(-1, 784))
            np.save(folder / f"{part}y.npy", examples.y[rows])
        np.save(folder / "starts.npy", np.concatenate([[0], np.cumsum(sizes)]))
        yield folder


def ours(folder: Path) -> dict[str, Any]:
    """The whole job through ``fedsafe.run``, in this process and its workers."""
    x, y = mapped(folder)
    sizes = np.diff(np.load(folder / "starts.npy"))
    about = {
        "low": 0.0,
        "high": 1.0,
        "classes": 10,
        "holders": {"client": np.repeat(np.arange(len(sizes)).astype(str), sizes)},
        "evaluation": (np.load(folder / "test-x.npy"), np.load(folder / "test-y.npy")),
        "evaluation_public": True,
    }
    off = {"epsilon": float("inf")}
    config = {
        "model": "logistic",
        "rounds": ROUNDS,
        "federation": {
            "partition": {"name": "natural", "by": "client"},
            "cohort": {"rate": COHORT / len(sizes)},
        },
        "client": {"optimizer": {"lr": LEARNING_RATE}, "steps": STEPS, "rate": 1.0 / STEPS},
        "server": {"optimizer": {"lr": 1.0, "momentum": 0.0}},
        "privacy": {"record": off, "client": off},
        "assess": {"every": ROUNDS, "assessors": ["performance"]},
        "engine": {"name": "ray", "workers": WORKERS},
    }
    return seconds_of(config, data=(x, y), about=about)


def compare(*, peer_rounds: int) -> Comparison:
    """Seconds of a round on both, and of FedSafe's whole job from start to end."""
    with mnist(CLIENTS) as folder:
        found = run_json([sys.executable, __file__, "ours", str(folder)])
        theirs = flower_run(
            PEER, PEER, CLIENTS, rounds=peer_rounds + 1, fraction=COHORT / CLIENTS, data=str(folder)
        )
    accuracy = theirs["rounds"][-1]["accuracy"]
    return Comparison(
        work=f"FLUTE: logistic regression on MNIST, {CLIENTS:,} unequal clients, {COHORT} a round, {ROUNDS} rounds",
        peer="Flower's simulation, a plain PyTorch client",
        unit="s per round",
        ours=found["rounds"],
        theirs=seconds_between(theirs["rounds"]),
        least=20.0,
        limits=[Limit(name="the whole job", value=found["seconds"], most=20.0, unit="s")],
        notes=f"Flower took {theirs['seconds']:.1f} s in all for {peer_rounds + 1} rounds; accuracy "
        f"{found['metrics']['accuracy']:.3f} after {ROUNDS} rounds, Flower's {accuracy:.3f} after {peer_rounds + 1}",
    )


def measure(repeats: int) -> Sequence[Comparison]:
    return [compare(peer_rounds=min(PEER_ROUNDS - 1, 20 * repeats))]


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        print(json.dumps(ours(Path(sys.argv[2]))))
    else:
        script(measure)
