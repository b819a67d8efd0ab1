"""Whether a rule can tell honest clients apart from adversaries at all: what the clients' own noise leaves of that.

A rule is (f, kappa)-robust if its result is no farther from the honest mean than ``sqrt(kappa)`` times the honest
updates' root mean square distance from it, whatever f of n clients send; no rule has a kappa below ``f / (n - 2 f)``
(Allouah et al., "Fixing by mixing", AISTATS 2023, definition 2 and proposition 6). Noise that clients add to their
updates is part of that distance, and grows with the number of parameters where the mean does not: that the two do not
add up was seen first by Guerraoui et al. (PODC 2021), and is quantified by Allouah et al. (ICML 2023).

The rule of thumb here: where ``sqrt(f / (n - 2 f))`` times that distance reaches the length of the honest mean itself,
no rule's guarantee keeps the result from pointing anywhere. The protection is then **vacuous** from the first round on,
whatever a measured accuracy says of the few attacks that were tried.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsafe.client import ClientJob, LocalTraining, Trainer
from fedsafe.rng import Stream, StreamId
from fedsafe.runs.stacked_runs import PreparedRun


@dataclass(frozen=True, kw_only=True)
class HonestUpdates:
    """What every client would send in the first round, had it no adversaries.

    Args:
        clients: n.
        mean: Length of the mean of the clients' updates, before noise.
        spread: Root mean square distance of the updates from that mean, before noise.
        noise: Root mean square length of what noise changes in an update.
    """

    clients: int
    mean: float
    spread: float
    noise: float

    def reach(self, adversaries: int) -> float:
        """How far from the honest mean the best guarantee of any rule lets a result be, over the mean's length.

        Args:
            adversaries: f; with half of the clients or more there is no guarantee, and the reach is infinite.
        """
        return _over(_least_kappa(self.clients, adversaries) * math.hypot(self.spread, self.noise), self.mean)

    def reach_without_noise(self, adversaries: int) -> float:
        """The same, had the clients added no noise."""
        return _over(_least_kappa(self.clients, adversaries) * self.spread, self.mean)

    def vacuous(self, adversaries: int) -> bool:
        """Whether noise is what makes every rule's guarantee empty."""
        return self.reach(adversaries) >= 1.0 > self.reach_without_noise(adversaries)


def _least_kappa(clients: int, adversaries: int) -> float:
    """The square root of the least kappa of any rule."""
    if 2 * adversaries >= clients:
        return math.inf
    return math.sqrt(adversaries / (clients - 2 * adversaries))


def _over(length: float, mean: float) -> float:
    return length / mean if mean > 0.0 else math.inf


def honest_updates(run: PreparedRun, trainer: Trainer) -> HonestUpdates:
    """Train every client from the initial model on the same batches, once with noise and once without.

    Un-noised updates are the simulation's view, of which two lengths are kept: no figure for release.

    Args:
        run: Without attack or poison.
        trainer: Its clients'.
    """
    parts, way = run.parts, run.training
    silent = replace(way, noise=0.0)

    def train(training: LocalTraining) -> NDArray[np.float64]:
        jobs = [
            ClientJob(
                client=client,
                records=parts.records[client],
                batches=_stream(run, "look at honest batches", client),
                noise=_stream(run, "look at honest noise", client),
                training=training,
            )
            for client in range(len(parts.records))
        ]
        return trainer.train(parts.initial, jobs).astype(np.float64) - parts.initial.astype(np.float64)

    clean = train(silent)
    noise = np.linalg.norm(train(way) - clean, axis=1) if way.noise else np.zeros(len(clean))
    mean = clean.mean(axis=0)
    return HonestUpdates(
        clients=len(clean),
        mean=float(np.linalg.norm(mean)),
        spread=_root_mean_square(np.linalg.norm(clean - mean, axis=1)),
        noise=_root_mean_square(noise),
    )


def _stream(run: PreparedRun, purpose: str, client: int) -> Stream:
    """A purpose of its own: no stream of the run's rounds is met."""
    return Stream(run.key, StreamId(purpose=purpose, client=client, round=0, digest=b""))


def _root_mean_square(lengths: NDArray[np.float64]) -> float:
    return math.sqrt(float(np.square(lengths).mean()))
