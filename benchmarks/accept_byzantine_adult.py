"""What robust rules are held to: accuracy on Adult with 30 adversaries of 100 clients.

    python benchmarks/accept_byzantine_adult.py [--rounds 40] [--seeds 0 1 2]

Writes ``results/byzantine_adult.json``. IID, no privacy, everybody in every round. Each attack has its published
strength: sign flip times -4, ALIE with the z of n and f, IPM with 0.1 (which hides) and with 2 (which is seen), min-max
in its authors' default direction. The worst attack of each rule counts, on average over the seeds. Buckets of two are
shown past their limit: with 30 of 100 adversaries, most buckets have one. Other shares, skewed clients and privacy are
what ``fedsafe byzantine`` reports; here nothing but these lines is gated.
"""

import argparse
import copy
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lines import Lines

from fedsafe.data import load_task
from fedsafe.runs.config import make_config
from fedsafe.runs.stacked_runs import prepare_runs, stacked_runs

SHARE, CLIENTS = 0.3, 100
RULES: dict[str, Any] = {
    "mean": "mean",
    "median": "median",
    "trimmed mean": {"name": "trimmed_mean", "share": SHARE},
    "geometric median": "geometric_median",
    "Krum": {"name": "krum", "share": SHARE},
    "Multi-Krum": {"name": "multi_krum", "share": SHARE},
    "centred clipping": "centred_clipping",
    "norm bound": "norm_bound",
    "NNM, trimmed mean": {"name": "trimmed_mean", "share": SHARE, "before": "nearest_neighbour_mixing"},
    "buckets, geometric median": {"name": "geometric_median", "before": "bucketing"},
}
ATTACKS: dict[str, Any] = {
    "none": None,
    "sign flip": "sign_flip",
    "ALIE": "alie",
    "IPM 0.1": "ipm",
    "IPM 2": {"name": "ipm", "scale": 2.0},
    "min-max": "min_max",
}
WITHIN, LOSES = 2.0, 5.0


def configured(rule: Any, attack: Any, seed: int, rounds: int) -> Any:
    values: dict[str, Any] = {
        "task": "adult",
        "model": "logistic",
        "rounds": rounds,
        "seed": seed,
        "federation": {"clients": CLIENTS, "partition": "iid", "cohort": {"rate": 1.0}},
        "client": {"steps": 2, "rate": 0.5, "optimizer": {"name": "sgd", "lr": 1.0}},
        "server": {"aggregator": rule, "optimizer": {"name": "sgd", "lr": 1.0, "momentum": 0.8}},
        "privacy": {
            "noise_key": "seed",
            "record": {"epsilon": float("inf")},
            "client": {"epsilon": float("inf")},
        },
        "engine": {"name": "inline"},
    }
    if attack is not None:
        values["byzantine"] = {"attack": attack, "share": SHARE}
    return make_config(values)


def accuracies(seed: int, rounds: int) -> np.ndarray[Any, Any]:
    """``(rules, attacks)`` accuracy in percent of the last models."""
    configs = [
        configured(rule, attack, seed, rounds) for rule in RULES.values() for attack in ATTACKS.values()
    ]
    runs = prepare_runs(configs, data=load_task("adult"))
    last = {number: outcome.parameters for number, outcome in stacked_runs(runs)}
    found = []
    for number, run in enumerate(runs):
        module = copy.deepcopy(run.parts.module)
        torch.nn.utils.vector_to_parameters(torch.tensor(last[number]), module.parameters())
        with torch.no_grad():
            predicted = module(torch.from_numpy(run.parts.task.evaluation.x))[:, 0] > 0
        found.append(100.0 * float(np.mean(predicted.numpy() == run.parts.task.evaluation.y)))
    return np.array(found).reshape(len(RULES), len(ATTACKS))


def table(mean: np.ndarray[Any, Any]) -> str:
    width = max(map(len, RULES)) + 2
    lines = [" " * width + "".join(f"{attack:>11}" for attack in ATTACKS) + f"{'worst':>11}"]
    for name, row in zip(RULES, mean, strict=True):
        lines.append(f"{name:{width}}" + "".join(f"{value:11.2f}" for value in [*row, row[1:].min()]))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    began = time.perf_counter()
    every = np.array([accuracies(seed, given.rounds) for seed in given.seeds])
    mean, seconds = every.mean(axis=0), time.perf_counter() - began
    print(
        f"Adult, accuracy in percent, mean of the seeds {given.seeds}, {given.rounds} rounds\n\n{table(mean)}\n"
    )
    clean, worst = mean[0, 0], mean[:, 1:].min(axis=1)
    attack_of = [list(ATTACKS)[1 + int(row[1:].argmin())] for row in mean]
    best = 1 + int(worst[1:].argmax())
    command = "python " + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    lines = Lines(Path(__file__).parent)
    lines.add(
        f"the mean of rows loses at least {LOSES:g} points under its worst attack",
        command,
        f"{clean:.2f} -> {worst[0]:.2f} ({attack_of[0]})",
        met=bool(clean - worst[0] >= LOSES),
    )
    kept = [name for name, value in zip(RULES, worst, strict=True) if clean - value <= WITHIN]
    lines.add(
        f"at least one rule stays within {WITHIN:g} points of the clean run under its worst attack",
        command,
        f"{list(RULES)[best]}: {clean:.2f} -> {worst[best]:.2f} ({attack_of[best]}); {len(kept)} rules do: "
        f"{', '.join(kept)}",
        met=bool(kept),
    )
    return lines.write(
        "byzantine_adult",
        seconds=round(seconds, 1),
        accuracy={
            rule: dict(zip(ATTACKS, row.tolist(), strict=True)) for rule, row in zip(RULES, mean, strict=True)
        },
        largest_spread_of_seeds=float(np.ptp(every, axis=0).max()),
    )


if __name__ == "__main__":
    sys.exit(main())
