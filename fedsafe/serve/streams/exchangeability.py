"""Whether new scores still come as the known ones do: a conformal test martingale (Vovk, 2021; Vovk et al., 2021).

Each score is compared with all before it, those of the calibration first. While all are exchangeable, the p-values are
independent and uniform, exactly: with a calibration that stays as it is they would not be, and a long stream would
tell its sampling error from the truth. Scores are counted in bins whose edges are a quarter of the known ones, drawn at
random, which are not compared with: whatever the edges are, the others and what comes are exchangeable given them, so
that a bin is only a coarser score. Ties are broken at random. Memory and time per score do not grow. (Edges from what
is compared with lie in bins of their own making, and p-values are not uniform then; a test shows it.)
"""

from collections.abc import Mapping
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike

from fedsafe.errors import CalibrationError
from fedsafe.serve.streams.wealth import Wealth

_BINS: Final = 256
_FEWEST: Final = 50
_EDGES: Final = 4  # one in so many is an edge
# Powers of the bets k p^(k - 1), each of mean 1 under uniform p-values (Vovk, Nouretdinov and Gammerman, 2003).
_POWERS: Final = (0.2, 0.6)


class ExchangeabilityTest:
    """Tests scores for drift, in either direction.

    Args:
        reference: ``(n,)`` scores of known records, at least 50.
        alpha: Probability, at most, that it ever raises a false alarm.
        seed: Of the ties.

    Raises:
        CalibrationError: There are too few scores, or one is not finite.
    """

    def __init__(self, reference: ArrayLike, alpha: float, seed: int = 0) -> None:
        known = np.asarray(reference, np.float64)
        if len(known) < _FEWEST or not np.isfinite(known).all():
            raise CalibrationError(
                f"a test for drift needs {_FEWEST} finite scores or more, not {len(known)}"
            )
        self.wealth = Wealth(bets=2 * len(_POWERS), alpha=alpha)
        self._rng = np.random.default_rng(seed)
        order = self._rng.permutation(len(known))
        cut = len(known) // _EDGES
        edges = np.sort(known[order[:cut]])
        self.edges = np.unique(edges[np.linspace(0, cut - 1, min(_BINS - 1, cut)).round().astype(np.int64)])
        known = known[order[cut:]]
        self._counts, self._total = [0] * (len(self.edges) + 2), 0
        for place, count in enumerate(np.bincount(self._bins(known), minlength=len(self.edges) + 1).tolist()):
            self._add(place, count)

    def observe(self, scores: ArrayLike) -> list[int]:
        """Take new scores, in their order.

        Args:
            scores: ``(n,)``; one that is not a number counts as the largest.

        Returns:
            At which of them an alarm was raised.
        """
        values = np.asarray(scores, np.float64)  # what is not a number sorts behind everything
        ties, alarms = 1.0 - self._rng.random(len(values)), []
        for at, (place, tie) in enumerate(zip(self._bins(values).tolist(), ties.tolist(), strict=True)):
            below = self._below(place)
            equal = self._below(place + 1) - below
            p = (self._total - below - equal + tie * (equal + 1)) / (self._total + 1)
            other = 1.0 - p if p < 1.0 else tie * 2.0**-53
            factors = [power * side ** (power - 1.0) for power in _POWERS for side in (p, other)]
            self._add(place, 1)
            if self.wealth.step(factors):
                alarms.append(at)
                # From here on the question is whether it changes again.
                self._counts, self._total = [0] * len(self._counts), 0
        return alarms

    def _bins(self, values: "np.ndarray[Any, np.dtype[np.float64]]") -> "np.ndarray[Any, np.dtype[np.int64]]":
        return self.edges.searchsorted(values, side="right").astype(np.int64)

    # Counts below a bin and counting one more take the logarithm of the bins: a binary indexed tree (Fenwick, 1994).

    def _add(self, place: int, count: int) -> None:
        self._total += count
        at, counts = place + 1, self._counts
        while at < len(counts):
            counts[at] += count
            at += at & -at

    def _below(self, place: int) -> int:
        total, counts = 0, self._counts
        while place:
            total += counts[place]
            place -= place & -place
        return total

    def to_json(self) -> dict[str, Any]:
        """Everything, to go on later."""
        return {
            "edges": self.edges.tolist(),
            "counts": self._counts,
            "total": self._total,
            "wealth": self.wealth.to_json(),
            "ties": self._rng.bit_generator.state,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        test = cls.__new__(cls)
        test.edges = np.array(values["edges"], np.float64)
        test._counts, test._total = [int(count) for count in values["counts"]], int(values["total"])
        test.wealth = Wealth.from_json(values["wealth"])
        test._rng = np.random.default_rng()
        test._rng.bit_generator.state = values["ties"]
        return test
