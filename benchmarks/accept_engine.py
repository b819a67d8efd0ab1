"""The full lines of the engine: comparisons with peers, and what must hold however fast it is.

    python benchmarks/accept_engine.py
    python benchmarks/accept_engine.py checks    # the comparisons as ``bench.py`` left them, and all else

Writes ``results/engine.json`` and ``results/bench.json``, and the table of ``README.md``. About half an hour.
"""

import json
import re
import sys
import tempfile
from pathlib import Path

import scale
from accept_breadth import pytest
from bench import SCRIPTS, compare_all, versions
from comparing import REPEATS
from lines import ROOT, Lines, shown, train
from table import write_table

PROFILE = ROOT / "docs" / "profiles" / "cnn.md"
ARCHITECTURES = 200
EXPERIMENT, ROUNDS = "experiments/adult.toml", 4
SHORT = ("--reproducible", "--set", f"rounds={ROUNDS}", "--set", f"assess.every={ROUNDS}")
WAYS = (
    ("engine.name=inline",),
    ("engine.workers=1",),
    ("engine.workers=2",),
    ("engine.workers=4",),
    ("engine.workers=2", "engine.chunk=7"),
)
SAME_BYTES = ("tests/engine/test_same_bytes.py", "tests/client/test_trainer_contract.py")


def passing(lines: Lines, line: str, *arguments: str, least: int) -> None:
    """A line that holds where these tests pass, so many of them, and none is skipped."""
    done = pytest(*arguments)
    said = (done.stdout.strip().splitlines() or ["nothing"])[-1]
    passed = int((re.search(r"(\d+) passed", said) or [0, 0])[1])
    lines.add(
        line,
        f"python -m pytest {' '.join(arguments)}",
        said,
        met=done.returncode == 0 and passed >= least and "skipped" not in said,
    )


def same_run(lines: Lines) -> None:
    """One run in each way, from one key: the models of all rounds are compared by their digests."""
    found = {}
    for number, options in enumerate(WAYS):
        out = lines.folder / f"way-{number}"
        train(EXPERIMENT, out, *SHORT, *(part for option in options for part in ("--set", option)))
        rounds = map(json.loads, (out / "record.jsonl").read_text().splitlines())
        found[", ".join(options)] = [line["parameters_sha256"] for line in rounds if line["kind"] == "round"]
    first = next(iter(found.values()))
    lines.add(
        "a run's models are the same to the bit for 1, 2 and 4 workers, every chunk, and without Ray",
        shown("run", EXPERIMENT, *SHORT, "--set", "engine..."),
        f"{len(first)} rounds in {len(found)} ways ({'; '.join(found)}): {len(set(map(tuple, found.values())))} result",
        met=len(first) == ROUNDS and all(digests == first for digests in found.values()),
    )


def same_bytes(lines: Lines) -> None:
    passing(
        lines,
        "a client's bytes do not depend on its neighbours, chunks, grid or the order of arrival",
        *SAME_BYTES,
        least=10,
    )


def random_architectures(lines: Lines) -> None:
    passing(
        lines,
        f"norms and clipped sums equal a loop over examples in at least {ARCHITECTURES} random architectures",
        "tests/client/test_random_architectures.py",
        least=ARCHITECTURES,
    )


def cluster(lines: Lines) -> None:
    passing(
        lines,
        "two nodes; a worker or a node killed in a round: the same bytes, nothing counted twice",
        "tests/engine/test_lost_workers.py",
        least=3,
    )


def flower_apps(lines: Lines) -> None:
    passing(
        lines,
        "Flower apps come to the same result by fedsafe simulate and by Flower's own simulation",
        "tests/apps/test_simulate_parity.py",
        "tests/apps/test_simulate.py",
        least=3,
    )


def profile(lines: Lines) -> None:
    text = PROFILE.read_text(encoding="utf-8") if PROFILE.exists() else ""
    rows = sum(line.startswith("|") for line in text.splitlines())
    lines.add(
        "where the CNN's time goes is written down, with the command that shows it",
        f"cat {PROFILE.relative_to(ROOT)}",
        f"{len(text.splitlines())} lines, {rows} of tables" if text else "no such file",
        met=rows > 0 and "python" in text,
    )


def main() -> int:
    results = ROOT / "benchmarks" / "results" / "bench.json"
    with tempfile.TemporaryDirectory() as name:
        lines, numbers = Lines(Path(name)), {}
        if sys.argv[1:] == ["checks"]:
            measured = json.loads(results.read_text())
            found, lines.rows = measured["comparisons"], list(measured["lines"])
        else:
            found = compare_all(lines, SCRIPTS, REPEATS)
        compared = list(lines.rows)
        for check in (same_run, same_bytes, random_architectures, cluster, flower_apps, profile):
            with lines.section(check.__name__.replace("_", " "), "python benchmarks/accept_engine.py"):
                check(lines)
        with lines.section("scale", "python benchmarks/scale.py"):
            numbers = scale.main(lines)
        known = versions()
        Lines(Path(name), compared).write("bench", versions=known, comparisons=found)
        write_table(results)
        return lines.write("engine", versions=known, comparisons=found, scale=numbers)


if __name__ == "__main__":
    sys.exit(main())
