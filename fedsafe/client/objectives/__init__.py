"""Objectives: one loss per example, of records as they are or as they might be."""

from fedsafe.client.objectives.intervals import bound_to
from fedsafe.client.objectives.naming import ROBUST, UserObjective, build_objective
from fedsafe.client.objectives.perturbing import (
    Differentiable,
    Law,
    Moment,
    Perturbing,
    PlainModel,
    draw,
    draw_stacked,
    input_gradients,
    perturbations,
    tried_on,
)
from fedsafe.client.objectives.plain import OBJECTIVES, Objective, cross_entropy, squared_error

__all__ = [
    "OBJECTIVES",
    "ROBUST",
    "Differentiable",
    "Law",
    "Moment",
    "Objective",
    "Perturbing",
    "PlainModel",
    "UserObjective",
    "bound_to",
    "build_objective",
    "cross_entropy",
    "draw",
    "draw_stacked",
    "input_gradients",
    "perturbations",
    "squared_error",
    "tried_on",
]
