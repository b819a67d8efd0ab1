"""Models of single clients, trained in a simulation as the run would train them, and what they score and would cost."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.clients import ClientRecords, Federation
from fedsafe.client import ClientJob, build_trainer
from fedsafe.params import Vector
from fedsafe.privacy.accounting import COARSE, SampledGaussian, epsilon
from fedsafe.rng import KEY_BYTES, Stream, StreamId

Indices = NDArray[np.int64]

# Clients in one call of the trainer: their activations stay within the cache of a core or two.
_AT_ONCE = 10


def train_alone(
    subject: Subject,
    federation: Federation,
    records: ClientRecords,
    clients: Indices,
    start: Vector,
    rounds: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Each client's parameters after the steps of so many rounds on its own records.

    Args:
        subject: With the architecture.
        federation: How clients train. A pull towards the broadcast model is left out: there is none.
        records: What they train on.
        clients: ``(n,)`` which clients.
        start: ``(parameters,)`` where they start.
        rounds: How many rounds' worth of steps.
        rng: Gives a key of its own to batches and noise, never the run's.

    Returns:
        ``(n, parameters)``.
    """
    key = rng.bytes(KEY_BYTES)
    x, y = torch.tensor(records.examples.x), torch.tensor(records.examples.y)
    # One long round, over which the learning rate has its schedule.
    steps = rounds * federation.training.steps
    training = replace(federation.training, steps=steps, rounds=1, proximal=0.0)
    module = subject.with_parameters(start).model.train()
    trainer = build_trainer(federation.trainer, module, federation.objective, x, y, training)

    def stream(purpose: str, client: int) -> Stream:
        return Stream(key, StreamId(purpose=f"alone: {purpose}", client=client, round=0, digest=b""))

    jobs = [
        ClientJob(
            client=client,
            records=records.rows[client],
            batches=stream("batches", client),
            noise=stream("record noise", client),
        )
        for client in map(int, clients)
    ]
    return np.concatenate(
        [trainer.train(start, jobs[at : at + _AT_ONCE]) for at in range(0, len(jobs), _AT_ONCE)]
    )


def own_scores(
    subject: Subject, own: ClientRecords, clients: Indices, parameters: NDArray[np.float32]
) -> NDArray[np.float64]:
    """``(n,)`` mean bounded score of each client's model on its own records.

    Args:
        subject: With the architecture.
        own: Records to judge on, by client.
        clients: ``(n,)`` which clients.
        parameters: ``(n, parameters)`` of each client's model.
    """
    found = []
    for client, row in zip(map(int, clients), parameters, strict=True):
        model = subject.with_parameters(row)
        found.append(float(model.per_record(own.examples.take(own.rows[client]))[1].mean()))
    return np.array(found)


def own_budget(federation: Federation, rounds: int, *, fine_tuned: bool) -> dict[str, Any]:
    """What releasing a model after the steps of so many rounds would cost one record of its client.

    Args:
        federation: How clients train.
        rounds: How many rounds' worth of steps.
        fine_tuned: Whether they start from the run's model, whose own epsilon then comes on top.
    """
    training = federation.training
    detail: dict[str, Any] = {"steps": rounds * training.steps, "delta": federation.delta}
    if federation.delta is None or training.noise == 0 or not math.isfinite(training.clip):
        return {**detail, "epsilon_of_these_steps": None, "budget": "no guarantee: these steps have no noise"}
    released = SampledGaussian(rate=training.rate, noise=training.noise, count=rounds * training.steps)
    budget = "for one record, if the model were released with secret noise; the noise here is public"
    return {
        **detail,
        "epsilon_of_these_steps": epsilon(released, federation.delta, COARSE),
        "budget": f"{budget}; on top of the run's epsilon" if fine_tuned else budget,
    }
