"""Rounds of ``fedsafe.run`` on Ray with two workers, as they are timed beside a peer's; run apart, in a fresh process.

    python benchmarks/our_rounds.py WORK FOLDER CLIENTS COHORT ROUNDS private|plain

Prints the seconds between the ends of successive rounds, the first left out, as JSON: each is a whole round, with the
ledger, the model's measurement, its checkpoint and its line of the record.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from comparing import run_json
from torch import Tensor, nn
from workloads import WORKS, Work, mapped

import fedsafe

WORKERS = 2
# Records that each round's model is measured on.
_MEASURED = 1000


def config(work: Work, *, clients: int, cohort: int, rounds: int, private: bool) -> dict[str, Any]:
    """Both levels of privacy at their defaults, or none; only the last model's performance is assessed."""
    privacy = {} if private else {unit: {"epsilon": float("inf")} for unit in ("record", "client")}
    return {
        "rounds": rounds,
        "federation": {
            "clients": clients,
            "partition": {"name": "contiguous"},
            "cohort": {"rate": cohort / clients},
        },
        "client": {"optimizer": {"lr": work.lr}, "steps": work.steps, "rate": 1.0 / work.steps},
        "privacy": privacy,
        "assess": {"every": rounds, "assessors": ["performance"]},
        "engine": {"name": "ray", "workers": WORKERS},
    }


def seconds_of(config: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """Seconds of each round but the first, of the whole run, and its last metrics."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "run"
        began = time.perf_counter()
        run = fedsafe.run(config, out=out, **arguments)
        whole = time.perf_counter() - began
        lines = (out / "private" / "timings.jsonl").read_text().splitlines()
        ends = [json.loads(line)["elapsed"] for line in lines]
        return {"seconds": whole, "rounds": np.diff(ends).tolist(), "metrics": run.metrics}


def our_rounds(
    work: str, folder: Path, *, clients: int, cohort: int, rounds: int, private: bool
) -> list[float]:
    """Seconds of so many rounds, in a process of their own."""
    numbers = [str(number) for number in (clients, cohort, rounds + 1)]
    command = [sys.executable, __file__, work, str(folder), *numbers, "private" if private else "plain"]
    found: list[float] = run_json(command)["rounds"]
    return found


class LogOdds(nn.Module):
    """Of two logits: a binary task has one, and its loss is that of the two to the letter."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        logits = self.module(x)
        return logits[:, 1:] - logits[:, :1]


def _as_classifier(work: Work) -> nn.Module:
    return LogOdds(work.module()) if work.outputs == 2 else work.module()


def main() -> None:
    name, folder, privacy = sys.argv[1], sys.argv[2], sys.argv[6]
    clients, cohort, rounds = map(int, sys.argv[3:6])
    work = WORKS[name]
    x, y = mapped(folder)
    about = {
        "low": -10.0,
        "high": 10.0,
        "classes": work.outputs,
        "evaluation": (np.array(x[:_MEASURED]), np.array(y[:_MEASURED])),
    }
    settings = config(work, clients=clients, cohort=cohort, rounds=rounds, private=privacy == "private")
    print(json.dumps(seconds_of(settings, model=_as_classifier(work), data=(x, y), about=about)))


if __name__ == "__main__":
    # Under its own name, so that workers find its classes.
    import our_rounds as imported

    imported.main()
