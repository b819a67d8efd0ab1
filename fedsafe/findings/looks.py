"""Looking again and again: when looks are due, and what part of the allowed error each may spend."""

from collections.abc import Sequence
from typing import Literal

from fedsafe.errors import ConfigError

Spending = Literal["half_last", "bonferroni", "none"]

OVER_ALL_LOOKS = "over_all_looks"
"""In the detail of a finding that shares its allowed error over the looks by itself: it is not shared once more."""


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


def confidence_of_look(
    round: int, due: Sequence[int], confidence: float, spending: Spending = "half_last"
) -> float:
    """What a look may spend, so that all looks together keep the confidence (a union bound).

    Args:
        round: Of the look, one of ``due``; another one is an end that came early, and takes the place of the last.
        due: Rounds of all looks that are planned, ascending. Looks that are left out spend nothing.
        confidence: Of all looks together, in (0, 1).
        spending: "half_last": half of the allowed error is for the look at the end, the other half is shared evenly
            by those before it; "bonferroni": all share evenly; "none": each look has the confidence for itself, and
            all together have less.

    Raises:
        ConfigError: The spending is unknown.
    """
    if spending not in ("half_last", "bonferroni", "none"):
        raise ConfigError(f"alpha spending {spending!r} is unknown; it is half_last, bonferroni or none")
    if len(due) == 1 or spending == "none":
        return confidence
    before = 0.5 / (len(due) - 1) if round in due[:-1] else 0.5
    share = 1.0 / len(due) if spending == "bonferroni" else before
    return 1.0 - share * (1.0 - confidence)
