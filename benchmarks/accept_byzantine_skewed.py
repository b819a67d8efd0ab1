"""What robust rules are worth where clients hold unlike records: reported, and held to nothing.

    python benchmarks/accept_byzantine_skewed.py [--out DIR] [--rounds 15]

Adult over 100 clients whose labels follow a Dirichlet distribution (alpha 0.3), beside equal ones; no privacy; four
attacks, seven rules, 10 and 30 adversaries. Robust rules take unlike clients for adversaries (Karimireddy et al. 2022;
Allouah et al. 2023): they may lose accuracy without any attack, which mixing and bucketing are there for, and the
figures say how much, beside a model that always names the larger class. The lines ask only that every cell was
measured and that the page shows both partitions. Writes ``results/byzantine_skewed.json``; the page stays in DIR.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from lines import Lines, fedsafe, shown

from fedsafe.data import load_task

CONFIG = "benchmarks/byzantine_adult.toml"
ATTACKS = ("sign_flip", "alie", "ipm", "mimic")
MIXED = ("trimmed_mean+nearest_neighbour_mixing", "geometric_median+bucketing")
RULES = ("mean", "median", "trimmed_mean", "geometric_median", "multi_krum", *MIXED)
SHARES, PARTITIONS = (0.1, 0.3), ("iid", "skewed")
MOST_SECONDS = 1800.0


def table(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each partition, share and rule: accuracy without attack and under the worst one, in percent."""
    clean = {
        (cell["partition"], cell["share"], cell["aggregator"]): cell["value"]
        for cell in body["cells"]
        if cell["attack"] == "none" and cell["value"] is not None
    }
    return [
        {
            "partition": one["partition"],
            "share": one["share"],
            "rule": one["aggregator"],
            "clean": _percent(clean.get((one["partition"], one["share"], one["aggregator"]))),
            "worst": _percent(one["value"]),
            "attack": one["attack"],
        }
        for one in body["worst"]
    ]


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100.0 * share, 2)


def majority() -> float:
    """What a model that always names the larger class has, in percent: a rule that falls to it has learned nothing."""
    y = load_task("adult").evaluation.y
    return 100.0 * float(np.bincount(y).max() / len(y))


def reported(lines: Lines, out: Path, rounds: int) -> list[dict[str, Any]]:
    arguments = (
        *("byzantine", CONFIG, "--attacks", ",".join(ATTACKS), "--aggregators", ",".join(RULES)),
        *("--shares", ",".join(map(str, SHARES)), "--epsilon", "inf", "--partition", ",".join(PARTITIONS)),
        *("--rounds", str(rounds), "--out", str(out), "--json"),
    )
    began = time.perf_counter()
    done = fedsafe(*arguments, timeout=MOST_SECONDS)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    body = json.loads(done.stdout)
    rows = table(body)
    expected = len(PARTITIONS) * len(SHARES) * len(RULES)
    least = majority()
    known = [row for row in rows if row["worst"] is not None and math.isfinite(row["worst"])]
    lines.add(
        f"a skewed grid on Adult beside an even one: {len(ATTACKS)} attacks, {len(RULES)} rules, {len(SHARES)} shares "
        "(reported, not gated)",
        shown(*arguments),
        f"{body['runs']} runs in {seconds:.0f} s, {len(known)} of {expected} rules measured under their worst attack",
        met=len(known) == expected,
    )
    for partition in PARTITIONS:
        shares = sorted({row["share"] for row in rows})
        said = [
            f"{row['rule']} {row['clean']} -> {row['worst']} ({row['attack']})"
            for row in rows
            if row["partition"] == partition and row["share"] == shares[-1]
        ]
        lines.add(
            f"{partition} clients, {shares[-1]:.0%} adversaries: accuracy in percent without attack and under the "
            "worst (reported, not gated)",
            "the same",
            "; ".join(said) + f"; always the larger class {least:.2f}",
            met=bool(said),
        )
    page = (out / "byzantine.html").read_text(encoding="utf-8")
    maps = page.count('<table class="heat">')
    lines.add(
        "the page has a heat map for each partition and share, and names the partition",
        "the same",
        f"{maps} heat maps, {len(page) / 1e3:.0f} kB",
        met=maps == len(PARTITIONS) * len(SHARES) and "skewed" in page,
    )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="where the page stays; a temporary folder if left out")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines, rows = Lines(Path(folder)), []
        with lines.section("a skewed grid on Adult", "fedsafe byzantine"):
            rows = reported(lines, given.out or Path(folder) / "grid", given.rounds)
        return lines.write("byzantine_skewed", accuracy=rows)


if __name__ == "__main__":
    sys.exit(main())
