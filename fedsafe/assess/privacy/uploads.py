"""What a server sees of single clients: the updates that the run's own trainer makes of chosen records."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsafe.assess.base import Subject
from fedsafe.assess.clients import Federation
from fedsafe.client import ClientJob, LocalTraining, build_trainer
from fedsafe.data import Examples
from fedsafe.params import Vector
from fedsafe.rng import KEY_BYTES, Stream, StreamId

Array = NDArray[np.float64]


def whole_batches(training: LocalTraining, *, steps: int, noised: bool) -> LocalTraining:
    """The run's training where every record is in every step's batch.

    Args:
        training: The run's.
        steps: Local steps.
        noised: Whether clip and noise stay; the learning rate always does.
    """
    way = replace(training, steps=steps, rate=1.0, batch_size=None, rounds=1, proximal=0.0)
    return way if noised else replace(way, clip=np.inf, noise=0.0, grid_bits=None)


def updates(
    subject: Subject,
    federation: Federation,
    examples: Examples,
    rows: Sequence[NDArray[np.int64]],
    training: LocalTraining,
    rng: np.random.Generator,
) -> Array:
    """``(clients, parameters)``: broadcast less trained parameters, which have the direction of a gradient.

    In single precision before the difference, as they are sent.

    Args:
        subject: Whose model is broadcast.
        federation: Its trainer and its objective.
        examples: The records.
        rows: Of each client.
        training: How each trains.
        rng: Gives a key of its own to batches and noise, never the run's.
    """
    key, start = rng.bytes(KEY_BYTES), parameters_of(subject.model)
    x, y = torch.tensor(examples.x), torch.tensor(examples.y)
    module = subject.with_parameters(start).model.train()
    trainer = build_trainer(federation.trainer, module, federation.objective, x, y, training)

    def stream(purpose: str, client: int) -> Stream:
        return Stream(key, StreamId(purpose=f"upload: {purpose}", client=client, round=0, digest=b""))

    jobs = [
        ClientJob(
            client=client, records=own, batches=stream("batches", client), noise=stream("noise", client)
        )
        for client, own in enumerate(rows)
    ]
    return np.asarray(start.astype(np.float64) - trainer.train(start, jobs).astype(np.float64))


def parameters_of(model: nn.Module) -> Vector:
    """``(parameters,)`` those that are trained, in the trainers' order."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    vector: Vector = torch.nn.utils.parameters_to_vector(trainable).detach().float().cpu().numpy()
    return vector


def gradient(subject: Subject, federation: Federation, examples: Examples) -> Array:
    """``(parameters,)``: of the mean loss of some records, at the subject's model; zero where it is not finite."""
    trainable = [p for p in subject.model.parameters() if p.requires_grad]
    with torch.enable_grad():
        batch = (subject.tensor(examples.x), subject.tensor(examples.y))
        loss = federation.objective(subject.model, batch).mean()
        parts = torch.autograd.grad(loss, trainable, allow_unused=True)
    whole = [torch.zeros_like(p) if g is None else g for p, g in zip(trainable, parts, strict=True)]
    found = torch.cat([part.flatten() for part in whole]).double().cpu().numpy()
    return found if np.isfinite(found).all() else np.zeros_like(found)
