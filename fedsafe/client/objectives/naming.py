"""An objective by its name, or by a table of its name and settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedsafe.client.batches import Batch, examples
from fedsafe.client.objectives.adversarial import Adversarial, Ascent, Trades
from fedsafe.client.objectives.gaussian import GaussianAugmentation
from fedsafe.client.objectives.inputs import InputBounds
from fedsafe.client.objectives.intervals import IntervalTraining
from fedsafe.client.objectives.plain import DEFINED_FOR, OBJECTIVES, Objective, natural_of
from fedsafe.data import Kind
from fedsafe.data.inputs import InputSchema
from fedsafe.errors import ConfigError, ModelError
from fedsafe.extensions import one_line, resolve

ROBUST: Mapping[str, Mapping[str, Any]] = {
    "adversarial": {"radius": 0.1, "norm": "linf", "steps": 7, "step_size": None, "weight": 1.0},
    "trades": {"radius": 0.1, "norm": "linf", "steps": 7, "step_size": None, "beta": 6.0},
    "gaussian": {"sigma": 0.25},
    "ibp": {"radius": 0.1, "kappa": 0.5, "warmup": 0.0, "ramp": 0.5},
}
"""Objectives with settings, and what these are if left out."""

_NEEDS_CLASSES = ("trades", "ibp")


@dataclass(frozen=True)
class UserObjective:
    """A user's own loss: it may raise or return anything, and is named when it does.

    Args:
        name: Its import path, or what a package offers it as.
        function: Takes a model and a batch, and gives one loss per example.
    """

    name: str
    function: Callable[..., object]

    def __call__(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        """``(examples,)`` losses.

        Raises:
            ModelError: It raised, or gave something else than one floating loss per example.
        """
        try:
            losses = self.function(model, batch)
        except Exception as error:
            raise ModelError(f"the objective {self.name!r} failed: {one_line(error)}") from error
        count = examples(batch)
        if not isinstance(losses, Tensor) or not losses.is_floating_point() or losses.shape != (count,):
            found = (
                f"{losses.dtype} {tuple(losses.shape)}"
                if isinstance(losses, Tensor)
                else type(losses).__name__
            )
            raise ModelError(
                f"the objective {self.name!r} gave {found} for {count} examples: return a float tensor of shape "
                f"({count},), one loss per example"
            )
        return losses


def build_objective(
    spec: str | Mapping[str, Any] | None, kind: Kind, schema: InputSchema | None = None
) -> Objective:
    """The objective of that name.

    Args:
        spec: ``"cross_entropy"``, ``"squared_error"``, ``"package.module:function"`` or the name that an
            installed package offers for one's own, or None for the one that goes with the kind; or ``"adversarial"``,
            ``"trades"``, ``"gaussian"`` or ``"ibp"``, alone or in a table ``{"name": ..., ...}`` with settings of
            :data:`ROBUST`.
        kind: Of the task.
        schema: Of the task's inputs, which the last four need.

    Raises:
        ConfigError: The name is unknown, cannot be imported, or is not defined for this kind of task or these inputs; a
            setting is not one of that objective.
    """
    if spec is None:
        return natural_of(kind)
    options = {} if isinstance(spec, str) else {key: value for key, value in spec.items() if key != "name"}
    name = spec if isinstance(spec, str) else spec["name"]
    if name in ROBUST:
        return _robust(name, options, kind, schema)
    if options:
        raise ConfigError(
            f"client.objective = {name!r} has no settings, and {next(iter(options))} is given: leave it out"
        )
    function = resolve("objective", name, {**OBJECTIVES, **dict.fromkeys(ROBUST, natural_of(kind))})
    if name not in OBJECTIVES:
        return UserObjective(name, function)
    kinds = DEFINED_FOR[name]
    if kind not in kinds:
        raise ConfigError(
            f"client.objective = {name!r} is for {' and '.join(kinds)} tasks, and this task is {kind}: leave it "
            "out to get the one that fits"
        )
    return function


def _robust(name: str, given: Mapping[str, Any], kind: Kind, schema: InputSchema | None) -> Objective:
    unknown = sorted(set(given) - set(ROBUST[name]))
    if unknown:
        raise ConfigError(
            f"client.objective.{unknown[0]} is no setting of {name!r}: use {', '.join(ROBUST[name])}"
        )
    if kind == "regression" and name in _NEEDS_CLASSES:
        raise ConfigError(
            f"client.objective = {name!r} compares predicted classes, and this task is regression: use adversarial"
        )
    bounds = InputBounds.of(schema, name)
    options = dict(ROBUST[name]) | {key: value for key, value in given.items() if value is not None}
    natural = natural_of(kind)
    if name == "gaussian":
        return GaussianAugmentation(natural=natural, bounds=bounds, **options)
    if name == "ibp":
        return IntervalTraining(natural=natural, bounds=bounds, **options)
    weights = {key: options.pop(key) for key in ("weight", "beta") if key in options}
    ascent = Ascent(bounds=bounds, **options)
    return (Adversarial if name == "adversarial" else Trades)(natural=natural, ascent=ascent, **weights)
