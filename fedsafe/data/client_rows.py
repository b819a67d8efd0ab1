"""Which rows are whose, for as many clients as there may be: two arrays in place of one array for each client."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, final, overload

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ClientRows(Sequence[Indices]):
    """A sequence of row numbers, one array for each client, of which only those that are asked for are made.

    A million arrays take hundreds of bytes each and seconds to send to a worker; this takes eight bytes for each client
    and, unless its rows follow each other, eight for each row.

    Args:
        bounds: ``(clients + 1,)`` int64: client k has the entries ``bounds[k]`` to ``bounds[k + 1]`` of ``order``.
        order: ``(n,)`` int64 row numbers; None where entry i is row i.

    Guarantees:
        An array that is handed out is a copy: whoever writes to it changes nobody's rows.
    """

    bounds: Indices
    order: Indices | None = None

    @classmethod
    def of(cls, parts: Iterable[Indices]) -> Self:
        """The same rows, whatever kind of sequence they are in."""
        if isinstance(parts, cls):
            return parts
        given = list(parts)
        sizes = np.array([len(part) for part in given], np.int64)
        return cls.cut(np.concatenate([np.empty(0, np.int64), *given]), sizes)

    @classmethod
    def cut(cls, order: Indices, sizes: Indices) -> Self:
        """The first ``sizes[0]`` entries of ``order`` for client 0, the next for client 1, and so on.

        Rows that follow each other from 0 are recognised, so that equal rows have equal arrays.
        """
        rows = cls.in_order(sizes)
        return rows if np.array_equal(order, rows.together) else cls(bounds=rows.bounds, order=order)

    @classmethod
    def in_order(cls, sizes: Indices) -> Self:
        """Rows 0, 1, 2, ...: the first ``sizes[0]`` of them for client 0, the next for client 1, and so on."""
        bounds = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=bounds[1:])
        return cls(bounds=bounds)

    @classmethod
    def none(cls, clients: int) -> Self:
        """No rows for anybody."""
        return cls(bounds=np.zeros(clients + 1, np.int64))

    @property
    def sizes(self) -> Indices:
        """``(clients,)`` rows of each client."""
        return np.diff(self.bounds)

    @property
    def together(self) -> Indices:
        """``(n,)`` the rows of all clients, client by client."""
        return np.arange(self.bounds[0], self.bounds[-1]) if self.order is None else self.order.copy()

    @property
    def last(self) -> int:
        """The largest row that anybody has; -1 if there is none."""
        if self.bounds[-1] == self.bounds[0]:
            return -1
        return int(self.bounds[-1]) - 1 if self.order is None else int(self.order.max())

    def take(self, clients: Indices) -> Self:
        """The rows of some clients, in that order."""
        if np.array_equal(clients, np.arange(len(self))):
            return self
        return type(self).of(self[int(client)] for client in clients)

    def arrays(self) -> Iterator[Indices]:
        """What there is to hash or to send."""
        yield self.bounds
        if self.order is not None:
            yield self.order

    def __len__(self) -> int:
        """Number of clients, those without rows counted."""
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, client: int) -> Indices: ...

    @overload
    def __getitem__(self, client: slice) -> list[Indices]: ...

    def __getitem__(self, client: int | slice) -> Indices | list[Indices]:
        """The rows of one client, or of several."""
        if isinstance(client, slice):
            return [self[each] for each in range(len(self))[client]]
        if not -len(self) <= client < len(self):
            raise IndexError(f"there is no client {client} among {len(self)}")
        first, end = self.bounds[client % len(self)], self.bounds[client % len(self) + 1]
        return np.arange(first, end) if self.order is None else self.order[first:end].copy()
