"""Split-conformal p-values, and what they are combined and corrected by.

A score of a new input is compared with the scores of held-out inliers. If the input is exchangeable with them, the
share of them at or above it, the input counted, is a valid p-value whatever the score is (Vovk, Gammerman and Shafer,
2005): P(p <= level) <= level, exactly, for every sample size.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedsafe.errors import CalibrationError, ConfigError

Array = NDArray[np.float64]

_POINTS = 512
_TAIL = 0.9


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Scores of held-out inliers.

    Attributes:
        scores: ``(n,)`` rising; larger is stranger.
    """

    scores: Array

    @classmethod
    def of(cls, scores: ArrayLike) -> "Calibration":
        """From scores in any order.

        Raises:
            CalibrationError: There are none, or one is not finite.
        """
        values = np.sort(np.asarray(scores, np.float64))
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise CalibrationError(
                "a conformal calibration needs finite scores of at least one held-out record"
            )
        return cls(scores=values)

    def p_values(self, scores: ArrayLike) -> Array:
        """``(n,)`` p-values, from 1 / (calibrated + 1) to 1; a score that is not a number is the strangest.

        Args:
            scores: ``(n,)`` of new inputs.
        """
        # What is not a number sorts behind everything.
        count = len(self.scores) + 1.0
        above = self.scores.searchsorted(np.asarray(scores, np.float64), side="left")
        return np.asarray((count - above) / count)

    def check_level(self, level: float) -> None:
        """Refuses a level that so few scores cannot reach.

        Raises:
            CalibrationError: Naming how many are needed.
            ConfigError: The level is no share.
        """
        if not 0.0 < level < 1.0:
            raise ConfigError(f"a false-alarm rate is between 0 and 1, not {level!r}")
        needed = int(np.ceil(1.0 / level)) - 1
        if len(self.scores) < needed:
            raise CalibrationError(
                f"{len(self.scores)} held-out records cannot give p-values of {level:g}: {needed} or more are needed"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Surprise:
    """Brings the scores of one detector to a common scale: minus the logarithm of their tail probability.

    Between the inliers' scores it is interpolated, and beyond the largest it goes on as an exponential tail would, so
    that it never ties: the strangest of two strange inputs is still known. Nothing rests on the tail's shape but power,
    since what is combined is calibrated again.

    Attributes:
        at: ``(points,)`` rising scores.
        surprise: ``(points,)`` rising values there.
        scale: Of the exponential tail beyond the last.
    """

    at: Array
    surprise: Array
    scale: float

    @classmethod
    def of(cls, scores: ArrayLike) -> "Surprise":
        """From the scores of inliers, in any order.

        Raises:
            CalibrationError: Fewer than 10, or one is not finite.
        """
        values = np.sort(np.asarray(scores, np.float64))
        if len(values) < 10 or not np.isfinite(values).all():
            raise CalibrationError(
                f"a detector needs 10 finite scores or more to be scaled, not {len(values)}"
            )
        keep = np.unique(np.linspace(0, len(values) - 1, min(_POINTS, len(values))).round().astype(np.int64))
        tail = (len(values) - keep).astype(np.float64) / (len(values) + 1.0)
        at, first = np.unique(values[keep], return_index=True)
        high = values[int(_TAIL * len(values)) :]
        spread = float(high.mean() - high[0])
        if spread <= 0.0:
            spread = float(values[-1] - values[0]) or max(1e-9, abs(float(values[-1])) * 1e-6)
        return cls(at=at, surprise=-np.log(tail[first]), scale=spread)

    def __call__(self, scores: Array) -> Array:
        """``(n,)`` surprises of ``(n,)`` scores; not a number where a score is none."""
        beyond = np.maximum(scores - self.at[-1], 0.0) / self.scale
        return np.asarray(np.interp(scores, self.at, self.surprise) + beyond)


def benjamini_hochberg(p_values: ArrayLike, level: float) -> NDArray[np.bool_]:
    """Which of a batch to raise an alarm for, with at most this expected share of false ones among them.

    Benjamini and Hochberg (1995); conformal p-values of one calibration are positively dependent, for which it holds
    (Bates et al., 2023).

    Args:
        p_values: ``(n,)``.
        level: False discovery rate, in (0, 1).

    Raises:
        ConfigError: The level is no share.
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"a false discovery rate is between 0 and 1, not {level!r}")
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)
    below = values[order] <= level * np.arange(1, len(values) + 1) / max(1, len(values))
    raised = np.zeros(len(values), np.bool_)
    if below.any():
        raised[order[: int(np.flatnonzero(below)[-1]) + 1]] = True
    return raised
