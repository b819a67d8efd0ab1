"""How well learned rewards rank what the true ones rank: of a world where these are known."""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import nn

from fedsafe.alignment.gridworld import GOALS, GridWorld
from fedsafe.alignment.rewards import personal_outputs, personal_rewards, reconstruct
from fedsafe.data import ClientRows, Task
from fedsafe.params import Vector


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """Of one group of people.

    Args:
        tau: Kendall's tau-b of the mean of the people's learned rewards and the true one, over all cells and moves.
        least: The smallest tau of any of these people.
        accuracy: Share of their held-out pairs that their own rewards foretell.
    """

    tau: float
    least: float
    accuracy: float


def recovered(
    model: nn.Module, parameters: Vector, task: Task, rows: ClientRows, *, local: tuple[str, ...]
) -> dict[str, Recovered]:
    """What was learned of each goal of a grid world; each person's own part is found from their training pairs.

    Args:
        model: With the architecture of the run; it is left as it is.
        parameters: ``(parameters,)`` of the global model.
        task: From `fedsafe.alignment.gridworld.gridworld`.
        rows: Training records of each client; a client is one person.
        local: What stays with each person.
    """
    own = copy.deepcopy(model)
    nn.utils.vector_to_parameters(torch.from_numpy(parameters.copy()), own.parameters())
    people = reconstruct(own, task.kind, task.train, rows, local=local)
    world = GridWorld(side=_side(task))
    rewards = personal_rewards(own, people, world.everything)
    names = [str(task.train.holders["annotator"][part[0]]) for part in rows]
    goals = np.array([str(task.train.groups["goal"][part[0]]) for part in rows])
    owners = np.array([names.index(name) for name in task.evaluation.holders["annotator"]])
    foretold = personal_outputs(own, people, task.evaluation.x, owners)[:, 0] > 0
    right = foretold == (task.evaluation.y == 1)
    found = {}
    for goal, name in enumerate(GOALS):
        truth, theirs = world.everything @ world.truth(goal), rewards[goals == name]
        found[name] = Recovered(
            tau=_tau(theirs.mean(0), truth),
            least=min(_tau(one, truth) for one in theirs),
            accuracy=float(right[task.evaluation.groups["goal"] == name].mean()),
        )
    return found


def _side(task: Task) -> int:
    """Cells along an edge: all features but those of the four moves are cells."""
    return math.isqrt(task.schema.shape[-1] - 4)


def _tau(one: np.ndarray, other: np.ndarray) -> float:
    return float(stats.kendalltau(one, other).statistic)
