"""What sampling error, chance and a half of the records do to the rates of groups."""

from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.fairness.cells import Counts, Rate, rate_counts
from fedsafe.assess.fairness.mean_gaps import largest_studentised

Array = NDArray[np.float64]

_SPLITS = 200


class GroupSample:
    """Counts of groups, with everything that is drawn for them; each kind is drawn once, when it is first needed.

    Attributes:
        cells: ``(groups, 4)`` in the order of `count_cells`; the rates asked for have trials in every group.
    """

    def __init__(self, cells: Counts, rng: np.random.Generator, resamples: int) -> None:
        self.cells = cells
        self._rng, self._resamples = rng, resamples
        self._fair: dict[Rate, Array] = {}
        self._largest: dict[tuple[Rate, bool], Array] = {}

    @cached_property
    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Left and right group of every pair."""
        left, right = zip(*combinations(range(len(self.cells)), 2), strict=True)
        return np.array(left), np.array(right)

    def counts(self, rate: Rate) -> tuple[Counts, Counts]:
        """``(groups,)`` successes and ``(groups,)`` trials."""
        return rate_counts(self.cells, rate)

    def shares(self, rate: Rate) -> Array:
        """``(groups,)`` the rate of each group."""
        hits, trials = self.counts(rate)
        return np.asarray(hits / trials)

    def errors(self, rate: Rate, *, log: bool = False) -> Array:
        """``(resamples, groups)`` sampling errors of a rate, or of its logarithm, by a bootstrap inside every group."""
        part, whole = rate_counts(self._drawn, rate)
        centre = np.divide(*rate_counts(self._smoothed, rate))
        if log:
            # Half a success more (Walter, 1975), so that none has a logarithm.
            return np.asarray(np.log((part + 0.5) / (whole + 0.5)) - np.log(centre))
        return np.asarray(part / np.maximum(whole, 1) - centre)

    def studentised(self, rate: Rate, *, log: bool = False) -> Array:
        """``(resamples,)`` the largest of the pairs' absolute errors, each over its own standard deviation."""
        if (rate, log) not in self._largest:
            self._largest[rate, log] = largest_studentised(self.errors(rate, log=log), *self.pairs)
        return self._largest[rate, log]

    def fair(self, rate: Rate) -> Array:
        """``(resamples, groups)`` the rate where the records that it divides by are dealt to the groups at random."""
        if rate not in self._fair:
            hits, trials = self.counts(rate)
            # Dealing records is dealing successes: a permutation test without the permutations.
            dealt = self._rng.multivariate_hypergeometric(trials, int(hits.sum()), size=self._resamples)
            self._fair[rate] = dealt / trials
        return self._fair[rate]

    @cached_property
    def halves(self) -> tuple[Counts, Counts]:
        """Twice ``(splits, groups, 4)``: random halves of every group, independent of each other given the truth."""
        half = np.stack(
            [
                self._rng.multivariate_hypergeometric(row, int(row.sum()) // 2, size=_SPLITS)
                for row in self.cells
            ],
            axis=1,
        )
        return half, self.cells - half

    @cached_property
    def _smoothed(self) -> Array:
        # Half an example in every cell (Jeffreys), so that a group without errors still has sampling error.
        return np.asarray((self.cells + 0.5) / (self.cells.sum(axis=1)[:, None] + 2.0))

    @cached_property
    def _drawn(self) -> Counts:
        sizes = self.cells.sum(axis=1)
        return np.stack(
            [
                self._rng.multinomial(n, p, size=self._resamples)
                for n, p in zip(sizes, self._smoothed, strict=True)
            ],
            axis=1,
        )
