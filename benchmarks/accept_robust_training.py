"""What robust training is held to on MNIST: accuracy under attack at a record-level budget, certified accuracy without.

    python benchmarks/accept_robust_training.py [--only private,certified]

Ten clients with 6,000 digits each, a perceptron, Linf radius 0.1 in [0, 1]. With record-level epsilon 8, adversarial
training is compared with plain DP training by the accuracy under attack (PGD of 20 steps from 2 starts, FedSafe's own:
an upper bound on robust accuracy); both models meet the same digits, so the interval is of paired shares. The learning
rate was chosen on other digits. Without privacy, interval training is compared with plain training by what CROWN
proves (a lower bound). Needs the digits in ``FEDSAFE_DATA_DIR``, and some ten minutes of one core. Writes
``results/robust_training.json``.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lines import Lines
from numpy.typing import NDArray
from torch import nn

import fedsafe
from fedsafe.assess.certified.bounds import crown
from fedsafe.assess.robustness.gradient import pgd
from fedsafe.assess.robustness.regions import Box
from fedsafe.data import load_task
from fedsafe.findings.intervals import wilson
from fedsafe.findings.pairs import Pairs, mcnemar, paired_newcombe
from fedsafe.models.bounds import InputRegion

RADIUS, DIGITS = 0.1, 2000
COMMAND = "python benchmarks/accept_robust_training.py"
Flags = NDArray[np.bool_]

BASE: dict[str, Any] = {
    "task": "mnist-writers",
    "engine": {"name": "inline"},
    "assess": {"every": 1000, "assessors": ["performance"], "require": []},
    "server": {"aggregator": "fedavg", "optimizer": {"name": "sgd", "lr": 1.0, "momentum": 0.0}},
    "privacy": {"record": {"epsilon": float("inf")}, "client": {"epsilon": float("inf")}},
}
FEDERATION = {"clients": 10, "partition": {"name": "iid"}, "cohort": {"name": "poisson", "rate": 1.0}}
PRIVATE: dict[str, Any] = BASE | {
    "model": {"name": "mlp", "hidden": [64]},
    "rounds": 15,
    "federation": FEDERATION,
    "privacy": {
        "record": {"epsilon": 8.0, "delta": 1e-5, "clip": 1.0},
        "client": {"epsilon": float("inf")},
    },
}
PRIVATE_CLIENT = {"optimizer": {"name": "sgd", "lr": 4.0}, "steps": 6, "rate": 0.08}
CERTIFIED: dict[str, Any] = BASE | {
    "model": {"name": "mlp", "hidden": [64]},
    "rounds": 25,
    "federation": FEDERATION,
}
CERTIFIED_CLIENT = {"optimizer": {"name": "adam", "lr": 0.003}, "steps": 10, "rate": 0.05}
ADVERSARIAL = {"name": "adversarial", "radius": RADIUS, "steps": 5}
INTERVALS = {"name": "ibp", "radius": RADIUS, "kappa": 0.3, "warmup": 0.05, "ramp": 0.6}


def trained(
    config: dict[str, Any], client: dict[str, Any], objective: Any, folder: Path
) -> tuple[nn.Module, float]:
    """The model of the last round, and the seconds of the run."""
    began = time.perf_counter()
    own = client if objective is None else client | {"objective": objective}
    run = fedsafe.run(config | {"client": own}, out=folder)
    return run.model(config["rounds"]).eval(), time.perf_counter() - began


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Evaluation digits, every fifth."""
    evaluation = load_task("mnist-writers").evaluation
    rows = np.arange(0, len(evaluation.y), len(evaluation.y) // DIGITS)[:DIGITS]
    return torch.from_numpy(evaluation.x[rows].copy()), torch.from_numpy(evaluation.y[rows].copy())


@torch.no_grad()
def right(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Flags:
    """``(n,)`` whether the class is right."""
    return (model(x).argmax(1) == y).numpy()


def stands(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Flags:
    """``(n,)`` whether the class stays right under attack, judged anew."""
    one = torch.ones_like(x[0])
    region = Box.around(x, RADIUS, 0.0 * one, one, one > 0.0)
    worst = pgd(model, x, y, region, steps=20, restarts=2, rng=np.random.default_rng(0))
    if (
        float((worst - x).abs().max()) > RADIUS + 1e-6
        or not 0.0 <= float(worst.min()) <= float(worst.max()) <= 1.0
    ):
        raise RuntimeError("an attack left its region")
    return right(model, worst, y) & right(model, x, y)


def proven(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Flags:
    """``(n,)`` whether CROWN proves that the class stays right."""
    exact = model.double()
    found = []
    for part, own in zip(x.double().split(50), y.split(50), strict=True):
        region = InputRegion.around(part, RADIUS, low=0.0, high=1.0)
        with torch.no_grad():
            found.append(crown(exact, region, own, thorough=True) > 1e-6)
    model.float()
    return torch.cat(found).numpy()


def share(flags: Flags) -> str:
    low, high = wilson(int(flags.sum()), len(flags))
    return f"{100 * flags.mean():.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def compare_private(lines: Lines, folder: Path) -> None:
    line = "epsilon 8 per record, Linf 0.1: adversarial training is attacked with at least 5 points more accuracy"
    with lines.section(line, COMMAND):
        x, y = digits()
        plain, seconds = trained(PRIVATE, PRIVATE_CLIENT, None, folder / "plain-dp")
        robust, longer = trained(PRIVATE, PRIVATE_CLIENT, ADVERSARIAL, folder / "adversarial-dp")
        first, second = stands(robust, x, y), stands(plain, x, y)
        pairs = Pairs.of(first, second)
        low, high = paired_newcombe(pairs)
        value = (
            f"under attack {share(first)} against {share(second)}: {100 * pairs.difference:+.1f} points "
            f"[{100 * low:.1f}, {100 * high:.1f}], McNemar p = {mcnemar(pairs):.1e}; clean "
            f"{share(right(robust, x, y))} against {share(right(plain, x, y))}; {len(y)} digits, "
            f"95 % intervals; {longer:.0f} s and {seconds:.0f} s"
        )
        lines.add(line, f"{COMMAND} --only private", value, met=low >= 0.05)


def compare_certified(lines: Lines, folder: Path) -> None:
    line = "no privacy, Linf 0.1: CROWN proves at least 50 % after interval training, under 10 % after plain training"
    with lines.section(line, COMMAND):
        x, y = (part[:1000] for part in digits())
        plain, seconds = trained(CERTIFIED, CERTIFIED_CLIENT, None, folder / "plain")
        robust, longer = trained(CERTIFIED, CERTIFIED_CLIENT, INTERVALS, folder / "intervals")
        first, second = proven(robust, x, y), proven(plain, x, y)
        attacked, clean = stands(robust, x, y), right(robust, x, y)
        if (first & ~attacked).any() or (attacked & ~clean).any():
            raise RuntimeError("proven, attacked and clean accuracy are out of order")
        value = (
            f"proven {share(first)} against {share(second)}; under attack {share(attacked)} against "
            f"{share(stands(plain, x, y))}; clean {share(clean)} against {share(right(plain, x, y))}; {len(y)} digits, "
            f"95 % intervals; {longer:.0f} s and {seconds:.0f} s"
        )
        met = (
            wilson(int(first.sum()), len(first))[0] >= 0.5 and wilson(int(second.sum()), len(second))[1] < 0.1
        )
        lines.add(line, f"{COMMAND} --only certified", value, met=met)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="private,certified")
    only = parser.parse_args().only.split(",")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        lines = Lines(Path(name))
        if "private" in only:
            compare_private(lines, Path(name))
        if "certified" in only:
            compare_certified(lines, Path(name))
        return lines.write("robust_training")


if __name__ == "__main__":
    sys.exit(main())
