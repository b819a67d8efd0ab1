"""Room for rounding: a user's own proofs are about exact arithmetic, and the model runs in single precision.

The built-in bounds enclose what rounding does and need none of this; see `fedsafe.models.bounds.Rounding`.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.certified.bounds import room
from fedsafe.assess.scores import decide

SLACK = 1e-5
"""Share of the largest logit that a margin must exceed, in any case."""

ASSUMED = (
    "sums of products in the model's own precision, in any order: no Winograd's or Fourier's transforms, "
    "TensorFloat-32 or mixed precision"
)
"""Arithmetic for which rounding is enclosed."""

# What one input rounds off says how much its neighbours may.
_TIMES = 4.0


@dataclass(frozen=True)
class Clean:
    """Of every evaluation example that was looked at: whether it is right, and how far rounding may move its margin.

    Attributes:
        right: ``(n,)``.
        slack: ``(n,)`` a share of the largest logit, or several times what single precision rounds off there where that
            is more: layers that cancel lose more than their outputs show. It is measured, not proven.
        measured: Whether the model ran in double precision, without which the share is all.
    """

    right: NDArray[np.bool_]
    slack: NDArray[np.float64]
    measured: bool = True

    @classmethod
    def of(cls, subject: Subject, rows: NDArray[np.int64]) -> "Clean":
        """Looks at these rows of the evaluation set."""
        right = np.zeros(len(subject.evaluation), dtype=bool)
        slack = np.zeros(len(subject.evaluation))
        if len(rows):
            logits = subject.logits(subject.evaluation.x[rows])
            right[rows] = decide(logits) == subject.evaluation.y[rows]
            least = SLACK * np.maximum(1.0, np.abs(logits).max(axis=1))
            lost = _rounded_off(subject, rows, logits)
            slack[rows] = least if lost is None else np.maximum(least, _TIMES * lost)
            return cls(right, slack, lost is not None)
        return cls(right, slack)

    @property
    def described(self) -> str:
        """The slack in words."""
        if not self.measured:
            return f"not proven: {SLACK:g} of the largest logit; the model does not run in double precision"
        return f"not proven: {SLACK:g} of the largest logit, or {_TIMES:g} times what single precision lost there"


def _rounded_off(
    subject: Subject, rows: NDArray[np.int64], logits: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """``(rows,)`` how far the logits are from those in double precision; None where the model has none."""
    model = copy.deepcopy(subject.model).double()
    found = []
    try:
        with torch.no_grad():
            for start in range(0, len(rows), subject.rows_at_once):
                x = subject.tensor(subject.evaluation.x[rows[start : start + subject.rows_at_once]])
                found.append(model(x.double()).cpu().numpy())
        return np.asarray(np.abs(np.concatenate(found) - logits).max(axis=1))
    except Exception:  # a model's own code may insist on single precision, and raise anything
        return None


# Margins that the room for rounding is compared with; half of a margin is more than a proof can spare.
_EXAMPLES, _MUCH = 8, 0.5


def enclosed(subject: Subject, method: str, rows: NDArray[np.int64]) -> dict[str, Any]:
    """What a built-in bound says of rounding, for the details of a finding.

    Args:
        subject: What is judged; its model must have bounds.
        method: Of the bound.
        rows: Evaluation examples that the model gets right.
    """
    said: dict[str, Any] = {"rounding": "enclosed, the bound's and the model's", "assumed": ASSUMED}
    some = subject.evaluation.take(rows[:_EXAMPLES])
    if len(some):
        margins, rooms = room(
            method, subject.model, torch.tensor(some.x, dtype=torch.float64), torch.tensor(some.y)
        )
        said["rounding_room"] = float(rooms.median())
        said["margin"] = float(margins.median())
        if not said["rounding_room"] <= _MUCH * said["margin"]:
            said["rounding_note"] = (
                "the room for rounding, which is bounded and not measured, takes most of a margin here: a model so "
                "deep, or with layers that cancel, may be far more robust than is proven"
            )
    return said
