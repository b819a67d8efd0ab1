"""Runs an attack on a subject, and checks what it returns against the threat model."""

import copy
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsafe.assess.base import Subject
from fedsafe.assess.robustness.attacks import ATTACKS, WHOLE
from fedsafe.assess.robustness.gradient import random_edges
from fedsafe.assess.robustness.regions import Ball, Box, Region
from fedsafe.data import Examples
from fedsafe.extensions import one_line, resolve

CONTROL = "random edges"
"""The control without gradients that runs beside every attack."""

Inputs = NDArray[np.float32]

# float32 cannot place a corner better than this, in encoded units of order 1.
_ROUNDING = 1e-5
# More values at once no longer fit into a core's cache.
_VALUES_AT_ONCE = 1 << 18
# Two ways to compute the same convolution agree to this share of the largest output.
_SAME = 1e-3


def run_attack(
    subject: Subject,
    examples: Examples,
    name: str,
    norm: str,
    radius: float,
    steps: int,
    restarts: int,
    rng: np.random.Generator,
) -> Inputs | str:
    """What an attack makes of the examples; or why a user's own one failed, or a built-in one has no answer.

    Args:
        subject: Whose model is attacked.
        examples: What is attacked.
        name: Of the attack, or `CONTROL`, of which `steps` are the draws.
        norm: "linf" or "l2".
        radius: In encoded units.
        steps: Gradient steps of a restart.
        restarts: Number of starts.
        rng: The only source of randomness.

    Returns:
        ``(n, *inputs)`` inputs, or a sentence.
    """
    parts = [examples.x[:0]]
    at_once = min(max(1, _VALUES_AT_ONCE // prod(examples.x.shape[1:])), subject.rows_at_once)
    try:
        for start in range(0, len(examples), at_once):
            rows = slice(start, start + at_once)
            x, y = subject.tensor(examples.x[rows]), subject.tensor(examples.y[rows])
            region = region_around(subject, x, norm, radius)
            if name == CONTROL:
                point: Any = random_edges(subject.forward, x, y, region, draws=steps, rng=rng)
            else:
                attack = resolve("attack", name, ATTACKS)
                point = attack(subject.forward, x.clone(), y, region, steps=steps, restarts=restarts, rng=rng)
            parts.append(_checked(point, x))
    except Exception as error:
        if name == CONTROL or (name in ATTACKS and name not in WHOLE):
            raise  # ours: the model is at fault, and the whole assessor reports it
        return f"attack {name!r} failed: {one_line(error)}"
    return np.concatenate(parts)


def region_around(subject: Subject, x: torch.Tensor, norm: str, radius: float) -> Region:
    """Where an attack may move these inputs."""
    low, high = (subject.tensor(bound) for bound in subject.input_bounds())
    kind = Box if norm == "linf" else Ball
    return kind.around(x, radius, low, high, subject.tensor(subject.perturbable()))


def whole_radius(subject: Subject, norm: str) -> float:
    """The radius from which on a region is all that the public bounds allow."""
    low, high = subject.input_bounds()
    widths = (high - low).astype(np.float64)[subject.perturbable()]
    return float(widths.max() if norm == "linf" else np.linalg.norm(widths))


def quick(subject: Subject, x: Inputs) -> Subject:
    """The subject with a copy of the model that is quicker to attack; what is found is judged by the original.

    Its parameters have no gradients, and where that changes nothing but time, the channels of a pixel lie side by side.

    Args:
        subject: Whose model it is.
        x: ``(n, *inputs)`` a few inputs to try it on.
    """
    model = copy.deepcopy(subject.model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    plain = replace(subject, model=model)
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return plain
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    arranged = replace(subject, model=other)
    try:
        wanted, found = plain.logits(x), arranged.logits(x)
    except RuntimeError:  # a model's own code may count on how its tensors lie, as `view` does
        return plain
    same = np.abs(found - wanted).max(initial=0.0) <= _SAME * np.abs(wanted).max(initial=0.0)
    return arranged if same else plain


def _checked(point: object, x: torch.Tensor) -> Inputs:
    if not isinstance(point, torch.Tensor) or point.shape != x.shape:
        shape = tuple(point.shape) if isinstance(point, torch.Tensor) else type(point).__name__
        raise TypeError(f"it returned {shape} for inputs of shape {tuple(x.shape)}")
    if not torch.isfinite(point).all():
        raise ValueError("it returned inputs that are not finite")
    return np.asarray(point.detach().to(x.dtype).cpu().numpy())


def distances(clean: Inputs, found: Inputs, norm: str) -> NDArray[np.float64]:
    """``(n,)`` how far each input was moved."""
    moved = np.abs(found.astype(np.float64) - clean)
    rows = moved.reshape(len(clean), prod(clean.shape[1:]))
    size = rows.max(axis=1, initial=0.0) if norm == "linf" else np.linalg.norm(rows, axis=1)
    return np.asarray(size, dtype=np.float64)


def faults(subject: Subject, clean: Inputs, found: Inputs, norm: str, radius: float) -> dict[str, int]:
    """How many adversarials break each rule of the threat model; checked on what the attack returned.

    Args:
        subject: With the public bounds.
        clean: ``(n, *inputs)``.
        found: ``(n, *inputs)`` what the attack returned.
        norm: "linf" or "l2".
        radius: In encoded units.
    """
    low, high = subject.input_bounds()
    fixed = ~subject.perturbable()
    outside = (found < np.minimum(low, clean)) | (found > np.maximum(high, clean))
    return {
        "leave the radius": int((distances(clean, found, norm) > radius + _ROUNDING).sum()),
        "leave the public bounds": _count(outside),
        "change a fixed feature": _count((found != clean) & fixed),
    }


def _count(flags: NDArray[np.bool_]) -> int:
    return int(flags.any(axis=tuple(range(1, flags.ndim))).sum())
