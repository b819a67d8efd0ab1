"""The full lines of the live page: a hundred runs load in under a second, first and again, and while one trains.

    python benchmarks/accept_ui.py [--rounds 40]

Writes ``results/ui.json``. The server is ``fedsafe ui`` in a process of its own, and the times are those of a client
that asks over the loopback. Wall times mean something on a quiet machine alone; the processor seconds beside them do
not depend on what else runs, and a line is met if either is within it.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from lines import ROOT, Lines

RUNS, SECOND = 100, 1.0


class Page:
    """``fedsafe ui`` over a folder."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "fedsafe", "ui", str(folder), "--port", "0"]
        began = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r"http://127.0.0.1:(\d+)/", self.process.stdout.readline())
        assert found is not None
        self.port = int(found[1])
        self.start = time.perf_counter() - began

    def get(self, path: str) -> tuple[str, float, float]:
        """The answer, the seconds that it took, and the processor seconds of the server in them."""
        processor, began = self.processor, time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        seconds = time.perf_counter() - began
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}")
        return text, seconds, self.processor - processor

    @property
    def processor(self) -> float:
        """Processor seconds of the server so far."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def hundred(folder: Path, rounds: int) -> Path:
    """A hundred copies of a run on Adult, assessed every ten rounds, whose record says so many rounds."""
    first = folder / "first"
    words = ["--set", f"rounds={min(rounds, 40)}", "--set", "engine.name=inline", "--json"]
    command = [
        sys.executable,
        "-m",
        "fedsafe",
        "run",
        str(ROOT / "experiments" / "adult.toml"),
        "--out",
        str(first),
    ]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr)
    runs = folder / "runs"
    runs.mkdir()
    for number in range(RUNS):
        copy = runs / f"run-{number:03d}"
        shutil.copytree(first, copy, ignore=shutil.ignore_patterns("checkpoints", "private"))
        lengthen(copy / "record.jsonl", rounds)
    return runs


def lengthen(record: Path, rounds: int) -> None:
    """Repeats the last round until there are so many."""
    start, *lines, end = record.read_text().splitlines()
    last = json.loads(lines[-1])
    lines += [
        json.dumps({**last, "round": number}, separators=(",", ":"))
        for number in range(len(lines) + 1, rounds + 1)
    ]
    record.write_text("\n".join([start, *lines, end]) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    lines = Lines(Path(__file__).parent)
    with tempfile.TemporaryDirectory() as temporary:
        runs = hundred(Path(temporary), given.rounds)
        size = sum(path.stat().st_size for path in runs.glob("*/*.jsonl")) / 1e6
        page = Page(runs)
        text, first, first_processor = page.get("/")
        again = [page.get("/")[1:] for _ in range(5)]
        second, second_processor = (median(values) for values in zip(*again, strict=True))
        command = (
            f"fedsafe ui FOLDER, with {RUNS} runs of {given.rounds} rounds on Adult ({size:.0f} MB of lines)"
        )
        lines.add(
            f"the page of a {RUNS}-run folder loads in under {SECOND:g} s",
            f"{command}; GET /, the first time",
            f"{first:.3f} s ({first_processor:.2f} s of processor time), {len(text) / 1e3:.0f} kB; the server was "
            f"ready {page.start:.1f} s after the command",
            met=min(first, first_processor) < SECOND and text.count("/run/") == RUNS,
        )
        lines.add(
            "and again",
            f"{command}; GET /, the median of five more",
            f"{second:.3f} s ({second_processor:.2f} s of processor time)",
            met=min(second, second_processor) < SECOND / 2,
        )
        record = runs / "run-000" / "record.jsonl"
        start, *rest, _ = record.read_text().splitlines()
        record.write_text("\n".join([start, *rest]) + "\n")
        page.get("/run/run-000")
        moved = []
        for number in range(len(rest) + 1, len(rest) + 21):
            with record.open("a") as file:
                file.write(json.dumps({**json.loads(rest[-1]), "round": number}) + "\n")
            part, seconds, processor = page.get("/live/curves/run-000")
            assert f"after round {number}" in part
            moved.append((seconds, processor))
        seconds, processor = (sum(values) / len(values) for values in zip(*moved, strict=True))
        lines.add(
            "a round more is drawn for little, beside the training that it shows",
            f"{command}; GET /live/curves/RUN after each of 20 rounds more",
            f"{1000 * seconds:.0f} ms ({1000 * processor:.0f} ms of processor time) for each",
            met=processor < 0.1,
        )
        page.close()
    return lines.write("ui", runs=RUNS, rounds=given.rounds, first=first, second=second)


if __name__ == "__main__":
    raise SystemExit(main())
