"""The full lines of comparing budgets: 30 runs on Adult, what they cost in time, what they show, and what is kept.

    python benchmarks/accept_compare.py [--seeds 5] [--again FOLDER] [--alone 30]

Writes ``results/compare.json``. Wall times mean something on a quiet machine alone; processor seconds beside them
do not depend on what else runs.
"""

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lines import ROOT, Lines

MINUTES, FACTOR, CORES = 3.0, 1.2, 2
BUDGETS = "0.5,1,2,4,8,inf"


def compared(out: Path, *words: str) -> tuple[dict[str, Any], float]:
    """What ``fedsafe compare`` printed, and how long it took."""
    command = [
        *(sys.executable, "-m", "fedsafe", "compare", str(ROOT / "experiments" / "adult.toml")),
        *("--out", str(out), "--json", *words),
    ]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")
    return json.loads(done.stdout), time.perf_counter() - began


def where(spent: dict[str, Any]) -> str:
    """Where the processors' time went, in one line."""
    parts = {name: spent[name] for name in ("training", "judging", "preparing", "accounting")}
    rest = spent["processors"] - sum(parts.values())
    return ", ".join(
        f"{name} {seconds:.0f} s" for name, seconds in {**parts, "start-up and page": rest}.items()
    )


def started(folder: Path) -> float:
    """Seconds of one run of one round without privacy, but for its training and judging: importing, data, page."""
    words = ("--epsilon", "inf", "--seeds", "1", "--rounds", "1", "--workers", "1")
    body, seconds = compared(folder / "started", *words)
    return seconds - body["time"]["training"] - body["time"]["judging"]


def paired_line(lines: Lines, folder: Path, seeds: int, most: int) -> None:
    """Cells of a paired comparison beside single runs of their configurations: parameters and findings, bit by bit."""
    from fedsafe.runs.run import run

    words = ("--epsilon", BUDGETS, "--seeds", str(seeds), "--paired", "--reproducible")
    compared(folder / "paired", *words)
    with (folder / "paired" / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen, same = rows[:most], 0
    for number, row in enumerate(chosen):
        found = run(
            folder / "paired" / "configurations" / row["configuration"], out=folder / f"alone-{number}"
        )
        record = [json.loads(line) for line in (found.path / "record.jsonl").read_text().splitlines()]
        last = [line for line in record if line["kind"] == "round"][-1]["parameters_sha256"]
        kept = json.loads((folder / "paired" / "cells" / f"{row['cell']}.json").read_text())["result"]
        same += last == row["parameters_sha256"] and figures(found.last_findings()) == figures(
            kept["findings"]
        )
    lines.add(
        f"with --paired --reproducible the same numbers as {len(chosen)} single runs",
        f"fedsafe compare experiments/adult.toml {' '.join(words)}; fedsafe run configurations/NAME.toml",
        f"{same} of {len(chosen)} runs: the same parameters, and the same findings on the last model, bit by bit",
        met=same == len(chosen) > 0,
    )


def figures(findings: list[dict[str, Any]]) -> dict[str, Any]:
    """Findings on a model alone, and not beside one that was accepted before."""
    return {
        json.dumps([one["metric"], one["where"]]): one["value"]
        for one in findings
        if not one["metric"].startswith("comparison.")
    }


def interval_line(lines: Lines) -> None:
    """Coverage of the intervals where the truth is known."""
    from fedsafe.runs.comparison_summary import estimate

    source, repetitions = random.Random(11), 1000
    for seeds in (2, 5):
        means = pairs = 0
        for _ in range(repetitions):
            common = [source.gauss(0.8, 0.05) for _ in range(seeds)]
            free = [value + source.gauss(0.0, 0.01) for value in common]
            private = [value - 0.02 + source.gauss(0.0, 0.01) for value in common]
            mean = estimate(free)
            lost = estimate([one - other for one, other in zip(private, free, strict=True)])
            means += mean["low"] <= 0.8 <= mean["high"]
            pairs += lost["low"] <= -0.02 <= lost["high"]
        covered = [100 * count / repetitions for count in (means, pairs)]
        lines.add(
            f"95 % intervals cover in 93 to 97 % of 1,000 repetitions, {seeds} seeds",
            "estimate() on draws of a known truth: means, and what a budget costs in pairs",
            f"{covered[0]:.1f} % and {covered[1]:.1f} %",
            met=all(93.0 <= share <= 97.0 for share in covered),
        )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--again", type=Path, help="a folder to go on with")
    parser.add_argument("--alone", type=int, default=30, help="paired runs to repeat by themselves")
    given = parser.parse_args()
    lines = Lines(Path(__file__).parent)
    words = ("--epsilon", BUDGETS, "--seeds", str(given.seeds))
    command = f"fedsafe compare experiments/adult.toml {' '.join(words)}"
    with tempfile.TemporaryDirectory() as temporary:
        out = given.again or Path(temporary) / "adult"
        body, seconds = compared(out, *words)
        spent = body["time"]
        work = spent["training"] + spent["judging"]
        lines.add(
            f"{body['runs']} runs, cheap tier each, in under {MINUTES:g} minutes on two cores",
            command,
            f"{seconds:.0f} s by the clock, {spent['processors']:.0f} s of processor time: "
            f"{spent['processors'] / 2:.0f} s on two quiet cores, evenly shared",
            met=min(seconds, spent["processors"] / 2) < 60 * MINUTES and spent["fresh"] == body["runs"],
        )
        begun = started(Path(temporary))
        limit = begun + FACTOR * work / CORES
        lines.add(
            f"at most start-up + {FACTOR:g} x (engine CPU seconds + cheap-tier seconds of all cells) / {CORES}",
            command,
            f"{seconds:.0f} s by the clock, {spent['processors']:.0f} s of processor time, against {begun:.1f} + "
            f"{FACTOR:g} x {work:.0f} / {CORES} = {limit:.0f} s; {where(spent)}",
            met=min(seconds, spent["processors"] / CORES) <= limit,
        )
        trend = body["choices"][0]["trend"]
        lines.add(
            "on Adult accuracy rises with epsilon (paired over seeds, one-sided)",
            command,
            f"{100 * trend['slope']['value']:.2f} points a step, p = {trend['p']:.1g}; knee at "
            f"{body['choices'][0]['knee']}",
            met=trend["p"] < 0.05,
        )
        keys = {curve["key"] for curve in body["curves"]}
        claims = all(
            claim["adjacency"] and claim["adversary"] and claim["not_covered"] for claim in body["axis"]
        )
        page = (out / "comparison.html").read_text(encoding="utf-8")
        lines.add(
            "the page shows the worst group's curve, and a complete claim",
            command,
            f"{len(keys)} measures, {len(body['groups'])} groups, {len(body['axis'])} claims, {len(page) / 1e6:.1f} MB",
            met="worst group" in keys and claims and "What an epsilon on this page says" in page,
        )
        more, again = compared(out, "--epsilon", f"{BUDGETS},16", "--seeds", str(given.seeds))
        lines.add(
            "adding --epsilon 16 computes only the new cells",
            command.replace(BUDGETS, f"{BUDGETS},16"),
            f"{more['time']['fresh']} computed, {more['time']['kept']} kept, {again:.0f} s",
            met=(more["time"]["fresh"], more["time"]["kept"]) == (given.seeds, body["runs"]),
        )
        paired_line(lines, Path(temporary), given.seeds, given.alone)
    interval_line(lines)
    return lines.write("compare", seconds=round(seconds, 1), time=spent, choices=body["choices"])


if __name__ == "__main__":
    sys.exit(main())
