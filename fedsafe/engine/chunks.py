"""Cuts a cohort into chunks: of neighbouring cost, so that they stack well, and so that no worker is waited for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

# Every chunk has a fixed price of some milliseconds, and a stack is cheaper the more clients it holds.
_WORTH_SPLITTING = 0.2
# Shares of a long round: a large chunk for each worker first, then smaller ones for whoever is free.
_WAVES = (0.7, 0.2, 0.1)
# No worker counts as more than this many times slower or faster than the mean: one measurement may be an accident.
_MOST = 4.0
_MEMORY = 0.5


@dataclass(frozen=True, kw_only=True)
class Part:
    """A chunk to be.

    Args:
        items: Positions in the cohort.
        cost: Sum of their costs.
        worker: Whose share it is, while nobody is late; None for whoever is free.
    """

    items: tuple[int, ...]
    cost: float
    worker: int | None = None


@dataclass(kw_only=True)
class Pace:
    """Measured seconds for each unit of cost, by kind of message and worker.

    It decides who gets what, and never what comes out: results do not depend on packing.

    Args:
        workers: How many there are.
    """

    workers: int
    _measured: dict[str, list[float | None]] = field(default_factory=dict)

    def add(self, kind: str, worker: int, cost: float, seconds: float) -> None:
        """Note that a worker took so long for so much."""
        if cost <= 0.0:
            return
        known = self._measured.setdefault(kind, [None] * self.workers)
        before = known[worker]
        pace = seconds / cost
        known[worker] = pace if before is None else _MEMORY * before + (1.0 - _MEMORY) * pace

    def forget(self, worker: int) -> None:
        """Another process is this worker now."""
        for known in self._measured.values():
            known[worker] = None

    def shares(self, kind: str) -> list[float]:
        """What part of the work each worker does in equal time; equal while nothing is known."""
        mean = self._mean(kind)
        if mean is None:
            return [1.0 / self.workers] * self.workers
        paces = [mean if pace is None else max(pace, 1e-12) for pace in self._measured[kind]]
        speeds = [min(max(mean / pace, 1.0 / _MOST), _MOST) for pace in paces]
        return [speed / sum(speeds) for speed in speeds]

    def seconds(self, kind: str, cost: float) -> float | None:
        """How long so much will take on all workers together; None while nothing is known."""
        mean = self._mean(kind)
        return None if mean is None else cost * mean / self.workers

    def _mean(self, kind: str) -> float | None:
        known = [pace for pace in self._measured.get(kind, ()) if pace is not None]
        return sum(known) / len(known) if known else None


def cut(costs: Sequence[float], shares: Sequence[float], seconds: float | None) -> list[Part]:
    """One chunk for each worker in a short round; in a long one, smaller chunks after these. Longest first.

    Args:
        costs: Of each item, in any unit.
        shares: ``(workers,)`` what part each worker should do; they sum to 1.
        seconds: How long the round is expected to take; None if unknown.

    Returns:
        Every item in exactly one part; no part is empty.
    """
    waves = (1.0,) if seconds is not None and seconds < _WORTH_SPLITTING else _WAVES
    bounds: list[float] = []
    for wave in waves:
        for share in shares:
            bounds.append((bounds[-1] if bounds else 0.0) + wave * share)
    order = sorted(range(len(costs)), key=lambda item: costs[item], reverse=True)
    total = math.fsum(costs)
    # Without costs, items are cut by number.
    weights = [costs[item] / total if total > 0.0 else 1.0 / len(order) for item in order]
    chosen: list[list[int]] = [[] for _ in bounds]
    done, place = 0.0, 0
    for item, weight in zip(order, weights, strict=True):
        # The middle of an item's own cost decides, so that rounding does not favour either side.
        while place < len(bounds) - 1 and done + weight / 2.0 >= bounds[place]:
            place += 1
        chosen[place].append(item)
        done += weight
    first = len(shares)
    return [
        Part(
            items=tuple(items),
            cost=math.fsum(costs[item] for item in items),
            worker=number if number < first else None,
        )
        for number, items in enumerate(chosen)
        if items
    ]


def cut_by_number(costs: Sequence[float], size: int) -> list[Part]:
    """Chunks of so many items each, in the order given; the dearest chunk first."""
    spans = [tuple(range(i, min(i + size, len(costs)))) for i in range(0, len(costs), size)]
    parts = [Part(items=span, cost=math.fsum(costs[item] for item in span)) for span in spans]
    return sorted(parts, key=lambda part: part.cost, reverse=True)
