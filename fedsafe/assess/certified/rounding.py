"""Room for rounding: proofs are about the model in double precision, and the model runs in single."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.scores import decide

SLACK = 1e-5
"""Share of the largest logit that a margin must exceed, in any case."""

# What one input rounds off says how much its neighbours may.
_TIMES = 4.0


@dataclass(frozen=True)
class Clean:
    """Of every evaluation example that was looked at: whether it is right, and how far rounding may move its margin.

    Attributes:
        right: ``(n,)``.
        slack: ``(n,)`` a share of the largest logit, or several times what single precision rounds off there where that
            is more: layers that cancel lose more than their outputs show.
    """

    right: NDArray[np.bool_]
    slack: NDArray[np.float64]

    @classmethod
    def of(cls, subject: Subject, rows: NDArray[np.int64]) -> "Clean":
        """Looks at these rows of the evaluation set."""
        right = np.zeros(len(subject.evaluation), dtype=bool)
        slack = np.zeros(len(subject.evaluation))
        if len(rows):
            logits = subject.logits(subject.evaluation.x[rows])
            right[rows] = decide(logits) == subject.evaluation.y[rows]
            least = SLACK * np.maximum(1.0, np.abs(logits).max(axis=1))
            slack[rows] = np.maximum(least, _TIMES * _rounded_off(subject, rows, logits))
        return cls(right, slack)


def _rounded_off(
    subject: Subject, rows: NDArray[np.int64], logits: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``(rows,)`` how far the logits are from those in double precision; 0 where the model has none."""
    model = copy.deepcopy(subject.model).double()
    found = []
    try:
        with torch.no_grad():
            for start in range(0, len(rows), subject.rows_at_once):
                x = subject.tensor(subject.evaluation.x[rows[start : start + subject.rows_at_once]])
                found.append(model(x.double()).cpu().numpy())
        return np.asarray(np.abs(np.concatenate(found) - logits).max(axis=1))
    except Exception:  # a model's own code may insist on single precision, and raise anything
        return np.zeros(len(rows))
