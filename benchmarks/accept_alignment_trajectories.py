"""Rewards learned from compared trajectories: two groups with different goals are both understood under two heads.

    python benchmarks/accept_alignment_trajectories.py [--seeds 5]

Each seed is another federation of simulated people, other walks, other noise in what they prefer and other initial
weights, trained by ``alignment_gridworld.toml``. Nobody is told who is in which group: a person's choice of a head is
found from that person's pairs. With one head, the same people are trained in the same way. Kendall's tau is between a
group's learned rewards and its true one, over all moves in all cells. The same with privacy at the record level, and
at the client level with more people, is reported, and held to nothing. Writes ``results/alignment_trajectories.json``.
"""

import argparse
import copy
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from lines import ROOT, Lines

from fedsafe.alignment.recovery import Recovered, recovered
from fedsafe.runs.config import make_config
from fedsafe.runs.stacked_runs import PreparedRun, prepare_runs, stacked_runs

CONFIG = "benchmarks/alignment_gridworld.toml"
COMMAND = "python benchmarks/accept_alignment_trajectories.py"
NEEDED = 0.8
ONE_HEAD: dict[str, Any] = {"model": {"name": "reward", "heads": 1}, "client": {"local": ["position"]}}
PRIVATE: dict[str, dict[str, Any]] = {
    "record-level epsilon 8": {"privacy": {"record": {"epsilon": 8.0}}},
    "client-level epsilon 8 of 1,000 people": {
        "task": {"people": 1000, "pairs": 30},
        "privacy": {"client": {"epsilon": 8.0}},
        "federation": {"cohort": {"rate": 0.2}},
    },
}


def configured(seed: int, changes: dict[str, Any]) -> Any:
    """The experiment with its seeds and some sections changed."""
    values = tomllib.loads((ROOT / CONFIG).read_text())
    values = merged(values, changes)
    values["task"]["seed"] = values["seed"] = seed
    values["privacy"]["noise_key"] = "seed"
    return make_config(values)


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Values with others in their place, table by table."""
    found = copy.deepcopy(values)
    for name, value in changes.items():
        tables = isinstance(value, dict) and isinstance(found.get(name), dict)
        found[name] = merged(found[name], value) if tables else value
    return found


def learned(seeds: list[int], changes: dict[str, Any]) -> tuple[list[dict[str, Recovered]], float]:
    """What each seed recovers of each goal, and the processor's seconds of one of them."""
    began = time.process_time()
    runs: list[PreparedRun] = prepare_runs([configured(seed, changes) for seed in seeds])
    last = {}
    for number, outcome in stacked_runs(runs):
        last[number] = outcome.parameters
    found = [
        recovered(
            run.parts.module,
            last[number],
            run.parts.task,
            run.parts.records,
            local=tuple(run.parts.config.client.local or ()),
        )
        for number, run in enumerate(runs)
    ]
    return found, (time.process_time() - began) / len(seeds)


def shown(found: list[dict[str, Recovered]]) -> str:
    """Each goal's tau by seed, and what goes with it."""
    parts = []
    for goal in found[0]:
        own = [seed[goal] for seed in found]
        taus = ", ".join(f"{one.tau:.3f}" for one in own)
        parts.append(
            f"{goal}: tau {taus}; of single people from {min(one.least for one in own):.3f}; "
            f"{sum(one.accuracy for one in own) / len(own):.1%} of held-out pairs foretold"
        )
    return "; ".join(parts)


def main() -> int:
    """Every line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = list(range(parser.parse_args().seeds))
    with tempfile.TemporaryDirectory() as folder:
        lines = Lines(Path(folder))
        asked = f"two heads recover each of two groups: Kendall tau at least {NEEDED:g}, {len(seeds)} seeds"
        with lines.section(asked, COMMAND):
            two, seconds = learned(seeds, {})
            least = min(one.tau for seed in two for one in seed.values())
            value = f"least {least:.3f}; {shown(two)}; {seconds:.1f} s of a core a seed"
            lines.add(asked, COMMAND, value, met=least >= NEEDED)
        asked = f"one head does not: in every seed a group's tau stays below {NEEDED:g}"
        with lines.section(asked, COMMAND):
            one, _ = learned(seeds, ONE_HEAD)
            worst = [min(group.tau for group in seed.values()) for seed in one]
            value = f"the worse group's tau {', '.join(f'{tau:.3f}' for tau in worst)}; {shown(one)}"
            lines.add(asked, COMMAND, value, met=max(worst) < NEEDED)
        for name, changes in PRIVATE.items():
            asked = f"reported: two heads with {name}"
            with lines.section(asked, COMMAND):
                found, seconds = learned(seeds[:2], changes)
                lines.add(asked, COMMAND, f"{shown(found)}; {seconds:.1f} s of a core a seed", met=True)
        return lines.write("alignment_trajectories")


if __name__ == "__main__":
    sys.exit(main())
