"""A small table with dependent columns, a model of it, and images: what the monitor's tests look at."""

from functools import cache

import numpy as np
import torch
from torch import nn

from fedsafe.data import ArraySchema, Categorical, Examples, Label, Numeric, Schema, Source, Task
from fedsafe.serve import Guard, Monitor

SCHEMA = Schema(
    label=Label(column="y", classes=("no", "yes")),
    columns=(
        Categorical(name="sex", categories=("Female", "Male"), unknown="Female", group=True, immutable=True),
        Categorical(name="role", categories=("a", "b", "c", "d"), unknown="a"),
        Numeric(name="age", low=0, high=100, immutable=True),
        Numeric(name="income", low=0, high=10),
        Numeric(name="debt", low=0, high=10),
    ),
)


def draw(n: int, seed: int) -> Examples:
    """Role follows age, income follows role, debt follows income: columns that belong together."""
    rng = np.random.default_rng(seed)
    sex, age = rng.integers(0, 2, n), rng.beta(2, 2, n)
    role = np.clip((4 * age + rng.normal(0, 0.3, n)).astype(int), 0, 3)
    income = np.clip(role / 4 + 0.12 + rng.normal(0, 0.05, n), 0, 1)
    debt = np.clip(1 - income + rng.normal(0, 0.08, n), 0, 1)
    x = np.column_stack([np.eye(2)[sex], np.eye(4)[role], age, income, debt]).astype(np.float32)
    y = (income - debt + 0.1 * sex + rng.normal(0, 0.1, n) > 0).astype(np.int64)
    return Examples(x=x, y=y, groups={"sex": np.array(["Female", "Male"])[sex]})


@cache
def table() -> Task:
    return Task(
        name="columns",
        kind="binary",
        classes=("no", "yes"),
        schema=SCHEMA,
        train=draw(1500, 0),
        evaluation=draw(4000, 1),
        evaluation_name="made by hand (public)",
        source=Source(name="made by hand"),
        evaluation_public=True,
    )


def trained(task: Task, hidden: int = 16, steps: int = 150, *, flatten: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    x, y = torch.tensor(task.train.x), torch.tensor(task.train.y)
    layers = [nn.Flatten()] if flatten else []
    model = nn.Sequential(
        *layers, nn.Linear(task.features, hidden), nn.ReLU(), nn.Linear(hidden, task.outputs)
    )
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    loss = nn.BCEWithLogitsLoss() if task.outputs == 1 else nn.CrossEntropyLoss()
    for _ in range(steps):
        optimizer.zero_grad()
        loss(
            model(x)[:, 0] if task.outputs == 1 else model(x), y.float() if task.outputs == 1 else y
        ).backward()
        optimizer.step()
    return model.eval()


@cache
def model() -> nn.Sequential:
    return trained(table())


@cache
def monitor(level: float = 0.05) -> Monitor:
    return Monitor.fit(model(), table(), table().evaluation.take(np.arange(2500)), level=level)


def unseen() -> Examples:
    """Evaluation records that had no part in the monitor."""
    return table().evaluation.take(np.arange(2500, 4000))


def guard(**options) -> Guard:
    return Guard(model(), monitor(), table(), **options)


@cache
def images() -> Task:
    """Bars that lie or stand, on an image of 8 by 8."""

    def bars(n: int, seed: int) -> Examples:
        rng = np.random.default_rng(seed)
        y, at = rng.integers(0, 3, n), rng.integers(1, 7, n)
        x = 0.05 * rng.random((n, 1, 8, 8))
        rows = np.arange(n)
        for row in rows:
            if y[row] != 1:
                x[row, 0, at[row]] += 0.9
            if y[row] != 0:
                x[row, 0, :, at[row]] += 0.9
        return Examples(x=np.clip(x, 0, 1).astype(np.float32), y=y.astype(np.int64))

    return Task(
        name="bars",
        kind="multiclass",
        classes=("lying", "standing", "both"),
        schema=ArraySchema(shape=(1, 8, 8), lowest=0.0, highest=1.0),
        train=bars(800, 0),
        evaluation=bars(1500, 1),
        evaluation_name="made by hand (public)",
        source=Source(name="made by hand"),
        evaluation_public=True,
    )
