"""A run's own federation trained again with other targets, for judging what its rule withstands; never a release."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from fedsafe.params import Vector
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import key_from_seed
from fedsafe.runs.compose import Parts
from fedsafe.runs.stacked_runs import PreparedRun, stacked_runs


def train_again(
    parts: Parts, plan: PrivacyPlan, targets: Sequence[NDArray[np.int64]], rounds: int, key: bytes
) -> list[Vector]:
    """The models after so many rounds, one for each choice of targets: same plan, rule, optimiser and availability.

    All of them have the same cohorts, batches and start, so that models differ by their targets alone.

    Args:
        parts: The run's.
        plan: Its plan.
        targets: Each ``(n,)``, in place of those of all training records.
        rounds: How many, at most those that are planned.
        key: Of cohorts, batches and noise; never the run's. Runs that are paired have the key of their seed.

    Raises:
        FedSafeError: A run failed.
    """
    secret = key_from_seed(parts.config.seed) if parts.config.privacy.paired else key
    last = min(rounds, plan.rounds)
    runs = [PreparedRun(parts=_with_targets(parts, found), plan=plan, key=secret) for found in targets]
    models: dict[int, Vector] = {}
    waiting = set(range(len(runs)))
    threads = torch.get_num_threads()
    outcomes = stacked_runs(runs)
    try:
        while waiting and (found := next(outcomes, None)) is not None:
            number, outcome = found
            if number in waiting:
                models[number] = outcome.parameters
            if outcome.round >= last:
                waiting.discard(number)
    finally:
        outcomes.close()
        torch.set_num_threads(threads)
    return [models[number] for number in range(len(runs))]


def _with_targets(parts: Parts, y: NDArray[np.int64]) -> Parts:
    task = replace(parts.task, train=replace(parts.task.train, y=y))
    return replace(parts, federated=replace(parts.federated, task=task))
