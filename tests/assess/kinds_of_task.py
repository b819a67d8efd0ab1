"""One tiny federation for each kind of task, with everything that an assessor may ask for."""

from typing import Any

import numpy as np
import torch
from torch import nn

from fedsafe.assess import ClientRecords, Federation, Subject
from fedsafe.client import LocalTraining, build_objective
from fedsafe.data import (
    ArraySchema,
    Categorical,
    Examples,
    Label,
    Numeric,
    Schema,
    Source,
    Target,
    Task,
    TokenSchema,
)

KINDS = ("binary", "multiclass", "regression", "next_token")
CLIENTS, UNSEEN = 24, 8
RECORDS, OWN, EVALUATION = 20, 10, 480  # of each client, of each client, of all
TOKENS, LENGTH = 5, 6
CLAIMS = (
    {"unit": "record", "epsilon": 3.0, "delta": 1e-5, "adversary": "server", "group_epsilon": 7.5},
    {"unit": "client", "epsilon": None},
)

COLUMNS = (
    *(Numeric(name=f"a{i}", low=-5, high=5, encoded=(-1.0, 1.0)) for i in range(4)),
    Categorical(name="sex", categories=("Female", "Male"), unknown="Female", group=True, immutable=True),
)


class Shift(nn.Module):
    """Adds a buffer: what a model holds besides parameters."""

    def __init__(self, amount: float = 0.1) -> None:
        super().__init__()
        self.register_buffer("amount", torch.tensor(amount))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.amount


class Scaled(nn.Module):
    """A model whose outputs are multiplied by a number, with which 0 gives constants."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x) * self.factor


def make_task(kind: str, n: int = EVALUATION) -> Task:
    """A task whose targets follow from the inputs, with noise."""
    train, evaluation = _examples(kind, CLIENTS * (RECORDS + OWN) + UNSEEN * OWN, 1), _examples(kind, n, 2)
    label = Label(column="y", classes=("no", "yes"))
    target = Target(name="score", low=0.0, high=50.0, unit="points")
    schema: Any = {
        "binary": Schema(label=label, columns=COLUMNS),
        "multiclass": ArraySchema(shape=(1, 8, 8), lowest=0.0, highest=1.0),
        "regression": Schema(target=target, columns=COLUMNS),
        "next_token": TokenSchema(tokens=tuple("abcde"), length=LENGTH),
    }[kind]
    classes = {
        "binary": ("no", "yes"),
        "multiclass": ("left", "right", "top"),
        "regression": (),
        "next_token": tuple("abcde"),
    }
    return Task(
        name=f"tiny {kind}",
        kind=kind,  # type: ignore[arg-type]
        classes=classes[kind],
        schema=schema,
        train=train,
        evaluation=evaluation,
        evaluation_name="made by hand (public)",
        source=Source(name="made by hand"),
        evaluation_public=True,
        target=target if kind == "regression" else None,
    )


def _examples(kind: str, n: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    groups = {"sex": np.where(rng.random(n) < 0.5, "Male", "Female")}
    if kind == "next_token":
        # Each token is mostly the one after the last.
        jumps = np.where(rng.random((n, LENGTH + 1)) < 0.8, 1, rng.integers(0, TOKENS, (n, LENGTH + 1)))
        tokens = np.cumsum(jumps, axis=1) % TOKENS
        return Examples(x=tokens[:, :-1], y=tokens[:, 1:], groups=groups)
    if kind == "multiclass":
        y = rng.integers(0, 3, n)
        x = rng.random((n, 1, 8, 8)) * 0.5
        places = ((slice(None), slice(0, 4)), (slice(None), slice(4, 8)), (slice(0, 2), slice(None)))
        for row, label in zip(x, y, strict=True):
            row[0][places[label]] += 0.3
        return Examples(x=x, y=y, groups=groups)
    free = rng.uniform(-1, 1, (n, 4))
    male = (groups["sex"] == "Male").astype(np.int64)
    score = free @ [1.0, -0.7, 0.4, 0.0] + 0.2 * male + rng.normal(0, 0.3, n)
    x = np.concatenate([free, np.eye(2)[male]], axis=1)
    if kind == "binary":
        return Examples(x=x, y=(score > 0).astype(np.int64), groups=groups)
    return Examples(x=x, y=np.clip(score / 2, -1, 1).astype(np.float32), groups=groups)


def make_model(kind: str, seed: int = 0) -> nn.Module:
    """A small random network that every trainer can train."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "next_token":
            return nn.Sequential(nn.Embedding(TOKENS, 8), Shift(), nn.Linear(8, TOKENS)).eval()
        if kind == "multiclass":
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), Shift(), nn.Linear(8, 3)).eval()
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), Shift(), nn.Linear(8, 1)).eval()


def make_subject(kind: str, model: nn.Module | None = None, task: Task | None = None) -> Subject:
    """A subject in the middle of a simulated run."""
    task = make_task(kind) if task is None else task
    starts = np.cumsum([0, CLIENTS * RECORDS, CLIENTS * OWN])
    parts = [
        tuple(start + np.arange(clients * size).reshape(clients, size))
        for start, clients, size in zip(starts, (CLIENTS, CLIENTS, UNSEEN), (RECORDS, OWN, OWN), strict=True)
    ]
    training, own, unseen = (ClientRecords(examples=task.train, rows=rows) for rows in parts)
    initial = nn.utils.parameters_to_vector(make_model(kind, 7).parameters()).detach().numpy()
    federation = Federation(
        training=LocalTraining(learning_rate=0.5, steps=2, rate=0.25, clip=1.0, noise=0.3),
        trainer="stacked",
        objective=build_objective("squared_error" if kind == "regression" else "cross_entropy", task.kind),
        initial=initial,
        participations=2,
        delta=1e-5,
        own=own,
    )
    return Subject(
        model=(make_model(kind) if model is None else model).eval(),
        task=task,
        evaluation=task.evaluation,
        evaluation_name=task.evaluation_name,
        shards=tuple(np.array_split(np.arange(len(task.evaluation)), 2 * CLIENTS)),
        claims=CLAIMS,
        round=3,
        training=training,
        validation=own,
        unseen=unseen,
        federation=federation,
        previous=make_model(kind, 5),
    )
