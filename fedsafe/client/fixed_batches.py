"""Batches of a fixed size: so many records without replacement in each step, from the client's own stream.

The protected record is hidden by who is in the batch and not by how many, so the bound is one for replace-one
adjacency: a record that is replaced moves a sum by up to two clips. An accountant counts the noise multiplier over
that, half of what it is over the clip, under sampling without replacement (Balle, Barthe and Gaboardi 2018; Wang, Balle
and Kasiviswanathan 2019). Poisson batches of the same size on average cost less.

Guarantees:
    Every set of ``size`` records is a step's batch with the same probability, exactly; steps are independent.
"""

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import ConfigError
from fedsafe.rng import Stream


def fixed_batches(stream: Stream, records: int, size: int, steps: int) -> NDArray[np.int64]:
    """``(steps, size)``: which of the records are in each step's batch, in ascending order.

    Each record draws 64 bits, and those of the smallest draws are in. A tie at the border would favour one of the two:
    then all draw again.

    Args:
        stream: Of the client's batches.
        records: How many records it has.
        size: Of a batch.
        steps: How many batches.

    Raises:
        ConfigError: The client has fewer records than a batch.
    """
    if not 1 <= size <= records:
        raise ConfigError(f"batch_size = {size} for a client of {records} records: use 1 to {records}")
    batches = np.empty((steps, size), np.int64)
    for batch in batches:
        batch[:] = np.arange(size) if size == records else _smallest(stream, records, size)
    return batches


def _smallest(stream: Stream, records: int, size: int) -> NDArray[np.int64]:
    while True:
        words = stream.words(records)
        within = np.flatnonzero(words <= np.partition(words, size - 1)[size - 1])
        if len(within) == size:
            return within
