"""Shadow models: trained like the run's own, all of them as one stack, each on its own half of the records."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.clients import Federation
from fedsafe.client import ClientJob, LocalTraining, build_trainer
from fedsafe.data import Examples
from fedsafe.rng import KEY_BYTES, Stream, StreamId

Array = NDArray[np.float64]

LEFT_OUT = "cohorts, drift between clients, the server's optimiser, and the client level's clip and noise"
"""What a shadow's training does not imitate."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a shadow model trains: the run's rounds, as if one client held all records.

    Attributes:
        training: Steps, rate, clip and noise of a model.
        batch: Records in a step, expected.
        asked: What the batch would be if it were as large as the run's.
    """

    training: LocalTraining
    batch: float
    asked: float

    @property
    def passes(self) -> int:
        """Examples that pass through one model, forward and backward."""
        return math.ceil(self.training.steps * self.batch)

    def to_detail(self) -> dict[str, Any]:
        """For a finding."""
        training = self.training
        return {
            "steps": training.steps,
            "batch": self.batch,
            "batch_of_the_run": self.asked,
            "clip": training.clip,
            "noise": training.noise,
            "left_out": LEFT_OUT,
        }


def recipe_of(federation: Federation, rounds: int, clients: int, records: int, passes: int) -> Recipe:
    """The training of a shadow model that stands for so many rounds of a run.

    A round's steps of m clients, averaged, are about as many steps on their batches together; noise on each of m sums,
    averaged, is noise of sqrt(m) times the multiplier on the sum of all. A batch that is cut to `passes` keeps the
    noise on its mean.

    Args:
        federation: How clients train.
        rounds: So far, at least one.
        clients: That hold records.
        records: Of all of them, and of a shadow model.
        passes: Examples that may pass through one model.
    """
    training = federation.training
    cohort = max(1.0, clients * min(1.0, federation.participations / rounds))
    own = training.rate * records / clients if training.batch_size is None else float(training.batch_size)
    steps, asked = rounds * training.steps, max(1.0, cohort * own)
    batch = min(asked, float(records), max(1.0, passes / steps))
    return Recipe(
        training=replace(
            training,
            steps=steps,
            rate=batch / records,
            noise=training.noise * math.sqrt(cohort) * batch / asked,
            batch_size=None,
            proximal=0.0,
            rounds=1,
            grid_bits=None,
        ),
        batch=batch,
        asked=asked,
    )


def train_shadows(
    subject: Subject,
    federation: Federation,
    examples: Examples,
    chosen: list[NDArray[np.int64]],
    recipe: Recipe,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """``(shadows, parameters)``: models trained in one call of the trainer, each with its own batches and noise.

    Args:
        subject: With the architecture.
        federation: Its trainer, its objective, and where the run began.
        examples: The records.
        chosen: Rows of each model.
        recipe: How each trains.
        rng: Gives a key of its own to batches and noise, never the run's.
    """
    key = rng.bytes(KEY_BYTES)
    x, y = torch.tensor(examples.x), torch.tensor(examples.y)
    module = subject.with_parameters(federation.initial).model.train()
    trainer = build_trainer(
        federation.trainer,
        module,
        federation.objective,
        x,
        y,
        recipe.training,
        stack=len(chosen),
    )

    def stream(purpose: str, shadow: int) -> Stream:
        return Stream(key, StreamId(purpose=f"shadow: {purpose}", client=shadow, round=0, digest=b""))

    jobs = [
        ClientJob(
            client=shadow, records=rows, batches=stream("batches", shadow), noise=stream("noise", shadow)
        )
        for shadow, rows in enumerate(chosen)
    ]
    return trainer.train(federation.initial, jobs)


def losses_of(subject: Subject, models: NDArray[np.float32], examples: Examples) -> Array:
    """``(models, records)`` losses.

    Args:
        subject: With the architecture.
        models: ``(models, parameters)``.
        examples: The records.
    """
    return np.stack([subject.with_parameters(row).per_record(examples)[0] for row in models])
