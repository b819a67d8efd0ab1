"""How the noise of a round may be chosen: from what was released before it, and from what is left of the budget.

A choice is a function of one :class:`SoFar` that returns a noise multiplier. Those that ship are in ``CHOICES``; one of
your own is named by its import path. The same value must give the same choice: a round that was interrupted is chosen
again.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from fedsafe.privacy.levels import LEAST_CHOSEN, MOST_CHOSEN


@dataclass(frozen=True, kw_only=True)
class SoFar:
    """What is known before a round; all of it follows from what was released, and from the plan.

    Args:
        round: The coming one, from 1.
        rounds_left: The most that may follow, with this one.
        order: Of the Rényi filter.
        spent: Divergence at that order that the rounds before cost.
        left: Divergence that may still be spent.
        even: The multiplier that spends what is left evenly over ``rounds_left``; infinite if nothing is left.
        planned: The one that would have spent the whole budget evenly.
        noises: Multipliers of the rounds before.
        norms: L2 norms of what these rounds released: the noised mean of the updates.
        floors: The root mean square of the norm that noise alone would have given each.
        parameters: Values of the model; 0 before the first round.
    """

    round: int
    rounds_left: int
    order: float
    spent: float
    left: float
    even: float
    planned: float
    noises: tuple[float, ...] = ()
    norms: tuple[float, ...] = ()
    floors: tuple[float, ...] = ()
    parameters: int = 0

    @property
    def least(self) -> float:
        """The smallest multiplier that may be chosen."""
        return LEAST_CHOSEN

    @property
    def most(self) -> float:
        """The largest."""
        return MOST_CHOSEN * self.planned

    @property
    def surprise(self) -> float:
        """How far the last released norm is above what noise alone gives, in standard deviations of its square.

        Without a signal, the square over its mean is chi-squared with a degree of freedom for each parameter over their
        number: mean 1, variance 2 over the number. Infinite before the first round.
        """
        if not self.norms:
            return math.inf
        ratio = (self.norms[-1] / self.floors[-1]) ** 2
        return (ratio - 1.0) / math.sqrt(2.0 / self.parameters)


Choice = Callable[[SoFar], float]

# "signal" starts with so many times the even noise, ...
_START = 2.0
# ... and calls the signal lost below so many standard deviations.
_LOST = 3.0


def even(so_far: SoFar) -> float:
    """The same for all rounds: what is left, spread over those that are left."""
    return min(so_far.even, so_far.most)


def signal(so_far: SoFar) -> float:
    """Cheap while the updates stand out of the noise, dearer once they are lost in it (after Lee and Kifer 2018).

    Early updates are long and survive much noise; what they leave unspent buys less noise for the late, short ones. The
    noise starts at twice the even one, and goes half of the way, in logarithm, to the even one of what is left after
    each round whose norm is within three standard deviations of what noise alone gives. It never goes below that, so
    that the budget lasts.
    """
    if so_far.round == 1:
        return min(_START * so_far.even, so_far.most)
    last, least = so_far.noises[-1], min(so_far.even, so_far.most)
    wanted = math.sqrt(last * least) if so_far.surprise < _LOST else last
    return max(wanted, least)


CHOICES: dict[str, Choice] = {"even": even, "signal": signal}
