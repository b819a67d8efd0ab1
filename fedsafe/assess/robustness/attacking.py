"""Runs attacks on a subject, and checks what they return against the threat model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.robustness.attacks import ATTACKS, random_edges
from fedsafe.assess.robustness.regions import Ball, Box, Region
from fedsafe.data import Examples
from fedsafe.extensions import one_line, resolve

CONTROL = "random edges"
"""The control without gradients that runs beside every attack."""

# float32 cannot place a corner better than this, in encoded units of order 1.
_ROUNDING = 1e-5


def attack_all(
    subject: Subject,
    examples: Examples,
    names: Sequence[str],
    norm: str,
    radius: float,
    steps: int,
    restarts: int,
    rng: np.random.Generator,
) -> dict[str, NDArray[np.float32] | str]:
    """What each attack and the control make of the examples; or, for a user's broken one, why it failed.

    Args:
        subject: Whose model is attacked.
        examples: What is attacked.
        names: Of the attacks.
        norm: "linf" or "l2".
        radius: In encoded units.
        steps: Gradient steps of a restart.
        restarts: Number of starts.
        rng: The only source of randomness.

    Returns:
        Name to ``(n, *inputs)`` inputs, or to a sentence.
    """
    found: dict[str, NDArray[np.float32] | str] = {}
    for name in (*names, CONTROL):
        parts = []
        try:
            for start in range(0, len(examples), subject.rows_at_once):
                rows = slice(start, start + subject.rows_at_once)
                x, y = subject.tensor(examples.x[rows]), subject.tensor(examples.y[rows])
                region = _region(subject, x, norm, radius)
                if name == CONTROL:
                    point: Any = random_edges(subject.forward, x, y, region, draws=4, rng=rng)
                else:
                    attack = resolve("attack", name, ATTACKS)
                    point = attack(
                        subject.forward, x.clone(), y, region, steps=steps, restarts=restarts, rng=rng
                    )
                parts.append(_checked(point, x))
            found[name] = np.concatenate(parts)
        except Exception as error:
            if name in ATTACKS or name == CONTROL:
                raise  # ours: the model is at fault, and the whole assessor reports it
            found[name] = f"attack {name!r} failed: {one_line(error)}"
    return found


def _region(subject: Subject, x: torch.Tensor, norm: str, radius: float) -> Region:
    low, high = (subject.tensor(bound) for bound in subject.input_bounds())
    kind = Box if norm == "linf" else Ball
    return kind.around(x, radius, low, high, subject.tensor(subject.perturbable()))


def _checked(point: object, x: torch.Tensor) -> NDArray[np.float32]:
    if not isinstance(point, torch.Tensor) or point.shape != x.shape:
        shape = tuple(point.shape) if isinstance(point, torch.Tensor) else type(point).__name__
        raise TypeError(f"it returned {shape} for inputs of shape {tuple(x.shape)}")
    if not torch.isfinite(point).all():
        raise ValueError("it returned inputs that are not finite")
    return np.asarray(point.detach().to(x.dtype).cpu().numpy())


def faults(
    subject: Subject, clean: NDArray[np.float32], found: NDArray[np.float32], norm: str, radius: float
) -> dict[str, int]:
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
    moved = np.abs(found.astype(np.float64) - clean)
    rows = moved.reshape(len(moved), -1)
    size = rows.max(axis=1) if norm == "linf" else np.linalg.norm(rows, axis=1)
    return {
        "leave the radius": int((size > radius + _ROUNDING).sum()),
        "leave the public bounds": _count(outside),
        "change a fixed feature": int((moved[:, fixed] > 0).any(axis=1).sum()),
    }


def _count(flags: NDArray[np.bool_]) -> int:
    return int(flags.reshape(len(flags), -1).any(axis=1).sum())
