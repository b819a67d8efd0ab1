"""What the prediction loses as the strongest features go, and gains as they come (Petsiuk, Das and Saenko, 2018)."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsafe.assess.base import Subject
from fedsafe.assess.interpretability.explainers import Explained
from fedsafe.assess.interpretability.features import by_unit, removal_units
from fedsafe.assess.interpretability.masking import masked_outputs
from fedsafe.assess.interpretability.means import mean_of
from fedsafe.findings import Finding, Scope, not_measured

Array = NDArray[np.float64]

DELETION, INSERTION = "interpretability.deletion_auc", "interpretability.insertion_auc"
_STEPS = 14  # points of a curve after the first, at most
_ORDERS = 3  # random ones that are averaged


class RemovalTest:
    """Curves of the predicted class's probability, against the share of features replaced or restored.

    Columns of a table, or pixels, go to the baseline's values in the order of their attribution to the predicted class,
    the strongest first. Random orders of the same examples are measured once, whatever is explained.

    Args:
        subject: Whose model it is.
        x: ``(n, *inputs)``.
        baseline: ``(*inputs,)``.
        rng: Source of the random orders.
    """

    def __init__(
        self,
        subject: Subject,
        x: NDArray[np.float32],
        baseline: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> None:
        self._subject, self._x, self._baseline = subject, x, baseline
        self.reason = ""
        if subject.task.kind == "regression":
            self.reason = "the model predicts a number: there is no probability to follow"
            return
        self._units = removal_units(subject.task.schema)
        self._decided = subject.predict(x)
        # The attribution of the only logit speaks against the prediction where that is class 0.
        self._sign = np.where(self._decided == 0, -1.0, 1.0) if subject.binary else np.ones(len(x))
        count = int(self._units.max()) + 1
        self._gone = np.unique(np.rint(np.linspace(0, count, min(count, _STEPS) + 1)).astype(np.int64))
        self.shares = self._gone / count
        orders = [self.curves(rng.standard_normal((len(x), count))) for _ in range(_ORDERS)]
        self.random = tuple(np.mean([pair[which] for pair in orders], axis=0) for which in (0, 1))

    def curves(self, strength: Array) -> tuple[Array, Array]:
        """``(n, points)`` probabilities of the predicted class by deletion and by insertion.

        Args:
            strength: ``(n, units)`` the larger, the earlier.
        """
        ranks = np.argsort(np.argsort(-strength, axis=1, kind="stable"), axis=1)
        gone = ranks[:, None, :] < self._gone[None, :, None]
        subject = self._subject
        both = [
            masked_outputs(
                self._probabilities,
                subject.tensor(self._x),
                subject.tensor(self._baseline[None]),
                subject.tensor(self._decided),
                kept,
                self._units,
                batch=subject.rows_at_once,
            )
            for kept in (~gone, gone)
        ]
        return both[0], both[1]

    def findings(self, explained: Explained, rng: np.random.Generator, context: Scope) -> list[Finding]:
        """Area under each curve, beside random orders of the same examples."""
        if self.reason:
            return [
                not_measured(metric, self.reason, status="not_applicable", **context)
                for metric in (DELETION, INSERTION)
            ]
        signed = by_unit(self._units, explained.attribution) * self._sign[:, None]
        return [
            mean_of(
                metric,
                self._area(curve),
                rng,
                anchors={"random_attribution": float(self._area(random).mean())},
                detail={"curve": self._points(curve, random)},
                **context,
            )
            for metric, curve, random in zip(
                (DELETION, INSERTION), self.curves(signed), self.random, strict=True
            )
        ]

    def _area(self, curves: Array) -> Array:
        return np.asarray(np.clip(np.trapezoid(curves, self.shares, axis=1), 0.0, 1.0))

    def _points(self, curve: Array, random: Array) -> list[dict[str, Any]]:
        means = zip(self.shares, curve.mean(axis=0), random.mean(axis=0), strict=True)
        return [
            {"share": float(share), "probability": float(own), "random": float(other)}
            for share, own, other in means
        ]

    def _probabilities(self, inputs: Tensor) -> Tensor:
        logits = self._subject.forward(inputs).double()
        if self._subject.binary:
            return torch.sigmoid(torch.cat([-logits, logits], dim=1))
        return torch.softmax(logits, dim=1)

    @staticmethod
    def passes(units: int) -> int:
        """Forward passes for each example of one order; random orders take `ORDERS` times as many, once."""
        return 2 * (min(units, _STEPS) + 1)


ORDERS = _ORDERS
