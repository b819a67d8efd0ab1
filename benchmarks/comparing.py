"""Side-by-side timings: what was measured on both sides, how many times faster one is, and how it is printed."""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A measured value that may be at most so large."""

    name: str
    value: float
    most: float
    unit: str

    @property
    def met(self) -> bool:
        return self.value <= self.most

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3g} {self.unit} (at most {self.most:g})"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The same work by FedSafe and by a peer.

    Args:
        work: What is done.
        peer: Who else does it.
        unit: Of both lists.
        ours: Measured for FedSafe.
        theirs: Measured for the peer.
        least: How many times faster FedSafe is to be; None where only the limits count.
        paired: Whether the two lists were measured in turns, one by one.
        limits: What else is to hold.
        notes: What a reader should know about how it was measured.
    """

    work: str
    peer: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]
    least: float | None = None
    paired: bool = False
    limits: Sequence[Limit] = ()
    notes: str = ""

    @property
    def ratio(self) -> float:
        """Median ratio of pairs, or ratio of medians."""
        if self.paired:
            return statistics.median(self._ratios())
        return statistics.median(self.theirs) / statistics.median(self.ours)

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest ratio; without pairs, of the middle four fifths of all pairs."""
        ordered = sorted(self._ratios())
        cut = 0 if self.paired else len(ordered) // 10
        return ordered[cut], ordered[-1 - cut]

    @property
    def met(self) -> bool:
        return (self.least is None or self.ratio >= self.least) and all(limit.met for limit in self.limits)

    def _ratios(self) -> list[float]:
        pairs = zip(self.theirs, self.ours, strict=True) if self.paired else product(self.theirs, self.ours)
        return [theirs / ours for theirs, ours in pairs]

    def __str__(self) -> str:
        low, high = self.spread
        found = (
            f"{self.ratio:.1f}x ({low:.1f} to {high:.1f}), median {statistics.median(self.theirs):.4g} against "
            f"{statistics.median(self.ours):.4g} {self.unit} ({len(self.theirs)} and {len(self.ours)} times)"
        )
        wanted = [] if self.least is None else [f"at least {self.least:g}x"]
        return "; ".join([found, *wanted, *map(str, self.limits), *([self.notes] if self.notes else [])])

    def to_json(self) -> dict[str, Any]:
        """All that was measured, and what follows from it."""
        return {**asdict(self), "ratio": self.ratio, "spread": list(self.spread), "met": self.met}


def from_json(values: Mapping[str, Any]) -> Comparison:
    """What :meth:`Comparison.to_json` gave."""
    rest = {key: value for key, value in values.items() if key not in ("ratio", "spread", "met")}
    return Comparison(**{**rest, "limits": [Limit(**limit) for limit in values["limits"]]})


@dataclass
class Interleaved:
    """CPU seconds of two functions, measured in turns in one process."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    def run(self, ours: Callable[[], float | None], theirs: Callable[[], float | None], repeats: int) -> None:
        """Time both so often, after one call of each that does not count.

        A function that times itself, because not all it does is to be compared, returns the seconds.
        """
        cpu_seconds(ours), cpu_seconds(theirs)
        for _ in range(repeats):
            self.theirs.append(cpu_seconds(theirs))
            self.ours.append(cpu_seconds(ours))


def cpu_seconds(work: Callable[[], float | None]) -> float:
    """Processor seconds of this process."""
    gc.collect()
    began = time.process_time()
    own = work()
    return time.process_time() - began if own is None else own


def one_thread() -> dict[str, str]:
    """The environment in which every process of a comparison computes with one thread, and Flower stays quiet."""
    paths = [str(HERE), *sorted(str(path) for path in (HERE / "apps").iterdir())]
    inherited = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([*paths, *([inherited] if inherited else [])]),
        "PYTHONWARNINGS": "ignore",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        # As FedSafe sets it: a peer on Ray shall not give way either.
        "RAY_worker_niceness": "0",
    }


def run_json(command: Sequence[str], *, timeout: float = 900.0, env: Mapping[str, str] | None = None) -> Any:
    """The JSON of the last line that a command prints.

    Raises:
        RuntimeError: It failed, or printed none.
    """
    done = subprocess.run(
        command,
        cwd=HERE,
        env={**one_thread(), **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = (done.stderr.strip() or "nothing").splitlines()[-8:]
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}: {' | '.join(said)}")
    return json.loads(lines[-1])


def script(measure: Callable[[int], Sequence[Comparison]]) -> None:
    """The command of a script that compares: prints every comparison; with ``--json`` as one line for a program.

    Args:
        measure: Takes how often to repeat, and compares.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.repeats)
    if options.json:
        print(json.dumps([comparison.to_json() for comparison in found]))
        return
    for comparison in found:
        print(
            f"{'met      ' if comparison.met else 'FELL SHORT'} {comparison.work}, against {comparison.peer}"
        )
        print(f"           {comparison}")
    sys.exit(0 if all(comparison.met for comparison in found) else 1)
