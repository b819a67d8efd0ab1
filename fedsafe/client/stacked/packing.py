"""Which clients are stacked together, and with how much padding, so that no client's bits depend on its neighbours.

A client's capacity and the size of its stack follow from the public sizes and its own batches alone. Where a single
client fills the cache it trains alone, always, and without padding; where many fit, they share a stack whose rows and
size avoid everything that would make a kernel treat a client by its place.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsafe.client.trainer import ClientJob, LocalTraining
from fedsafe.privacy.sampling import batch_capacity

# Elementwise kernels treat 32 values at a time and finish the rest one by one, where exp and log have other bits.
_KERNEL_WIDTH = 32

# Values that the layers of a stack may keep for one step: beyond, stacking saves nothing that the cache does not lose.
_STACK_VALUES = 2**20

# Values that they may keep for a client that is alone, so that a large batch does not fill the memory.
_PART_VALUES = 2**25

# Records whose gradients are summed in single precision: with more, the sum's rounding could pass the clip's margin.
_PART_ROWS = 4096

# Records and which of them count, both ``(size, rows)``.
Part = tuple[NDArray[np.int64], NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Clients that are trained as one stack.

    Args:
        positions: Which jobs they are.
        size: How many rows of clients the stack has; those beyond the jobs are computed and thrown away.
        steps: For each step, the parts of its batch: the sums of a step's parts are added.
    """

    positions: list[int]
    size: int
    steps: list[list[Part]]


def pack(jobs: Sequence[ClientJob], training: LocalTraining, values: int) -> Iterator[Packed]:
    """Stacks of clients.

    Args:
        jobs: Of the clients.
        training: How they train.
        values: How many values the model's layers keep for one example.
    """
    batches = [job.sample(training) for job in jobs]
    capacities: dict[int, list[int]] = {}
    for position, (job, steps) in enumerate(zip(jobs, batches, strict=True)):
        largest = max((len(step) for step in steps), default=0)
        capacity = batch_capacity(len(job.records), training.rate, largest)
        capacities.setdefault(capacity, []).append(position)
    for capacity, positions in capacities.items():
        limit = _most(capacity, values)
        for first in range(0, len(positions), limit):
            chosen = positions[first : first + limit]
            own = [jobs[position] for position in chosen]
            chosen_batches = [batches[position] for position in chosen]
            if limit == 1:
                yield Packed(positions=chosen, size=1, steps=_alone(own[0], chosen_batches[0], values))
            else:
                size = _stack_size(len(chosen), capacity)
                yield Packed(positions=chosen, size=size, steps=_padded(own, chosen_batches, size, capacity))


def _most(capacity: int, values: int) -> int:
    """How many clients of a capacity share a stack at most: one, or a number that leaves no remainder."""
    if capacity > _PART_ROWS:
        return 1
    multiple = _multiple(capacity)
    fit = _STACK_VALUES // (capacity * values)
    return 1 if fit < 2 * multiple else fit // multiple * multiple


def _multiple(capacity: int) -> int:
    return _KERNEL_WIDTH // math.gcd(capacity, _KERNEL_WIDTH)


def _stack_size(clients: int, capacity: int) -> int:
    """How many rows of clients to stack, so that no client's bits depend on how many there are.

    A multiple of the kernels' width leaves no remainder to treat differently; and a matrix product over one stack
    takes another kernel than over several.
    """
    multiple = _multiple(capacity)
    return max(2, multiple * math.ceil(clients / multiple))


def _alone(job: ClientJob, batches: Sequence[NDArray[np.int64]], values: int) -> list[list[Part]]:
    """A stack of one, each step as large as its batch and in parts if it is large.

    An empty batch has one record that does not count.
    """
    most = max(1, min(_PART_ROWS, _PART_VALUES // values))
    steps = []
    for batch in batches:
        rows, count = (batch, True) if len(batch) else (job.records[:1], False)
        parts = np.array_split(rows, math.ceil(len(rows) / most))
        steps.append([(part[None], np.full((1, len(part)), count)) for part in parts])
    return steps


def _padded(
    jobs: Sequence[ClientJob], batches: Sequence[Sequence[NDArray[np.int64]]], size: int, capacity: int
) -> list[list[Part]]:
    """One part of ``capacity`` rows for each step; padding repeats a client's own first record, unused."""
    steps = len(batches[0])
    rows = np.empty((steps, size, capacity), np.int64)
    mask = np.zeros((steps, size, capacity), bool)
    for position in range(size):
        rows[:, position] = jobs[min(position, len(jobs) - 1)].records[0]
    for position, client in enumerate(batches):
        for step, batch in enumerate(client):
            rows[step, position, : len(batch)] = batch
            mask[step, position, : len(batch)] = True
    return [[part] for part in zip(rows, mask, strict=True)]
