"""When clients are there, read from a file: intervals of virtual time."""

import csv
import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsafe.engine.schedules import Floats
from fedsafe.errors import DataError

_HEADER = ["client", "start", "end"]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """There in the intervals of a list, from each start until just before its end.

    A client whose interval ends before it is done has gone, and does not answer. Intervals of a client that overlap or
    touch are one.

    Args:
        owners: ``(intervals,)`` the client of each.
        starts: ``(intervals,)`` in seconds, at least 0.
        ends: ``(intervals,)`` in seconds, not before the start.
        period: Seconds after which the list begins again; None where it does not.
    """

    owners: NDArray[np.int64] = field(repr=False)
    starts: Floats = field(repr=False)
    ends: Floats = field(repr=False)
    period: float | None = None

    timed = True

    def __post_init__(self) -> None:
        rows = list(zip(self.owners.tolist(), self.starts.tolist(), self.ends.tolist(), strict=True))
        if self.period is not None:  # whoever stays over the end of a period is there at its beginning
            rows += [(owner, start + self.period, end + self.period) for owner, start, end in rows]
        merged = list(_merged(sorted(rows)))
        for name, column, kind in (
            ("owners", 0, np.int64),
            ("starts", 1, np.float64),
            ("ends", 2, np.float64),
        ):
            object.__setattr__(self, name, np.array([row[column] for row in merged], kind))

    @property
    def span(self) -> float:
        """The period, or the last end."""
        return self.period if self.period is not None else float(self.ends.max(initial=0.0))

    @property
    def digest(self) -> str:
        """SHA-256 of the intervals."""
        parts = (self.owners.astype("<i8"), self.starts.astype("<f8"), self.ends.astype("<f8"))
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

    def share(self, seconds: float, until: Floats, seed: int) -> Floats:
        """Ones and zeros."""
        start = seconds if self.period is None else seconds % self.period
        there = (self.starts <= start) & (start < self.ends)
        stays = there & (start + (until[self.owners] - seconds) <= self.ends)
        found = np.zeros(len(until))
        found[self.owners[stays]] = 1.0
        return found


def _merged(rows: Iterable[tuple[int, float, float]]) -> Iterator[tuple[int, float, float]]:
    """Sorted intervals, those of a client that overlap or touch made one."""
    current: tuple[int, float, float] | None = None
    for owner, start, end in rows:
        if current is not None and owner == current[0] and start <= current[2]:
            current = (owner, current[1], max(current[2], end))
            continue
        if current is not None:
            yield current
        current = (owner, start, end)
    if current is not None:
        yield current


def read_trace(path: Path | str, clients: int, period: float | None = None) -> Trace:
    """Read a CSV file with the columns client, start and end; times in seconds from the start of the run.

    Args:
        path: The file, with a header. Every client has a line; one with start = end says that it is never there.
        clients: How many there are, numbered from 0.
        period: Seconds after which the trace begins again.

    Raises:
        DataError: The file cannot be read, a line is no interval of a client, or a client has no line.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = [(number, row) for number, row in enumerate(csv.reader(file), 1) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"the trace {path} cannot be read: {reason}; name a CSV file") from error
    header = [cell.strip() for cell in lines[0][1]] if lines else []
    if header != _HEADER:
        raise DataError(f"the trace {path} begins with {','.join(header)!r}: its header is client,start,end")
    rows = [_interval(f"{path}, line {number}", row, clients, period) for number, row in lines[1:]]
    without = sorted(set(range(clients)) - {client for client, _, _ in rows})
    if without:
        raise DataError(
            f"the trace {path} has no line for {len(without)} of {clients} clients, the first of them {without[0]}: "
            "give each a line (start = end says that it is never there), or set federation.clients"
        )
    owners, starts, ends = zip(*rows, strict=True)
    return Trace(
        owners=np.array(owners, np.int64), starts=np.array(starts), ends=np.array(ends), period=period
    )


def _interval(where: str, row: list[str], clients: int, period: float | None) -> tuple[int, float, float]:
    if len(row) != len(_HEADER):
        raise DataError(f"{where}: {len(row)} fields, not the three of client,start,end")
    try:
        client, start, end = int(row[0]), float(row[1]), float(row[2])
    except ValueError:
        raise DataError(f"{where}: {','.join(row)!r} is no client number and two times in seconds") from None
    if not 0 <= client < clients:
        raise DataError(f"{where}: client {client} is not one of 0 to {clients - 1}")
    if not (math.isfinite(start) and math.isfinite(end) and 0.0 <= start <= end):
        raise DataError(f"{where}: from {start:g} to {end:g} is no interval: let 0 <= start <= end")
    if period is not None and end > period:
        raise DataError(f"{where}: the end {end:g} is after the period {period:g}: cut it there")
    return client, start, end
