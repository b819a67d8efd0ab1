"""A federation so small that a whole run takes a fraction of a second, made by hand."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from fedsafe.data import Categorical, Examples, Label, Numeric, Schema, Source, Task

CLIENTS = 12
# Little epsilon is much noise, whose loss distribution is narrow and quick to compose.
CONFIG: dict[str, Any] = {
    "task": "tiny_federation:task",
    "rounds": 3,
    "federation": {"clients": CLIENTS, "cohort": {"rate": 0.5}},
    "client": {"steps": 2, "rate": 0.25},
    "server": {"optimizer": {"momentum": 0.5}},
    "privacy": {"record": {"epsilon": 0.1}, "client": {"epsilon": 0.1}},
    "assess": {"every": 2, "assessors": ["performance"]},
    "engine": {"name": "inline"},
}


def config(**changes: Any) -> dict[str, Any]:
    """The tiny configuration with some values changed, each named with ``__`` for the dots."""
    values = _copied(CONFIG)
    for name, value in changes.items():
        *path, last = name.split("__")
        section = values
        for key in path:
            section = section.setdefault(key, {})
        section[last] = value
    return values


def task(records: int = 240, evaluation: int = 60) -> Task:
    """Two classes that a line separates, up to one label in ten."""
    rng = np.random.default_rng(7)

    def draw(count: int) -> Examples:
        sex = rng.integers(0, 2, count)
        x = np.concatenate([rng.uniform(-1, 1, (count, 3)), np.eye(2)[sex]], axis=1).astype(np.float32)
        y = (x[:, 0] + 0.5 * x[:, 1] > 0) ^ (rng.random(count) < 0.1)
        return Examples(x=x, y=y.astype(np.int64), groups={"sex": np.array(["Female", "Male"])[sex]})

    return Task(
        name="tiny",
        kind="binary",
        classes=("no", "yes"),
        schema=Schema(
            label=Label(column="y", classes=("no", "yes")),
            columns=(
                *(Numeric(name=f"a{i}", low=-5, high=5, encoded=(-1.0, 1.0)) for i in range(3)),
                Categorical(name="sex", categories=("Female", "Male"), unknown="Female", group=True),
            ),
        ),
        train=draw(records),
        evaluation=draw(evaluation),
        evaluation_name="made by hand (public)",
        source=Source(name="made by hand"),
        evaluation_public=True,
    )


def batch_normalised(features: int, outputs: int) -> nn.Module:
    """A model that mixes the records of a batch."""
    return nn.Sequential(nn.Linear(features, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, outputs))


class SlowAssessor:
    """Takes its time, and waits for nothing but it: a window to interrupt a round in."""

    name = "slow"

    def plan(self, subject: Any, tier: str) -> Any:
        from fedsafe.assess import Cost

        return Cost(description="sleeps")

    def __call__(self, subject: Any, *, rng: np.random.Generator, tier: str) -> list[Any]:
        import time

        time.sleep(0.4)
        return []


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in values.items()}


HERE = Path(__file__).parent
__all__ = ["CLIENTS", "CONFIG", "HERE", "SlowAssessor", "Tensor", "batch_normalised", "config", "task"]
