"""Looks at an audited training: when they are due, what part of the allowed error each may spend, what each proves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedsafe.audit.canaries import Canaries, CosineFigures
from fedsafe.errors import ConfigError
from fedsafe.privacy.audit import (
    GUESSES,
    OneRunBound,
    gaussian_one_run_epsilon,
    membership_epsilon,
    one_run_bound,
)
from fedsafe.rng import public_generator


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at the run so far.

    Args:
        round: After which round.
        accounted: Upper bound on epsilon so far, at the audit's delta; None where none is claimed.
        bound: What the canaries prove, with the part of the confidence that this look may spend.
        gaussian: The same guesses against a Gaussian mechanism's trade-off curve: a bound under that hypothesis.
        membership: From exact intervals of the error rates: a bound if canaries are independent.
        cosines: The cosine test, of canary clients.
    """

    round: int
    accounted: float | None
    bound: OneRunBound
    gaussian: float
    membership: float
    cosines: CosineFigures | None = None

    @property
    def crossed(self) -> bool:
        """Whether what is proved exceeds what was accounted for."""
        return self.accounted is not None and self.bound.epsilon > self.accounted


def due_rounds(rounds: int, every: int | None) -> list[int]:
    """Rounds after which to look, ascending, the last one always.

    Args:
        rounds: Of the plan.
        every: Rounds between two looks; None looks at the end alone.

    Raises:
        ConfigError: ``every`` is less than 1.
    """
    if every is not None and every < 1:
        raise ConfigError(f"every = {every}: look every 1 or more rounds")
    return sorted({rounds, *(range(every, rounds, every) if every else ())})


def confidence_of_look(round: int, due: Sequence[int], confidence: float) -> float:
    """What a look may spend, so that all looks together keep the confidence (a union bound).

    Half of the allowed error is for the look at the end, the other half is shared evenly by those before it.

    Args:
        round: Of the look, one of ``due``.
        due: Rounds of all looks, ascending.
        confidence: Of all looks together, in (0, 1).
    """
    if len(due) == 1:
        return confidence
    share = 0.5 if round == due[-1] else 0.5 / (len(due) - 1)
    return 1.0 - share * (1.0 - confidence)


def look_at(
    made: Canaries, round: int, accounted: float | None, delta: float, confidence: float, seed: int
) -> Look:
    """What the scores prove now.

    Args:
        made: The canaries.
        round: After which round.
        accounted: The upper bound to set beside it.
        delta: Of both.
        confidence: What this look may spend.
        seed: Orders equal scores.
    """
    rng = public_generator(seed, f"audit look {round}")
    bound = one_run_bound(made.scores, made.included, delta=delta, confidence=confidence, rng=rng)
    each = 1.0 - (1.0 - confidence) / len(GUESSES)
    order = rng.permutation(len(made.scores))
    order = order[np.argsort(-made.scores[order], kind="stable")]
    inside = made.included[order]
    gaussian = membership = 0.0
    for first_share, last_share in GUESSES:
        first, last = int(first_share * len(inside)), int(last_share * len(inside))
        right = int(inside[:first].sum() + (~inside[len(inside) - last :]).sum())
        gaussian = max(gaussian, gaussian_one_run_epsilon(right, first + last, len(inside), delta, each))
        found = int(inside[:first].sum())
        membership = max(
            membership,
            membership_epsilon(
                true_positives=found,
                members=int(inside.sum()),
                false_positives=first - found,
                others=int((~inside).sum()),
                delta=delta,
                confidence=each,
            ),
        )
    return Look(
        round=round,
        accounted=accounted,
        bound=bound,
        gaussian=gaussian,
        membership=membership,
        cosines=made.cosines(delta, confidence),
    )
