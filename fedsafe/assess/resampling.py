"""Bootstrap of figures that follow from sums, over records or over whole holders of records."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsafe.data import Examples
from fedsafe.findings import Interval, percentile

Array = NDArray[np.float64]
Figure = Callable[[Array], Array]

FEWEST_CLUSTERS = 5
"""Below so many holders, resampling them says nothing."""

# Values in one block of weights: 16 MB of doubles.
_BLOCK = 1 << 21


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """What is drawn together in a resample.

    Attributes:
        codes: ``(n,)`` the cluster of each record, from 0.
        name: What a cluster is, in the plural.
        note: What a reader must know of the interval; "" if nothing.
    """

    codes: NDArray[np.int64]
    name: str
    note: str = ""

    @property
    def method(self) -> str:
        """How an interval was made, for a finding."""
        return f"bootstrap over {self.name}"


def clusters_of(examples: Examples, unit: str = "examples") -> Clusters:
    """Holders of the records where they have enough of them, else the single records.

    Records of one person are alike, so an interval that takes them for independent is too narrow. Of several columns
    of holders the one with the fewest is taken.

    Args:
        examples: The records.
        unit: What one record is called.
    """
    found = {name: np.unique(values, return_inverse=True)[1] for name, values in examples.holders.items()}
    enough = {name: codes for name, codes in found.items() if codes.max(initial=-1) + 1 >= FEWEST_CLUSTERS}
    if enough:
        name = min(enough, key=lambda name: int(enough[name].max()))
        return Clusters(codes=np.asarray(enough[name], np.int64), name=f"holders ({name})")
    note = (
        f"records of one holder ({', '.join(found)}) are taken for independent: too narrow" if found else ""
    )
    return Clusters(codes=np.arange(len(examples)), name=unit, note=note)


def cluster_sums(values: Array, codes: NDArray[np.int64]) -> Array:
    """``(clusters, columns)`` sums of ``(n, columns)`` values; a cluster without records has sums 0."""
    width = int(codes.max(initial=-1)) + 1
    return np.stack([np.bincount(codes, weights=column, minlength=width) for column in values.T], axis=1)


def resample(sums: Array, rng: np.random.Generator, resamples: int) -> Array:
    """``(resamples, columns)`` totals of as many clusters, drawn with replacement (Efron, 1979).

    Args:
        sums: ``(clusters, columns)``.
        rng: Source of the draws.
        resamples: Number of resamples.
    """
    count = len(sums)
    block = max(1, _BLOCK // count)
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    return np.concatenate([draw_counts(count, size, rng) @ sums for size in sizes])


def draw_counts(count: int, resamples: int, rng: np.random.Generator) -> Array:
    """``(resamples, count)`` how often each of `count` things was drawn, with replacement."""
    # Counting draws is faster than drawing multinomial counts.
    drawn = rng.integers(0, count, size=(resamples, count)) + count * np.arange(resamples)[:, None]
    return (
        np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count).astype(np.float64)
    )


def interval_of(figure: Figure, sums: Array, rng: np.random.Generator, resamples: int) -> Interval | None:
    """Percentile interval of a figure of the totals, which maps ``(rows, columns)`` to ``(rows,)``.

    Returns:
        None where there are fewer than two clusters, or no resample has a finite figure.
    """
    if len(sums) < 2:
        return None
    replicates = figure(resample(sums, rng, resamples))
    finite = replicates[np.isfinite(replicates)]
    return percentile(finite) if len(finite) else None
