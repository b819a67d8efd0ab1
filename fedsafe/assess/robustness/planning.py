"""What attacks cost, counted before anything is spent: as if no example fell before its time."""

from collections.abc import Sequence

from fedsafe.assess.robustness.apgd import LEAST_RUNS, MOST_TARGETS
from fedsafe.assess.robustness.attacks import NEAREST, WITHOUT_GRADIENTS
from fedsafe.assess.robustness.checks import climbing
from fedsafe.assess.robustness.curve import gradient_attacks
from fedsafe.assess.robustness.effort import Effort
from fedsafe.assess.robustness.planted import INSIDE

# pyautoattack's standard set: 100 + 9 x 100 + 9 x 100 gradients, and 5,000 queries.
_WHOLE = (6900, 1900)


def passes(
    effort: Effort, attacks: Sequence[str], later: Sequence[str], radii: int, examples: int, outputs: int
) -> tuple[int, int]:
    """Forward and backward passes of all attacks of a norm and of their checks.

    Args:
        effort: The tier's.
        attacks: Tried on every example at every radius.
        later: Tried on what stands: once in full on each example, and quickly where it falls.
        radii: How many.
        examples: How many.
        outputs: Of the model.
    """
    if not radii:
        return 0, 0
    names = (*attacks, *later)
    checked, planted = min(effort.checked, examples), min(effort.planted, examples)
    runs: dict[str, float] = dict.fromkeys(attacks, radii * examples)
    runs |= dict.fromkeys(later, radii * examples)
    for name in names:
        if name in gradient_attacks(names):
            runs[name] += 2 * checked
        if name in climbing(names):
            runs[name] += checked + planted
    control = (radii * examples + checked + planted) * (effort.draws + 2)
    forward, backward = float(control + 8 * checked + examples + planted * (INSIDE + 2) + 64), 0.0
    for name, count in runs.items():
        there, back = _single(name, effort, outputs)
        forward, backward = forward + count * (there + 1), backward + count * back
    return int(forward), int(backward)


def _single(name: str, effort: Effort, outputs: int) -> tuple[int, int]:
    """Forward and backward passes of one attack on one example."""
    steps, restarts = effort.budget(name)
    if name == "autoattack":
        return _WHOLE
    if name in WITHOUT_GRADIENTS:
        return 1 + restarts * (steps + 1), 0
    if name in NEAREST:
        return 16 + restarts * steps, 1 + restarts * steps
    starts = restarts * (min(MOST_TARGETS, max(2 * LEAST_RUNS, outputs)) if name == "apgd-t" else 1)
    return 2 + starts * (steps + 2), starts * (steps + 1)
