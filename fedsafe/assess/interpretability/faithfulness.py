"""Whether the attributions of what is removed add up to what the output loses (Bhatt, Weller and Moura, 2020)."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedsafe.assess.base import Subject
from fedsafe.assess.interpretability.features import by_unit, column_of_features
from fedsafe.assess.interpretability.masking import masked_outputs
from fedsafe.assess.interpretability.means import mean_of, ratio_of_means
from fedsafe.findings import Finding, Scope, not_measured

Array = NDArray[np.float64]

CORRELATION, UNEXPLAINED = "interpretability.faithfulness", "interpretability.unexplained_removal"


class SubsetTest:
    """Random subsets of the columns are replaced by the baseline, the same ones for every attribution.

    Args:
        subject: Whose model it is.
        x: ``(n, *inputs)``.
        baseline: ``(*inputs,)``.
        target: ``(n,)`` the output of each that is explained.
        subsets: How many.
        rng: Source of the subsets, whose sizes are uniform.
    """

    def __init__(
        self,
        subject: Subject,
        x: Tensor,
        baseline: NDArray[np.float32],
        target: Tensor,
        *,
        subsets: int,
        rng: np.random.Generator,
    ) -> None:
        self._columns = column_of_features(subject.task.schema)
        count = int(self._columns.max()) + 1
        self.reason = "there is one column only: it has no subsets" if count < 2 else ""
        if self.reason:
            return
        ranks = np.argsort(rng.random((subsets, count)), axis=1)
        self._removed = ranks < rng.integers(1, count, size=(subsets, 1))
        kept = np.concatenate([np.ones((1, count), bool), ~self._removed])
        outputs = masked_outputs(
            subject.forward,
            x,
            subject.tensor(baseline[None]),
            target,
            kept,
            self._columns,
            batch=subject.rows_at_once,
        )
        self._lost = outputs[:, :1] - outputs[:, 1:]

    def findings(
        self, attribution: Array, random: Array, rng: np.random.Generator, context: Scope
    ) -> list[Finding]:
        """Correlation over the subsets, and the share of the losses' squares that the sums leave unexplained.

        Args:
            attribution: ``(n, *inputs)``.
            random: Those of a random attribution.
            rng: Source of the resampling.
            context: Of the findings.
        """
        reason = self.reason or ("" if self._lost.any() else "no subset changes the output")
        forecasts = [] if reason else [self._sums(part) for part in (attribution, random)]
        if not reason:
            correlations = [_correlation(self._lost, forecast) for forecast in forecasts]
            told = np.isfinite(correlations[0])
            reason = (
                "" if told.sum() > 1 else "the attributions, or the outputs, are the same for every subset"
            )
        if reason:
            metrics = (CORRELATION, UNEXPLAINED)
            return [not_measured(metric, reason, status="not_applicable", **context) for metric in metrics]
        anchors = {"random_attribution": float(np.nanmean(correlations[1]))}
        subsets = {"subsets": len(self._removed)}
        found = mean_of(
            CORRELATION,
            np.clip(correlations[0][told], -1.0, 1.0),
            rng,
            anchors=anchors,
            detail={**subsets, "left_out": int((~told).sum())},
            **context,
        )
        total = np.square(self._lost).mean(axis=1)
        errors = [np.square(self._lost - forecast).mean(axis=1) for forecast in forecasts]
        rest = ratio_of_means(
            UNEXPLAINED,
            errors[0],
            total,
            rng,
            anchors={"random_attribution": float(errors[1].sum() / total.sum()), "zero_attribution": 1.0},
            detail=subsets,
            **context,
        )
        return [found, rest]

    def _sums(self, attribution: Array) -> Array:
        return np.asarray(by_unit(self._columns, attribution) @ self._removed.T.astype(np.float64))


def _correlation(left: Array, right: Array) -> Array:
    """``(n,)`` Pearson's, row by row; not a number where a row is constant."""
    centred = [part - part.mean(axis=1, keepdims=True) for part in (left, right)]
    sizes = [np.linalg.norm(part, axis=1) for part in centred]
    # A spread that is rounding is none: the output is a float32.
    floors = [1e-6 * np.linalg.norm(part, axis=1) for part in (left, right)]
    usable = (sizes[0] > floors[0]) & (sizes[1] > floors[1])
    product, room = (centred[0] * centred[1]).sum(axis=1), sizes[0] * sizes[1]
    return np.asarray(np.divide(product, room, out=np.full(len(left), np.nan), where=usable & (room > 0)))
