"""Sampling of clients into a cohort and of records into a batch: Poisson, or of a fixed size where that is asked for.

Guarantees:
    In a Poisson sample every element enters independently with probability ``rate``; nothing is truncated, resampled
    or skipped, an empty cohort and an empty batch included.
"""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsafe.rng import Stream, bernoulli_rows


def poisson_cohort(stream: Stream, population: int, rate: float) -> NDArray[np.int64]:
    """Indices in ``range(population)``, each present with probability ``rate``."""
    return np.flatnonzero(stream.bernoulli(rate, (population,)))


def fixed_cohort(stream: Stream, population: int, size: int) -> NDArray[np.int64]:
    """``size`` different indices in ``range(population)``, every such set with the same probability.

    Each client draws a 64-bit number, and the smallest are chosen.
    """
    drawn = stream.words(population)
    return np.sort(np.argsort(drawn, kind="stable")[:size])


def poisson_batches(stream: Stream, records: int, rate: float, steps: int) -> NDArray[np.bool_]:
    """``(steps, records)``: which records are in the batch of each step."""
    return stream.bernoulli(rate, (steps, records))


def poisson_batches_of(streams: Sequence[Stream], records: int, rate: float, steps: int) -> NDArray[np.bool_]:
    """``(len(streams), steps, records)``: :func:`poisson_batches` of many clients of one size, from a stream each."""
    return bernoulli_rows(streams, rate, (steps, records))


@functools.lru_cache(maxsize=4096)
def batch_capacity(records: int, rate: float, largest: int) -> int:
    """How many rows to allot to a client's batches: the padding that makes stacking possible.

    The capacity depends on the public ``(records, rate)`` alone, as long as no batch exceeds the mean plus three
    standard deviations; a client with a larger batch gets a larger size for that round, so nothing is ever cut
    off. Either way it depends on this client alone, and so do its bits.

    Args:
        records: The client's records, n_k.
        rate: Poisson rate.
        largest: Its largest batch in this round.
    """
    mean = records * rate
    usual = int(np.ceil(mean + 3.0 * np.sqrt(mean * (1.0 - rate))))
    return min(_bucket(max(usual, largest)), _bucket(records))


def _bucket(size: int) -> int:
    """The next of 16, 32, 48, 64, 96, 128, ...: few sizes, so that many clients share one.

    Multiples of 16 keep every client's rows aligned alike, wherever they lie in a stack: matrix products choose
    their kernel, and so their rounding, by alignment.
    """
    bucket = 16
    while bucket < size:
        half = bucket + bucket // 2
        if half >= size and half % 16 == 0:
            return half
        bucket *= 2
    return bucket
