"""Randomised smoothing (Cohen, Rosenfeld and Kolter 2019): radii for the classifier that votes over noisy copies."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from fedsafe.assess.base import Subject
from fedsafe.data import Examples
from fedsafe.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """How the smoothed classifier is drawn and certified.

    Attributes:
        scale: Standard deviation of the noise, in encoded units, on the features that may be perturbed.
        selection: Noisy copies that choose the class of an example.
        draws: Further copies that bound the probability of that class.
        alpha: Probability that a certificate of one example is wrong.
        examples: Examples to certify, at most; where None, from 20 to 100, by what the model costs.

    Raises:
        ConfigError: A number is out of range.
    """

    scale: float = 0.25
    selection: int = 100
    draws: int = 10_000
    alpha: float = 0.001
    examples: int | None = None

    def __post_init__(self) -> None:
        if not (0 < self.scale < np.inf and 0 < self.alpha < 0.5):
            raise ConfigError(
                f"smoothing has scale = {self.scale!r} and alpha = {self.alpha!r}: give a positive scale, and an alpha "
                f"between 0 and 0.5"
            )
        if min(self.selection, self.draws, self.examples or 1) < 1 or self.examples == 0:
            raise ConfigError(
                f"smoothing has selection = {self.selection!r}, draws = {self.draws!r} and examples = "
                f"{self.examples!r}: give whole numbers from 1"
            )

    @property
    def largest_radius(self) -> float:
        """What a class that wins every draw is certified at: ``scale * Phi^-1(alpha^(1 / draws))``."""
        return certified_radius(self.draws, self)


def certified_radius(wins: int, how: Smoothing) -> float:
    """The Euclidean radius within which the vote cannot change; 0 where it abstains.

    ``scale * Phi^-1(p)`` (Cohen, Rosenfeld and Kolter 2019, theorem 1), with p the one-sided lower Clopper-Pearson
    bound at alpha on the probability of the class, and an abstention where that is not above one half.

    Args:
        wins: How many of the draws the class won.
        how: The noise and the level.
    """
    if wins == 0:
        return 0.0
    least = float(stats.beta.ppf(how.alpha, wins, how.draws - wins + 1))
    return how.scale * float(stats.norm.ppf(least)) if least > 0.5 else 0.0


def radii(
    subject: Subject, examples: Examples, how: Smoothing, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Radii at which the smoothed classifier is certified to be right, and where it abstains.

    Args:
        subject: With the base classifier.
        examples: n of them.
        how: The noise and the numbers of draws.
        rng: The only source of randomness.

    Returns:
        ``(n,)`` radii, -1 where the class that is chosen is wrong or the vote abstains; ``(n,)`` abstentions. The
        certificates of wrong classes are not drawn.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    found = np.full(len(examples), -1.0)
    abstained = np.zeros(len(examples), dtype=bool)
    for place in range(len(examples)):
        x, y = examples.x[place], int(examples.y[place])
        vote = _votes(subject, x, how.selection, how.scale, generator)
        if int(vote.argmax()) != y:
            continue
        wins = int(_votes(subject, x, how.draws, how.scale, generator)[y])
        radius = certified_radius(wins, how)
        abstained[place] = radius == 0.0
        found[place] = radius if radius > 0 else -1.0
    return found, abstained


def _votes(
    subject: Subject, x: NDArray[Any], draws: int, scale: float, generator: torch.Generator
) -> NDArray[np.int64]:
    """How often each class wins among noisy copies; answers that are not finite win nothing."""
    classes = len(subject.task.classes)
    centre, free = subject.tensor(x), subject.tensor(subject.perturbable())
    counts = np.zeros(classes, dtype=np.int64)
    with torch.no_grad():
        for start in range(0, draws, subject.rows_at_once):
            rows = min(subject.rows_at_once, draws - start)
            noise = torch.randn((rows, *centre.shape), generator=generator).to(centre)
            outputs = subject.forward(torch.where(free, centre + scale * noise, centre))
            decided = outputs.argmax(dim=1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0).long()
            # Noise leaves the public bounds; where a model has no finite answer there, it votes for nothing.
            decided = decided[torch.isfinite(outputs).all(dim=1)]
            counts += np.bincount(decided.cpu().numpy(), minlength=classes)
    return counts
