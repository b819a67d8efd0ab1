"""Clients that are canaries: each sends a random direction, of a hundred clips, whenever it is in a cohort.

They are registered beside the others, sampled by the same Poisson draw, clipped and summed by the same rule. The
adversary is the claim's: it sees every broadcast model, and knows what the other clients sent, as whoever differential
privacy holds against may.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation import ServerOptimizer
from fedsafe.aggregation.server_optimizers import Sgd
from fedsafe.audit.canaries import RAW, Canaries, CosineFigures, coins
from fedsafe.audit.setting import Setting
from fedsafe.client import ClientJob, Trainer, build_trainer
from fedsafe.errors import ConfigError
from fedsafe.federation import RoundOutcome
from fedsafe.params import Layout, Vector
from fedsafe.privacy.audit import cosine_bound, cosine_estimate, paired_cosine_estimate
from fedsafe.privacy.clipping import clip_rows
from fedsafe.privacy.mechanisms import grid_bits
from fedsafe.rng import public_generator

# Dimensions for each canary: with fewer, canaries are in each other's way.
_ROOM = 4
_LARGEST = 2**28  # values of all directions together: 1 GiB


class CanaryClients(Canaries):
    """Canary clients, registered after the others.

    Args:
        setting: The run.
        canaries: How many.
        key: Secret of the coins.
        seed: Of the directions, which are public.

    Raises:
        ConfigError: The directions would not fit the memory.
    """

    def __init__(self, setting: Setting, canaries: int, key: bytes, seed: int) -> None:
        self.included = coins(key, canaries)
        self.scores = np.zeros(canaries)
        natural = len(setting.records)
        level = setting.plan.client
        bits = min(level.grid_bits, grid_bits(level.clip, natural + canaries, level.noise))
        # Everyone is as likely to be in a cohort as in the run, or the bound would be that of another plan.
        size = level.cohort_size and -(-level.cohort_size * (natural + canaries) // natural)
        audited = replace(level, grid_bits=bits, cohort_size=size)
        self.plan = replace(setting.plan, clients=natural + canaries, client=audited)
        # As many records as the largest client says that it has, where a rule weighs by them.
        largest = max(len(rows) for rows in setting.records)
        pretended = np.full(largest, setting.records[0][0], np.int64)
        self.records = [*(np.asarray(r, np.int64) for r in setting.records), *[pretended] * canaries]
        inner = build_trainer(
            setting.trainer,
            setting.module,
            setting.objective,
            setting.x,
            setting.y,
            setting.training,
            device=setting.device,
            precision=setting.precision,
        )
        own = inner.layout.total
        room = room_of(canaries, own)
        directions = public_generator(seed, "audit directions").standard_normal(
            (canaries, own + room), np.float32
        )
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        self._directions = directions
        self.trainer = self._trainer = _TrainerOfAll(
            inner, natural, room, RAW * level.clip * directions * self.included[:, None], level.clip
        )
        trained = [p.detach().flatten().numpy() for p in setting.module.parameters() if p.requires_grad]
        self.initial = np.concatenate([*trained, np.zeros(room)]).astype(np.float32)
        self._last, self._velocity = self.initial.astype(np.float64), np.zeros(own + room)
        self._sum, self._largest = np.zeros(own + room), np.full(canaries, -1.0)
        self._optimizer: ServerOptimizer = setting.optimizer

    def see(self, outcome: RoundOutcome) -> None:
        """Take the noised mean out of the step of the model, and what the other clients sent out of that."""
        model = outcome.parameters.astype(np.float64)
        step, self._last = model - self._last, model
        sent = self._trainer.take_sent()
        if isinstance(self._optimizer, Sgd):
            velocity = step / self._optimizer.learning_rate
            step = velocity - self._optimizer.momentum * self._velocity - sent / self.plan.divisor
            self._velocity = velocity
        self._sum += step
        along = self._directions @ step
        self.scores += along
        self._largest = np.maximum(self._largest, along / max(float(np.linalg.norm(step)), 1e-300))

    def cosines(self, delta: float, confidence: float) -> CosineFigures | None:
        """By the sum of all rounds, and by the round in which each canary shows most."""
        included = self.included
        if min(included.sum(), (~included).sum()) < 2 or not self._sum.any():
            return None
        summed = (self._directions @ (self._sum / np.linalg.norm(self._sum))).astype(np.float64)
        dimension = len(self._sum)
        return CosineFigures(
            sum_of_rounds=cosine_estimate(summed[included], dimension, delta),
            largest_of_rounds=paired_cosine_estimate(
                self._largest[included], self._largest[~included], delta
            ),
            bound=cosine_bound(summed[included], dimension, delta, confidence),
        )


def room_of(canaries: int, own: int) -> int:
    """Parameters that are added to a model, for canaries not to be in each other's way.

    Args:
        canaries: How many.
        own: Parameters of the model.

    Raises:
        ConfigError: The directions of all would not fit the memory.
    """
    room = max(0, _ROOM * canaries - own)
    if (own + room) * canaries > _LARGEST:
        raise ConfigError(
            f"{canaries} canary clients of {own + room} parameters do not fit the memory: use fewer canaries"
        )
    return room


class _TrainerOfAll:
    """Trains natural clients with the audited trainer, and gives each canary its direction.

    Args:
        inner: The audited trainer.
        natural: How many natural clients there are; canaries have the numbers after them.
        room: Parameters beside the model's, at which natural clients do nothing.
        updates: ``(canaries, parameters)`` of the canaries; zero for those that are out.
        clip: Of the client level.
    """

    def __init__(
        self, inner: Trainer, natural: int, room: int, updates: NDArray[np.float32], clip: float
    ) -> None:
        self.name = inner.name
        shapes = (*inner.layout.shapes, (room,)) if room else inner.layout.shapes
        names = (*inner.layout.names, "room of the canaries") if room else inner.layout.names
        self.layout = Layout(names=names, shapes=shapes)
        self._inner, self._natural, self._clip = inner, natural, clip
        self._updates = updates.astype(np.float32)
        self._sent = np.zeros(self.layout.total)

    def train(self, parameters: Vector, jobs: Sequence[ClientJob]) -> NDArray[np.float32]:
        """See :class:`~fedsafe.client.trainer.Trainer`."""
        own = self._inner.layout.total
        trained = np.tile(parameters, (len(jobs), 1))
        places = [place for place, job in enumerate(jobs) if job.client < self._natural]
        if places:
            trained[places, :own] = self._inner.train(
                parameters[:own].copy(), [_cut(jobs[place], own) for place in places]
            )
            updates = trained[places].astype(np.float64) - parameters.astype(np.float64)
            self._sent += clip_rows(updates, self._clip).sum(0)
        for place, job in enumerate(jobs):
            if job.client >= self._natural:
                trained[place] += self._updates[job.client - self._natural]
        return trained

    def take_sent(self) -> NDArray[np.float64]:
        """``(parameters,)`` clipped sum of what natural clients sent since this was asked last."""
        sent, self._sent = self._sent, np.zeros(self.layout.total)
        return sent


def _cut(job: ClientJob, own: int) -> ClientJob:
    """The job for the model without the room beside it."""
    start = None if job.start is None else job.start[:own].copy()
    correction = None if job.correction is None else job.correction[:own].copy()
    return replace(job, start=start, correction=correction)
