"""Looks at an audited training: when they are due, what part of the allowed error each may spend, what each proves."""

from dataclasses import dataclass

import numpy as np

from fedsafe.audit.canaries import Canaries, CosineFigures
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
