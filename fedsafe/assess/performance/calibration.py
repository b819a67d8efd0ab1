"""Expected calibration error, less the part that a finite sample adds, with an interval that covers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Predictions in bins of equal mass; equal confidences share a bin.

    Attributes:
        n: ``(bins,)`` examples, at least 1 each.
        confidence: ``(bins,)`` mean predicted probability.
        outcome: ``(bins,)`` share of the examples where the predicted event came true.
        variance: ``(bins,)`` variance that `outcome` has if every prediction is calibrated.
    """

    n: Array
    confidence: Array
    outcome: Array
    variance: Array

    @property
    def weights(self) -> Array:
        """``(bins,)`` share of the examples in each bin."""
        return np.asarray(self.n / self.n.sum())

    @property
    def plug_in(self) -> float:
        """The usual estimate, which is too large in a finite sample (Naeini, Cooper and Hauskrecht, 2015)."""
        return float(self.weights @ np.abs(self.outcome - self.confidence))

    @property
    def debiased(self) -> float:
        """The estimate less its estimated bias (Kumar, Liang and Ma, 2019, in closed form), at least 0."""
        return float(self.debias(self.outcome))

    def calibrated(self, rng: np.random.Generator, resamples: int = 500) -> float:
        """What `debiased` is on average for a perfectly calibrated model with these confidences."""
        noise = rng.normal(size=(resamples, len(self.n))) * np.sqrt(self.variance)
        return float(np.mean(self.debias(np.clip(self.confidence + noise, 0.0, 1.0))))

    def interval(
        self, rng: np.random.Generator, resamples: int = 2000, confidence: float = 0.95
    ) -> tuple[float, float]:
        """Interval of the binned error that covers at every error, zero included.

        The estimate moves at most by the weighted sum of the bins' absolute sampling errors (the triangle
        inequality), whose quantile is found by resampling the counts. The percentile bootstrap of the
        estimate itself counts the bias twice and never covers a perfect model.
        """
        smoothed = self._smoothed(self.outcome)
        drawn = rng.binomial(self.n.astype(np.int64), smoothed, size=(resamples, len(self.n))) / self.n
        reach = float(np.quantile(np.abs(drawn - smoothed) @ self.weights, confidence))
        return max(0.0, self.plug_in - reach), min(1.0, self.plug_in + reach)

    def table(self) -> list[dict[str, Any]]:
        """The reliability diagram, one row for each bin."""
        columns = zip(self.n, self.confidence, self.outcome, strict=True)
        return [{"n": int(n), "confidence": float(c), "outcome": float(o)} for n, c, o in columns]

    def _smoothed(self, outcome: Array) -> Array:
        # A bin without a miss still has sampling error: half an example on either side (Jeffreys).
        return np.asarray((outcome * self.n + 0.5) / (self.n + 1.0))

    def debias(self, outcome: Array) -> Array:
        """Per row of ``(..., bins)``: the plug-in less the mean excess of a folded normal over its centre."""
        smoothed = self._smoothed(outcome)
        gap, error = np.abs(outcome - self.confidence), np.sqrt(smoothed * (1 - smoothed) / self.n)
        ratio = gap / error
        folded = error * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + gap * (1 - 2 * special.ndtr(-ratio))
        return np.asarray(np.maximum((2 * gap - folded) @ self.weights, 0.0))


def reliability(confidence: ArrayLike, outcome: ArrayLike, bins: int = 15) -> Reliability:
    """Bins predictions by confidence.

    Args:
        confidence: ``(n,)`` predicted probability of an event, n at least 1.
        outcome: ``(n,)`` 1 where the event came true, else 0.
        bins: Number of bins; fewer where confidences repeat.
    """
    predicted, event = np.asarray(confidence, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    place = np.searchsorted(edges, predicted, side="right")
    n = np.bincount(place)
    full = n > 0
    sums = (np.bincount(place, weights=w)[full] for w in (predicted, event, predicted * (1 - predicted)))
    count = n[full].astype(np.float64)
    mean, share, spread = (part / count for part in sums)
    return Reliability(n=count, confidence=mean, outcome=share, variance=spread / count)
