"""Bytes: whole numbers, pieces and lists in a fixed order, read strictly.

Every message has one encoding. Whatever is left over, cut off, out of order or too long is refused before anything is
made of it.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

from fedsafe.errors import SecureAggregationError

T = TypeVar("T")


class Writer:
    """Collects the bytes of a message."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def number(self, value: int, width: int = 4) -> None:
        """An unsigned number of so many bytes."""
        self._parts.append(value.to_bytes(width, "big"))

    def fixed(self, value: bytes) -> None:
        """Bytes whose number the reader knows."""
        self._parts.append(value)

    def piece(self, value: bytes) -> None:
        """Any bytes, after their number."""
        self.number(len(value))
        self._parts.append(value)

    def listed(self, items: Sequence[T], write: Callable[[T], None]) -> None:
        """So many items, each as it is written."""
        self.number(len(items))
        for item in items:
            write(item)

    def clients(self, clients: Sequence[int]) -> None:
        """Numbers of clients."""
        self.listed(clients, self.number)

    def done(self) -> bytes:
        """All bytes."""
        return b"".join(self._parts)


class Reader:
    """Reads a message from its first byte to its last.

    Args:
        data: The bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = memoryview(data), 0

    def fixed(self, count: int) -> bytes:
        """The next bytes.

        Raises:
            SecureAggregationError: There are not so many.
        """
        if count > len(self._data) - self._at:
            raise SecureAggregationError(
                f"a message of secure aggregation is cut off: {count} bytes are missing at byte {self._at} of "
                f"{len(self._data)}"
            )
        found = bytes(self._data[self._at : self._at + count])
        self._at += count
        return found

    def number(self, width: int = 4) -> int:
        """An unsigned number of so many bytes."""
        return int.from_bytes(self.fixed(width), "big")

    def piece(self) -> bytes:
        """Any bytes, after their number."""
        return self.fixed(self.number())

    def listed(self, read: Callable[[], T], least: int) -> tuple[T, ...]:
        """A list.

        Args:
            read: Reads one item.
            least: Bytes that an item has at least, so that a false length costs nothing.

        Raises:
            SecureAggregationError: There is no room for so many items.
        """
        count = self.number()
        if count * least > len(self._data) - self._at:
            raise SecureAggregationError(
                f"a message of secure aggregation names {count} items and has no room for them"
            )
        return tuple(read() for _ in range(count))

    def clients(self) -> tuple[int, ...]:
        """Numbers of clients, each once, in ascending order.

        Raises:
            SecureAggregationError: One comes twice or out of order.
        """
        found = self.listed(self.number, 4)
        require_ascending(found)
        return found

    def done(self) -> None:
        """Nothing may follow.

        Raises:
            SecureAggregationError: Something does.
        """
        left = len(self._data) - self._at
        if left:
            raise SecureAggregationError(f"a message of secure aggregation has {left} bytes too many")


def require_ascending(clients: Sequence[int]) -> None:
    """Each client once, in ascending order.

    Raises:
        SecureAggregationError: One comes twice or out of order.
    """
    for before, after in itertools.pairwise(clients):
        if after <= before:
            raise SecureAggregationError(
                f"a list of clients of secure aggregation has {after} after {before}: each comes once, in order"
            )
