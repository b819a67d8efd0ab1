"""The full lines of comparing budgets: 30 runs on Adult, what they cost in time, what they show, and what is kept.

    python benchmarks/accept_compare.py [--seeds 5] [--again FOLDER]

Writes ``results/compare.json``. Wall times mean something on a quiet machine alone; processor seconds beside them
do not depend on what else runs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lines import ROOT, Lines

MINUTES, FACTOR = 3.0, 1.2
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


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--again", type=Path, help="a folder to go on with")
    given = parser.parse_args()
    lines = Lines(Path(__file__).parent)
    words = ("--epsilon", BUDGETS, "--seeds", str(given.seeds))
    command = f"fedsafe compare experiments/adult.toml {' '.join(words)}"
    with tempfile.TemporaryDirectory() as temporary:
        out = given.again or Path(temporary) / "adult"
        body, seconds = compared(out, *words)
        spent = body["time"]
        work = spent["training"] + spent["judging"]
        rest = spent["processors"] - work - spent["accounting"]
        lines.add(
            f"{body['runs']} runs, cheap tier each, in under {MINUTES:g} minutes on two cores",
            command,
            f"{seconds:.0f} s by the clock, {spent['processors']:.0f} s of processor time: "
            f"{spent['processors'] / 2:.0f} s on two quiet cores, evenly shared",
            met=min(seconds, spent["processors"] / 2) < 60 * MINUTES and spent["fresh"] == body["runs"],
        )
        lines.add(
            f"past start-up, at most {FACTOR:g} of the seconds of engine and assessors, on two cores",
            command,
            f"engine and assessors {work:.0f} s, claims {spent['accounting']:.0f} s; start-up {rest:.0f} s, of which "
            f"{spent['preparing']:.0f} s are composing and calibrating in each process",
            met=spent["accounting"] <= (FACTOR - 1.0) * work,
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
    return lines.write("compare", seconds=round(seconds, 1), time=spent, choices=body["choices"])


if __name__ == "__main__":
    sys.exit(main())
