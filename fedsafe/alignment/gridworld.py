"""A grid world with known rewards, and simulated people of two goals who compare trajectories in it.

The world is public and drawn from a seed: nobody's records are in it. It is what an instrument is tried on whose truth
is known (Christiano et al., 2017, learn rewards from compared trajectories; Ng and Russell, 2000, use such a world).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedsafe.data import ArraySchema, Examples, Source, Task
from fedsafe.data.preferences import Preferences
from fedsafe.errors import ConfigError
from fedsafe.rng import public_generator

GOALS = ("north-west", "south-east")
"""The groups of people, by where they want to be."""
_MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])  # north, south, west, east
_EFFORT = np.array([0.11, 0.0, 0.07, 0.03])  # of each move, the same for everybody
# A little off the corners, so that no two cells are as far from a goal.
_OFF = np.array([0.13, 0.31])


@final
@dataclass(frozen=True, kw_only=True)
class GridWorld:
    """Cells on a square; a move off its edge stays where it is.

    The features of a cell and a move are which cell is reached and which move was made, each as one of so many ones.
    The reward for a goal is minus the distance of the cell reached to the goal, minus the effort of the move.

    Args:
        side: Cells along an edge.
    """

    side: int

    @property
    def features(self) -> int:
        """Width of a step's features."""
        return self.side**2 + len(_MOVES)

    @cached_property
    def reached(self) -> NDArray[np.int64]:
        """``(cells, moves)`` the cell that each move leads to."""
        cells = np.stack(np.divmod(np.arange(self.side**2), self.side), 1)
        moved = np.clip(cells[:, None] + _MOVES, 0, self.side - 1)
        return np.asarray(moved[..., 0] * self.side + moved[..., 1], np.int64)

    def encoded(self, cells: NDArray[np.int64], moves: NDArray[np.int64]) -> NDArray[np.float32]:
        """``(..., features)`` of moves made in cells."""
        place = np.eye(self.side**2, dtype=np.float32)[self.reached[cells, moves]]
        return np.concatenate([place, np.eye(len(_MOVES), dtype=np.float32)[moves]], -1)

    @property
    def everything(self) -> NDArray[np.float32]:
        """``(cells * moves, features)`` of every move in every cell."""
        cells, moves = np.divmod(np.arange(self.side**2 * len(_MOVES)), len(_MOVES))
        return self.encoded(cells, moves)

    def truth(self, goal: int) -> NDArray[np.float64]:
        """``(features,)`` weights whose product with a step's features is its true reward.

        Args:
            goal: Which of :data:`GOALS`.
        """
        cells = np.stack(np.divmod(np.arange(self.side**2), self.side), 1)
        at = _OFF if goal == 0 else self.side - 1 - _OFF[::-1]
        distance = np.linalg.norm(cells - at, axis=1)
        return np.concatenate([-distance, -_EFFORT])

    def walks(self, count: int, steps: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """``(count, steps, features)`` random walks from random cells."""
        at = rng.integers(0, self.side**2, count)
        found = np.empty((count, steps, self.features), np.float32)
        for step in range(steps):
            moves = rng.integers(0, len(_MOVES), count)
            found[:, step] = self.encoded(at, moves)
            at = self.reached[at, moves]
        return found


def gridworld(
    *,
    people: int = 40,
    pairs: int = 80,
    held_out: int = 20,
    side: int = 5,
    steps: int = 8,
    certainty: float = 0.5,
    seed: int = 0,
) -> Task:
    """Pairs of random walks, and which of each a person prefers: half of the people want to be at each goal.

    The first is preferred with probability ``sigmoid(certainty * (R(first) - R(second)))``, R a walk's summed true
    reward (Bradley and Terry, 1952). Name it by its import path:
    ``task = { name = "fedsafe.alignment.gridworld:gridworld", people = 40 }``.

    Args:
        people: Who judges; each is a client with ``partition = { name = "natural", by = "annotator" }``.
        pairs: Training pairs of each.
        held_out: Evaluation pairs of each.
        side: Cells along an edge of the world.
        steps: Of a walk.
        certainty: How much a difference in reward decides.
        seed: Of everything.

    Raises:
        ConfigError: A number is out of range.
    """
    numbers = {
        "people": (people, 2),
        "pairs": (pairs, 1),
        "held_out": (held_out, 1),
        "side": (side, 2),
        "steps": (steps, 1),
    }
    for name, (value, least) in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"gridworld: {name} = {value!r} is not a whole number from {least}")
    if not (isinstance(certainty, int | float) and 0.0 < certainty < float("inf")):
        raise ConfigError(f"gridworld: certainty = {certainty!r} is not a number above 0")
    world = GridWorld(side=side)
    rng = public_generator(seed, "gridworld")
    each = pairs + held_out
    walks = world.walks(2 * people * each, steps, rng).reshape(people * each, 2, steps, world.features)
    goals = np.arange(people) % 2
    rewards = np.stack([walks.sum(2) @ world.truth(goal) for goal in (0, 1)])
    ahead = np.repeat(goals, each)
    margin = rewards[ahead, np.arange(len(ahead)), 0] - rewards[ahead, np.arange(len(ahead)), 1]
    y = (rng.random(len(ahead)) < special.expit(certainty * margin)).astype(np.int64)
    names = np.repeat([f"person {number:03d}" for number in range(people)], each)
    everything = Examples(
        x=walks,
        y=y,
        groups={"goal": np.array(GOALS)[ahead]},
        holders={"annotator": names},
    )
    order = np.arange(people * each).reshape(people, each)
    train, evaluation = (everything.take(part.ravel()) for part in (order[:, :pairs], order[:, pairs:]))
    shown = np.arange(len(evaluation), dtype=np.int64)
    return Task(
        name="gridworld",
        kind="binary",
        classes=("second", "first"),
        schema=ArraySchema(shape=(2, steps, world.features), lowest=0.0, highest=1.0),
        train=train,
        evaluation=evaluation,
        evaluation_name=f"{held_out} further pairs of each simulated person (public)",
        evaluation_public=True,
        source=Source(
            name="A grid world of FedSafe's own", licence="Apache-2.0", note="simulated from a public seed"
        ),
        preferences=Preferences(
            annotators=evaluation.holders["annotator"], first=2 * shown, second=2 * shown + 1
        ),
    )
