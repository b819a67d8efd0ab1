"""People with tastes, who judge pairs of items with known merits, and rewards of which the truth is known."""

from typing import Any

import numpy as np
import torch
from torch import nn

from fedsafe.assess import Subject
from fedsafe.data import ArraySchema, Examples, Source, Task
from fedsafe.data.preferences import Preferences


class FirstFeature(nn.Module):
    """A reward that is one feature of an item, or a sum of some, and what it gives for pairs."""

    def __init__(self, weights: Any, position: float = 0.0, ties: bool = False) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float32))
        self.position, self.ties = position, ties

    def reward(self, features: torch.Tensor) -> torch.Tensor:
        return features @ self.weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rewards = self.reward(x)
        margin = rewards[:, :1] - rewards[:, 1:] + self.position
        return torch.cat([-margin / 2, margin / 2, torch.zeros_like(margin)], 1) if self.ties else margin


def make_task(
    *,
    seed: int = 0,
    people: int = 40,
    items: int = 60,
    pairs: int = 30,
    noise: float = 0.0,
    turned: int = 0,
    ratings: bool = True,
    ties: bool = False,
    same_pairs: bool = False,
    public: bool = True,
    lengths: bool = True,
) -> Task:
    """Features of an item: its merit, its length, noise. People prefer merit, of which each sees a noisy reading.

    Args:
        seed: Of everything.
        people: How many.
        items: How many.
        pairs: Of each person.
        noise: Standard deviation of a person's reading of an item's merit, which itself has 1.
        turned: People who prefer what has less merit.
        ratings: Whether the readings are given as ratings.
        ties: Whether readings that differ by less than 0.3 are ties.
        same_pairs: Whether everybody judges the same pairs.
        public: Whether the records are.
        lengths: Whether they are known.
    """
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(items, 3)).astype(np.float32)
    taste = np.where(np.arange(people) < turned, -1.0, 1.0)
    readings = taste[:, None] * features[:, 0] + noise * rng.normal(size=(people, items))
    who = np.repeat(np.arange(people), pairs)
    shared, drawn = _pairs(pairs, items, rng), _pairs(people * pairs, items, rng)
    pair = np.tile(shared, (people, 1)) if same_pairs else drawn
    gap = readings[who, pair[:, 0]] - readings[who, pair[:, 1]]
    y = (gap > 0).astype(np.int64)
    if ties:
        y[np.abs(gap) < 0.3] = 2
    names = np.array([f"person {k:03}" for k in range(people)])
    # A person rates the items of her pairs.
    rated = np.unique(np.stack([np.repeat(who, 2), pair.ravel()], axis=1), axis=0)
    preferences = Preferences(
        annotators=names[who],
        first=pair[:, 0],
        second=pair[:, 1],
        items=tuple(f"item {k}" for k in range(items)),
        lengths=np.round(100 + 20 * features[:, 1]) if lengths else np.empty(0),
        raters=rated[:, 0] if ratings else np.empty(0, np.int64),
        rated=rated[:, 1] if ratings else np.empty(0, np.int64),
        ratings=readings[rated[:, 0], rated[:, 1]] if ratings else np.empty(0),
        annotator_names=tuple(names),
        features=features,
    )
    half = np.where(np.arange(people) % 2 == 0, "even", "odd")
    examples = Examples(x=features[pair], y=y, groups={"half": half[who]}, holders={"annotator": names[who]})
    return Task(
        name="merit",
        kind="multiclass" if ties else "binary",
        classes=("second", "first", "tie") if ties else ("second", "first"),
        schema=ArraySchema(shape=(2, 3), lowest=-6.0, highest=6.0),
        train=examples,
        evaluation=examples,
        evaluation_name="made by hand" + (" (public)" if public else " (private)"),
        source=Source(name="made by hand"),
        evaluation_public=public,
        preferences=preferences,
    )


def _pairs(count: int, items: int, rng: np.random.Generator) -> Any:
    first = rng.integers(0, items, count)
    return np.stack([first, (first + rng.integers(1, items, count)) % items], axis=1)


MERIT, LENGTH, NOTHING = [3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]


def make_subject(model: nn.Module, task: Task) -> Subject:
    """Outside a run."""
    return Subject.outside(model, task)
