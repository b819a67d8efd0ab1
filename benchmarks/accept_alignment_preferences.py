"""Preferences of people about texts: accuracy without privacy and with each person protected, ceiling, whom it serves.

    python benchmarks/accept_alignment_preferences.py [--seeds 5]

The experiment ``experiments/offensiveness.toml``, each seed with other held-out comments, and the response pairs of
PandaLM trained alike. The figures of lines are those of seed 0, as the experiment has it; those of all seeds are beside
them. Needs ``FEDSAFE_DATA_DIR`` and the extra ``text``; embedding is timed by itself. Wall times mean something on a
quiet machine alone: where others load it, the processor seconds of the whole command in one process count, which is
what one quiet core would take.

Writes ``results/alignment_preferences.json``.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from lines import Lines, fedsafe, shown, train

from fedsafe.data import load_task

EXPERIMENT = "experiments/offensiveness.toml"
PLAIN = ("--set", "privacy.client.epsilon=inf", "--set", "server.aggregator=fedavg", "--set", "rounds=12")
WITHOUT, PRIVATE, SECONDS, EPSILON = 0.72, 0.66, 60.0, 2.5
PEOPLE = 253


class Runs:
    """Trained models, and what their assessors found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: list[tuple[float, float]] = []

    def one(self, name: str, *arguments: str) -> dict[str, Any]:
        """The findings of a run's last round, those without a scope by name; with what ``--json`` printed."""
        out, before = self.folder / name, os.times()
        printed, wall = train(EXPERIMENT, out, "--reproducible", *arguments)
        after = os.times()
        self.seconds.append((wall, sum(after[2:4]) - sum(before[2:4])))
        rows = [json.loads(line) for line in (out / "findings.jsonl").read_text().splitlines()]
        last = max(row["round"] for row in rows)
        rows = [row for row in rows if row["round"] == last and row["assessor"] == "alignment"]
        found = {row["metric"].partition(".")[2]: row for row in rows if not row["where"]}
        return {**found, "printed": printed, "rows": rows}


def figure(found: dict[str, Any], name: str) -> str:
    row = found[name]
    if row["value"] is None:
        return f"{name} {row['status']}"
    low, high = row["interval"] or (float("nan"), float("nan"))
    return f"{name} {row['value']:.3f} [{low:.3f}, {high:.3f}]"


def lines_of(
    lines: Lines, runs: Runs, seeds: int, setting: str, least: float, arguments: tuple[str, ...]
) -> None:
    """One setting over seeds: its accuracy, and everything that belongs beside it."""
    every = [
        runs.one(
            f"{setting} {seed}".replace(" ", "-"),
            *arguments,
            # The experiment as it is for seed 0: another text of the task is another plan, and so other noise.
            *(
                ()
                if seed == 0
                else ("--set", f'task={{name="offensiveness",seed={seed}}}', "--seed", str(seed))
            ),
        )
        for seed in range(seeds)
    ]
    command = shown("run", EXPERIMENT, "--reproducible", *arguments)
    first = every[0]
    values = [found["accuracy"]["value"] for found in every]
    said = "; ".join(
        figure(first, name)
        for name in (
            "accuracy",
            "human_ceiling",
            "share_of_ceiling",
            "worst_decile_accuracy",
            "below_chance",
            "ece",
        )
    )
    spread = ", ".join(f"{value:.3f}" for value in values)
    lines.add(
        f"offensiveness, {setting}: accuracy on held-out comments at least {least}, with ceiling and worst decile",
        command,
        f"{said}; seeds with other held-out comments: {spread}, mean {np.mean(values):.3f}",
        met=values[0] >= least,
    )


def claimed(lines: Lines, runs: Runs) -> None:
    """What the private run promises, read from its record."""
    record = json.loads((runs.folder / "epsilon-2.5-0" / "record.jsonl").read_text().splitlines()[0])
    (claim,) = (claim for claim in record["claims"] if claim["unit"] == "client")
    clients = record["federation"]["clients"]
    lines.add(
        f"client-level epsilon at most {EPSILON}, over {PEOPLE} annotators or more",
        "the client-level claim of the run above",
        f"epsilon {claim['epsilon']:.3f} at delta {claim['delta']:g}, {claim['adjacency']}, over {clients} annotators",
        met=claim["epsilon"] <= EPSILON and claim["delta"] < 1 / clients and clients >= PEOPLE,
    )


def timed(lines: Lines, runs: Runs, embedding: float) -> None:
    """Both settings in one process, so that every processor second is seen: workers of Ray are nobody's children."""
    wall_of_all = max(wall for wall, _ in runs.seconds)
    inline = ("--set", "engine.name=inline")
    runs.seconds.clear()
    runs.one("timed-plain", *PLAIN, *inline)
    runs.one("timed-private", *inline)
    walls, spent = zip(*runs.seconds, strict=True)
    lines.add(
        f"each run in under {SECONDS:.0f} s on two cores after embedding",
        shown("run", EXPERIMENT, "--reproducible", *inline),
        f"{max(walls):.0f} s by the clock at most, {max(spent):.0f} s of processor time in one process and one thread, "
        f"at a load of {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; with Ray {wall_of_all:.0f} s by the clock "
        f"at most; embedding, or reading what was embedded, {embedding:.1f} s",
        met=all(wall < SECONDS or used < SECONDS for wall, used in runs.seconds),
    )


def pandalm(lines: Lines, runs: Runs) -> None:
    arguments = (*PLAIN, "--set", "task=pandalm", "--set", "assess.require=[]")
    found = runs.one("pandalm", *arguments)
    gain = found["gain_over_chance"]
    said = json.dumps(gain["detail"]) if gain["status"] == "measured" else gain["status"]
    lines.add(
        "on the three-annotator response pairs, the report says plainly whether it is at chance",
        shown("run", EXPERIMENT, "--reproducible", *arguments),
        f"{figure(found, 'gain_over_chance')}; {said}; {figure(found, 'accuracy')}; {figure(found, 'human_ceiling')}",
        met=gain["status"] == "measured" and "chance" in said,
    )


def wrong_input(lines: Lines, folder: Path) -> None:
    path = folder / "pairs.csv"
    path.write_text("a,b,choice\none,two,first\n")
    (folder / "pairs.preferences.toml").write_text(
        'format = "fedsafe.preferences/1"\nkind = "pairs"\nannotator = "who"\nfirst = "a"\nsecond = "b"\n'
        'preference = "choice"\n'
    )
    arguments = (
        "run",
        EXPERIMENT,
        "--out",
        str(folder / "wrong"),
        "--set",
        f'task={{name="preferences",path="{path}"}}',
    )
    done = fedsafe(*arguments)
    said = done.stderr.strip().splitlines()
    lines.add(
        "a pair file without annotators is one clear line",
        shown(*arguments),
        said[-1] if said else "nothing",
        met=done.returncode != 0 and "has no column 'who'" in done.stderr and "Traceback" not in done.stderr,
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    began = time.perf_counter()
    load_task("offensiveness")
    embedding = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as temporary:
        lines, runs = Lines(Path(temporary)), Runs(Path(temporary))
        with lines.section("offensiveness without privacy", EXPERIMENT):
            lines_of(lines, runs, seeds, "no privacy", WITHOUT, PLAIN)
        with lines.section("offensiveness with each person protected", EXPERIMENT):
            lines_of(lines, runs, seeds, "epsilon 2.5", PRIVATE, ())
            claimed(lines, runs)
            timed(lines, runs, embedding)
        with lines.section("response pairs", EXPERIMENT):
            pandalm(lines, runs)
        with lines.section("wrong input", EXPERIMENT):
            wrong_input(lines, Path(temporary))
    return lines.write("alignment_preferences")


if __name__ == "__main__":
    sys.exit(main())
