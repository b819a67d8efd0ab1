"""The models of a run that everyone who takes part has seen."""

import numpy as np

from fedsafe.assess.base import Subject
from fedsafe.assess.privacy.uploads import parameters_of


def visible_models(subject: Subject) -> list[Subject]:
    """The models that were broadcast, as far as they are at hand, oldest first, and the judged one last.

    Those of `fedsafe.assess.Federation.broadcast`, else the last accepted one; the model before round 1 comes first.
    The judged one alone outside a simulation.
    """
    federation = subject.federation
    if federation is None:
        return [subject]
    earlier = [federation.initial, *federation.broadcast]
    if subject.previous is not None and not federation.broadcast:
        earlier.append(parameters_of(subject.previous))
    return [*(subject.with_parameters(parameters) for parameters in earlier), subject]


def rounds_before(round: int, most: int = 5) -> list[int]:
    """Rounds before the given one whose models stand for all of them, evenly spread; the one before is among them.

    Args:
        round: From 1.
        most: How many.
    """
    return sorted({int(r) for r in np.linspace(1, round - 1, min(most, round - 1)).round()})
