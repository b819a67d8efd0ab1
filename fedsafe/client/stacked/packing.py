"""Which clients are stacked together, and with how much padding, so that no client's bits depend on its neighbours.

A client's capacity and the size of its stack follow from the public sizes and its own batches alone. Where a single
client fills the cache it trains alone, always, and without padding; where many fit, they share a stack whose rows and
size avoid everything that would make a kernel treat a client by its place.
"""

import functools
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedsafe.client.trainer import ClientJob, LocalTraining
from fedsafe.privacy.sampling import batch_capacity, poisson_batches_of

# Elementwise kernels treat 32 values at a time and finish the rest one by one, where exp and log have other bits.
_KERNEL_WIDTH = 32

# Values that the layers may keep for one step of the fewest clients that can share a stack. With more, each client is
# alone: stacking saves nothing that the cache does not lose. Not a setting: the two ways round differently.
_SHARED_VALUES = 2**20

# Values that they may keep for a client that is alone, so that a large batch does not fill the memory.
_PART_VALUES = 2**25

# Records whose gradients are summed in single precision: with more, the sum's rounding could pass the clip's margin.
_PART_ROWS = 4096

# Draws of batches that are in memory at once.
_DRAWN_AT_ONCE = 2**18

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


def pack(
    jobs: Sequence[ClientJob],
    training: LocalTraining,
    values: int,
    room: int = _SHARED_VALUES,
    most: int | None = None,
    *,
    alone: bool = False,
) -> Iterator[Packed]:
    """Stacks of clients.

    Args:
        jobs: Of the clients.
        training: How those train whose jobs do not say.
        values: How many values the model's layers keep for one example.
        room: How many values they may keep for one step of a stack.
        most: How many clients may share a stack. Neither changes any client's bits.
        alone: Whether each client trains alone, where the kernels' bits depend on the number of clients.
    """
    ways = [job.training or training for job in jobs]
    batches = _sampled(jobs, ways)
    alike: dict[tuple[int, Hashable], list[int]] = {}
    for position, (job, way, steps) in enumerate(zip(jobs, ways, batches, strict=True)):
        largest = max((len(step) for step in steps), default=0)
        capacity = batch_capacity(len(job.records), way.rate, largest)
        alike.setdefault((capacity, _kind(way)), []).append(position)
    for (capacity, _), positions in alike.items():
        limit = 1 if alone else _most(capacity, values, room if most is None else most * capacity * values)
        for first in range(0, len(positions), limit):
            chosen = positions[first : first + limit]
            own = [jobs[position] for position in chosen]
            chosen_batches = [batches[position] for position in chosen]
            if limit == 1:
                yield Packed(positions=chosen, size=1, steps=_alone(own[0], chosen_batches[0], values))
            else:
                size = _stack_size(len(chosen), capacity)
                yield Packed(positions=chosen, size=size, steps=_padded(own, chosen_batches, size, capacity))


def _sampled(jobs: Sequence[ClientJob], ways: Sequence[LocalTraining]) -> list[list[NDArray[np.int64]]]:
    """The rows of each job's batches, as :meth:`ClientJob.sample` gives them; those of one size are drawn together."""
    alike: dict[tuple[int, float, int], list[int]] = {}
    for position, (job, way) in enumerate(zip(jobs, ways, strict=True)):
        alike.setdefault((len(job.records), way.rate, way.steps), []).append(position)
    batches: list[list[NDArray[np.int64]]] = [[]] * len(jobs)
    for (records, rate, steps), positions in alike.items():
        at_once = max(1, _DRAWN_AT_ONCE // max(1, records * steps))
        for first in range(0, len(positions), at_once):
            some = positions[first : first + at_once]
            drawn = poisson_batches_of([jobs[position].batches for position in some], records, rate, steps)
            for position, masks in zip(some, drawn, strict=True):
                own = jobs[position].records
                batches[position] = [own[mask.nonzero()[0]] for mask in masks]
    return batches


def _kind(training: LocalTraining) -> Hashable:
    """What the rows of a stack have in common: which operations they take, not with which numbers."""
    return (
        training.steps,
        training.clip == math.inf,
        training.noise > 0.0,
        training.proximal > 0.0,
        type(training.optimizer),
        training.optimizer.plain,
    )


def _most(capacity: int, values: int, room: int) -> int:
    """How many clients of a capacity share a stack at most: one, or a number that leaves no remainder."""
    multiple = _multiple(capacity)
    if capacity > _PART_ROWS or capacity * values * 2 * multiple > _SHARED_VALUES:
        return 1
    fit = room // (capacity * values)
    return max(2 * multiple, fit // multiple * multiple)


def room_of(device: torch.device) -> int:
    """How many values the layers of a stack may keep for one step: what fits the cache, or some of a GPU's memory."""
    if device.type != "cpu":
        free, _ = torch.cuda.mem_get_info(device)
        return max(_SHARED_VALUES, free // 64)
    return max(_SHARED_VALUES // 4, _cache_bytes() // 4)


@functools.cache
def _cache_bytes() -> int:
    """The largest cache that this machine tells of, up to 4 MiB: several workers share it."""
    sizes = [4 * _SHARED_VALUES]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text.endswith("K") and text[:-1].isdigit():
            sizes.append(1024 * int(text[:-1]))
    return min(4 * _SHARED_VALUES, max(sizes[1:] or sizes))


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
    first = np.array([job.records[0] for job in jobs])
    rows = np.repeat(np.append(first, np.repeat(first[-1:], size - len(jobs)))[:, None], capacity, axis=1)
    parts = []
    for each in zip(*batches, strict=True):
        own, counts = rows.copy(), np.zeros(size, np.int64)
        counts[: len(each)] = [len(batch) for batch in each]
        mask = np.arange(capacity) < counts[:, None]
        own[mask] = np.concatenate(each)
        parts.append([(own, mask)])
    return parts
