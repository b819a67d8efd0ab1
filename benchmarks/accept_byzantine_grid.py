"""The lines of a grid under attack: 5 attacks, 6 rules, 3 shares and 3 budgets on Adult, and an interruption.

python benchmarks/accept_byzantine_grid.py    # under ten minutes on two quiet cores, most of it the grid
"""

import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lines import FEDSAFE, ROOT, Lines, fedsafe, shown

CONFIG = "benchmarks/byzantine_adult.toml"
MOST_SECONDS = 600.0
# Small enough to be quick, large enough to be interrupted in the middle.
SMALL = ("--attacks", "sign_flip,alie,ipm", "--aggregators", "mean,median,trimmed_mean", "--shares", "0.3")
SMALL = (*SMALL, "--epsilon", "inf,8", "--stack", "2")


def whole_grid(lines: Lines, out: Path) -> None:
    arguments = ("byzantine", CONFIG, "--out", str(out), "--json")
    began, before = time.perf_counter(), _cpu_seconds()
    done = fedsafe(*arguments, timeout=4 * MOST_SECONDS)
    seconds, cpu = time.perf_counter() - began, _cpu_seconds() - before
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    body = json.loads(done.stdout)
    asked = body["settings"]
    axes = [len(asked[axis]) for axis in ("attacks", "aggregators", "shares", "epsilons")]
    load = os.getloadavg()[2]
    lines.add(
        f"the grid of 5 attacks x 6 rules x 3 shares x 3 budgets on Adult takes less than {MOST_SECONDS:.0f} s",
        shown(*arguments),
        f"{seconds:.0f} s for {body['runs']} runs, {' x '.join(map(str, axes))} and those without attack; "
        f"{cpu:.0f} CPU seconds, mean load {load:.1f}",
        met=seconds < MOST_SECONDS and axes == [5, 6, 3, 3],
    )
    open_cells = [one for one in body["worst"] if one["epsilon"] == "inf" and one["share"] == 0.3]
    left = {one["aggregator"]: one for one in open_cells}
    best = max(open_cells, key=lambda one: one["value"])
    lines.add(
        "without privacy, 30 of 100 adversaries: a rule within 2 points of the clean run where the mean loses 5",
        "the same",
        f"{best['aggregator']} loses {100 * best['lost']:.1f} points under {best['attack']}, mean "
        f"{100 * left['mean']['lost']:.1f} under {left['mean']['attack']}",
        met=best["lost"] <= 0.02 and left["mean"]["lost"] >= 0.05,
    )
    page = (out / "byzantine.html").read_text()
    maps = page.count('<table class="heat">')
    lines.add(
        "the page is one file, its heat maps have a number in each cell and shades of grey alone",
        "the same",
        f"{len(page) / 1e3:.0f} kB, {maps} heat maps",
        met="<script" not in page and "src=" not in page and maps == 9,
    )
    composed = body["composed"]
    lines.add(
        "the page says what publishing every cell costs",
        "the same",
        f"{composed['private']} runs with a budget: epsilon {composed['epsilon']:.1f} per record in all",
        met=composed["private"] > 0 and math.isfinite(composed["epsilon"]) and "composes" in page,
    )


def _cpu_seconds() -> float:
    """Of all processes that were started and have ended, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def interrupted(lines: Lines, out: Path) -> None:
    """Interrupted twice, once by Ctrl-C and once by SIGKILL, a grid goes on and finds what it finds in one go."""
    arguments = ("byzantine", CONFIG, *SMALL, "--out", str(out / "twice"), "--json")
    codes, kept = [], []
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(
            [*FEDSAFE, *arguments],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            # A shell has what it starts in the background ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        before = kept[-1] if kept else 0
        while process.poll() is None and len(list((out / "twice").glob("cells/*.json"))) < before + 3:
            time.sleep(0.05)
        process.send_signal(number)
        codes.append(process.wait())
        time.sleep(2.0)  # a worker that outlived it would go on writing
        kept.append(len(list((out / "twice").glob("cells/*.json"))))
        time.sleep(4.0)
        if len(list((out / "twice").glob("cells/*.json"))) != kept[-1]:
            raise RuntimeError("a worker outlived the command")
    stamps = {path: path.stat().st_mtime_ns for path in (out / "twice").glob("cells/*.json")}
    went_on = json.loads(fedsafe(*arguments).stdout)
    again = [path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp]
    in_one_go = json.loads(fedsafe(*arguments[:-3], "--out", str(out / "once"), "--json").stdout)
    same = went_on["cells"] == in_one_go["cells"]
    lines.add(
        "a grid that is interrupted goes on, computes no cell again, and finds what it finds in one go",
        shown(*arguments),
        f"exit codes {codes}, {kept} of {went_on['runs']} runs kept, {len(again)} computed again, "
        f"{'the same' if same else 'other'} cells",
        met=same and not again and codes[0] == 130 and 0 < kept[0] < went_on["runs"],
    )


def wrong_requests(lines: Lines, out: Path) -> None:
    requests = {
        ("--shares", "1.2"): "120 adversaries of 100 clients",
        ("--aggregators", "fedavg", "--attacks", "alie"): "needs the update of each client",
        ("--attacks", "backdoor"): "backdoor",
        ("--attacks", "allie"): "did you mean 'alie'",
        ("--aggregators", "krumm"): "did you mean 'krum'",
    }
    said = {}
    for request, expected in requests.items():
        done = fedsafe("byzantine", CONFIG, *request, "--out", str(out / "wrong"))
        one_line = done.stderr.strip().count("\n") == 0 and done.stderr.startswith("fedsafe: ")
        said[request] = done.returncode == 1 and one_line and expected in done.stderr
    lines.add(
        "wrong requests are one clear line",
        " / ".join(shown("byzantine", *request) for request in requests),
        f"{sum(said.values())} of {len(said)}",
        met=all(said.values()),
    )


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        lines, out = Lines(Path(folder)), Path(folder)
        for part in (wrong_requests, interrupted, whole_grid):
            with lines.section(part.__name__, "fedsafe byzantine"):
                part(lines, out / part.__name__)
        return lines.write("byzantine_grid")


if __name__ == "__main__":
    sys.exit(main())
