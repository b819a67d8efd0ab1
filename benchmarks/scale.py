"""A million registered clients, ten thousand of them in a round: memory of all processes, and where time goes.

Logistic regression on generated records, which lie in files and stay there. Every run takes the ordinary way: a
process of its own calls ``fedsafe.run`` on Ray with two workers, both levels of privacy on, and the ledger on.

    python benchmarks/scale.py            # every line; writes results/scale.json and results/scale.svg
    python benchmarks/scale.py --quick    # a hundredth of the clients, to try it
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lines import ROOT, Lines

RECORDS, FEATURES = 50, 8
WORKERS, ROUNDS = 2, 3
# Of which the first is left out of the times: kernels and caches are warm after it.
TIMED_ROUNDS = 11
MEMORY_LIMIT = 4e9
_EVERY = 0.2  # seconds between two looks at the memory


def write_records(folder: Path, clients: int) -> None:
    """``x.npy`` and ``y.npy``, client by client, and evaluation records beside them."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(FEATURES)
    for name, records in (("", clients * RECORDS), ("judged_", 2000)):
        x = np.lib.format.open_memmap(
            folder / f"{name}x.npy", mode="w+", dtype=np.float32, shape=(records, FEATURES)
        )
        y = np.lib.format.open_memmap(folder / f"{name}y.npy", mode="w+", dtype=np.int64, shape=(records,))
        for first in range(0, records, 1 << 20):
            part = rng.uniform(-1.0, 1.0, (min(1 << 20, records - first), FEATURES)).astype(np.float32)
            x[first : first + len(part)] = part
            y[first : first + len(part)] = part @ truth + 0.3 * rng.standard_normal(len(part)) > 0
        x.flush()
        y.flush()


def train(folder: Path, out: Path, clients: int, cohort: int, rounds: int) -> None:
    """One run, in this process."""
    import fedsafe
    from fedsafe.data import as_task

    def opened(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy", mmap_mode="r")

    records = slice(0, clients * RECORDS)
    data = as_task(
        (opened("x")[records], opened("y")[records], opened("judged_x"), opened("judged_y")),
        low=-1.0,
        high=1.0,
        evaluation_public=True,
    )
    config = {
        "model": "logistic",
        "rounds": rounds,
        "federation": {
            "clients": clients,
            "partition": {"name": "contiguous"},
            "cohort": {"rate": cohort / clients},
        },
        "client": {"steps": 2, "rate": 0.5},
        "assess": {"every": rounds, "assessors": ["performance"]},
        "engine": {"name": "ray", "workers": WORKERS},
    }
    ticks = [time.perf_counter()]

    class Clock:
        def on_start(self, *_: Any) -> None: ...
        def on_round(self, _: Any) -> None:
            ticks.append(time.perf_counter())

        def on_assessment(self, _: Any) -> None: ...
        def on_end(self, _: Any) -> None: ...

    run = fedsafe.run(config, data=data, out=out, callbacks=[Clock()])
    timings = [json.loads(line) for line in (out / "private" / "timings.jsonl").read_text().splitlines()]
    result = {
        "start_seconds": ticks[1] - ticks[0] - timings[0]["seconds"],
        "round_seconds": np.diff(ticks[1:]).tolist(),
        "worker_cpu_seconds": [line["cpu_seconds"] for line in timings],
        "accuracy": run.accuracy,
        "failures": sum(line["failures"] for line in timings),
    }
    print(json.dumps(result))


def measured(folder: Path, clients: int, cohort: int, rounds: int, *, memory: bool = False) -> dict[str, Any]:
    """One run, in processes of its own, and with `memory` the most that they held together at any time.

    To look at the memory takes a processor's time, so that rounds are timed without it.
    """
    with tempfile.TemporaryDirectory() as out:
        numbers = [str(number) for number in (clients, cohort, rounds)]
        command = [sys.executable, __file__, "--one", str(folder), f"{out}/run", *numbers]
        began, peak, parts = time.perf_counter(), 0.0, {}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | _SETTINGS)
        while process.poll() is None:
            now = dict(_memory(process.pid)) if memory else {}
            if sum(now.values()) > peak:
                peak, parts = sum(now.values()), now
            time.sleep(_EVERY)
        said = process.stdout.read() if process.stdout else ""
        if process.returncode:
            raise RuntimeError(f"the run of {clients} clients failed with {process.returncode}")
    return {
        "clients": clients,
        "cohort": cohort,
        **json.loads(said.splitlines()[-1]),
        "seconds": time.perf_counter() - began,
        **(
            {"peak_bytes": peak, "peak_by_process": dict(sorted(parts.items(), key=lambda part: -part[1]))}
            if memory
            else {}
        ),
    }


_SETTINGS = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def _memory(root: int) -> Iterator[tuple[str, float]]:
    """Each process under ``root``, and its share of the memory that it uses (PSS), Ray's object store included."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        pss = next((int(line.split()[1]) for line in rollup if line.startswith("Pss:")), 0)
        yield f"{name} {pid}", pss * 1024.0


def straight(x: list[float], y: list[float]) -> tuple[float, float, float]:
    """Slope, intercept and R squared of the least-squares line."""
    slope, intercept = np.polyfit(x, y, 1)
    rest = np.array(y) - (slope * np.array(x) + intercept)
    return float(slope), float(intercept), float(1.0 - rest.var() / np.var(y))


def plot(cohorts: list[dict[str, Any]], populations: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2)
    sizes, times = [row["cohort"] for row in cohorts], [row["median_seconds"] for row in cohorts]
    slope, intercept, r2 = straight(sizes, times)
    left.plot(sizes, times, "o")
    left.plot(sizes, [slope * size + intercept for size in sizes], "-", linewidth=1)
    left.set(
        xlabel="clients in a round",
        ylabel="seconds a round",
        title=f"{cohorts[0]['clients']:,} registered, R² = {r2:.4f}",
    )
    right.semilogx(
        [row["clients"] for row in populations], [row["median_seconds"] for row in populations], "o-"
    )
    right.set(xlabel="registered clients", title=f"{populations[0]['cohort']:,} in a round")
    for axes in (left, right):
        axes.set_ylim(bottom=0.0)
        axes.grid(alpha=0.3)
    figure.savefig(path)


def main(lines: Lines, *, population: int = 1_000_000, cohort: int = 10_000) -> dict[str, Any]:
    """Every line of scale; returns the measured numbers."""
    command = "python benchmarks/scale.py"
    sizes = [cohort * quarter // 4 for quarter in (1, 2, 3, 4)]
    some = [population // 100, population // 25, population // 5, population]
    folder = lines.folder / "scale"
    folder.mkdir()
    write_records(folder, population)
    whole = measured(folder, population, cohort, ROUNDS, memory=True)
    gigabytes = whole["peak_bytes"] / 1e9
    lines.add(
        f"{population:,} registered, {cohort:,} per round: {ROUNDS} rounds finish under {MEMORY_LIMIT / 1e9:g} GB",
        command,
        f"peak {gigabytes:.2f} GB of all processes (PSS), {whole['seconds']:.1f} s in all, "
        f"{np.median(whole['round_seconds']):.2f} s a round, {whole['failures']} failures, "
        f"accuracy {whole['accuracy']:.3f}",
        met=whole["peak_bytes"] < MEMORY_LIMIT and whole["failures"] == 0,
    )
    cohorts = [_timed(folder, population, size) for size in sizes]
    slope, intercept, r2 = straight(sizes, [row["median_seconds"] for row in cohorts])
    cpu = straight(sizes, [float(np.median(row["worker_cpu_seconds"][1:])) for row in cohorts])
    lines.add(
        "a round takes time linear in its clients: R² of at least 0.99 over four sizes",
        command,
        f"R² = {r2:.4f}: {1e6 * slope:.0f} µs a client and {1e3 * intercept:.0f} ms; workers' processor time: "
        f"R² = {cpu[2]:.4f}, {1e6 * cpu[0]:.0f} µs a client",
        met=r2 >= 0.99,
    )
    populations = [*(_timed(folder, clients, sizes[0]) for clients in some[:-1]), cohorts[0]]
    times = [row["median_seconds"] for row in populations]
    lines.add(
        f"{some[-1]:,} registered clients add at most 0.5 s to a round of {some[0]:,}",
        command,
        f"{times[-1] - times[0]:+.3f} s: {', '.join(f'{n:,}: {t:.3f}' for n, t in zip(some, times, strict=True))} s",
        met=max(times) - times[0] <= 0.5,
    )
    plot(cohorts, populations, ROOT / "benchmarks" / "results" / "scale.svg")
    return {"whole": whole, "cohorts": cohorts, "populations": populations}


def _timed(folder: Path, clients: int, cohort: int) -> dict[str, Any]:
    row = measured(folder, clients, cohort, TIMED_ROUNDS)
    return {**row, "median_seconds": float(np.median(row["round_seconds"]))}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        train(Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:7]))
        sys.exit()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a hundredth of the clients")
    size = {"population": 10_000, "cohort": 100} if parser.parse_args().quick else {}
    with tempfile.TemporaryDirectory() as temporary:
        found = Lines(Path(temporary))
        numbers = main(found, **size)
        sys.exit(found.write("scale", **numbers) if not size else 0)
