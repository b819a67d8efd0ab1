"""Federations whose models learn their records by heart, and attacked models that never saw any."""

from dataclasses import replace

import numpy as np
import torch
from kinds_of_task import make_task
from torch import nn

from fedsafe.assess import ClientRecords, Federation, Subject
from fedsafe.client import ClientJob, LocalTraining, build_objective, build_trainer
from fedsafe.data import ArraySchema, Examples
from fedsafe.rng import Stream, StreamId

CLIENTS, RECORDS = 10, 100


def federated(
    seed: int, *, rounds: int = 8, steps: int = 5, rate: float = 0.4, clip: float = np.inf, noise: float = 0.0
) -> Subject:
    """A subject after federated averaging, in which every client takes part in every round.

    1,000 members and as many others of one distribution; the labels of three tenths follow from nothing.
    """
    rng = np.random.default_rng(seed)
    members, others = _drawn(rng, CLIENTS * RECORDS), _drawn(rng, CLIENTS * RECORDS)
    schema = ArraySchema(shape=(1, 16, 16), lowest=-1.0, highest=1.0)
    task = replace(make_task("multiclass", 1), schema=schema, train=members, evaluation=others)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    initial = nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    training = LocalTraining(learning_rate=0.5, steps=steps, rate=rate, clip=clip, noise=noise)
    objective = build_objective("cross_entropy", "multiclass")
    rows = tuple(np.arange(CLIENTS * RECORDS).reshape(CLIENTS, RECORDS))
    x, y = torch.tensor(members.x), torch.tensor(members.y)
    trainer = build_trainer("stacked", model, objective, x, y, training)
    weights = initial
    for round in range(1, rounds + 1):
        jobs = [
            ClientJob(client=c, records=rows[c], batches=_stream("b", c, round), noise=_stream("n", c, round))
            for c in range(CLIENTS)
        ]
        weights = trainer.train(weights, jobs).mean(axis=0, dtype=np.float64).astype(np.float32)
    return Subject(
        model=model,
        task=task,
        evaluation=others,
        evaluation_name="made by hand (public)",
        round=rounds,
        training=ClientRecords(examples=members, rows=rows),
        federation=Federation(
            training=training,
            trainer="stacked",
            objective=objective,
            initial=initial,
            participations=rounds,
        ),
    ).with_parameters(weights)


def never_trained(seed: int) -> Subject:
    """The same federation, and in the place of its model one that was trained on other records of the distribution."""
    subject, other = federated(seed), federated(seed + 1)
    return replace(subject, model=other.model)


def _drawn(rng: np.random.Generator, n: int) -> Examples:
    x = rng.uniform(-1, 1, (n, 1, 16, 16))
    y = rng.integers(0, 3, n)
    for row, label in zip(x, y, strict=True):
        row[0, 5 * label : 5 * label + 5] += 0.4
    told = np.where(rng.random(n) < 0.3, rng.integers(0, 3, n), y)
    return Examples(x=np.clip(x, -1, 1), y=told)


def _stream(purpose: str, client: int, round: int) -> Stream:
    return Stream(b"k" * 32, StreamId(purpose=purpose, client=client, round=round, digest=b""))
