"""Reads the one data frame in an R data file (R Internals, section 1.8: serialization formats, version 2, XDR)."""

from typing import Any

import numpy as np

from fedsafe.errors import DataError

_MAGIC = b"RDX2\nX\n"
_SYMBOL, _PAIRLIST, _TEXT, _INTEGER, _REAL, _TEXTS, _LIST = 1, 2, 9, 13, 14, 16, 19
_NULL, _REFERENCE = 254, 255
_HAS_ATTRIBUTES, _HAS_TAG = 1 << 9, 1 << 10


def read_r_frame(content: bytes) -> dict[str, list[Any]]:
    """The columns of the data frame, by name: texts, whole numbers or real numbers.

    Args:
        content: An R data file, decompressed, that holds one data frame.

    Raises:
        DataError: If it is no such file, or holds something else.
    """
    if not content.startswith(_MAGIC):
        raise DataError("The R data file is not in the binary format of version 2.")
    try:
        values, attributes = _Reader(content).first()
        return {name: list(column) for name, column in zip(attributes["names"], values, strict=True)}
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"The R data file holds no data frame that can be read: {error}.") from error


class _Reader:
    """A position in the file; each method reads one thing and moves on."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = len(_MAGIC) + 12  # the magic, the version and two versions of R
        self._symbols: list[str] = []

    def first(self) -> tuple[Any, dict[str, Any]]:
        """The value and attributes of the first variable: files of variables are lists with their names as tags."""
        flags = self._integer()
        if flags & 0xFF != _PAIRLIST or not flags & _HAS_TAG:
            raise ValueError("it has no variable")
        self._item()  # the variable's name
        return self._value(self._integer())

    def _item(self) -> Any:
        return self._value(self._integer())[0]

    def _value(self, flags: int) -> tuple[Any, dict[str, Any]]:
        kind = flags & 0xFF
        if kind == _NULL:
            return None, {}
        if kind == _REFERENCE:
            return self._symbols[(flags >> 8) - 1], {}
        if kind == _SYMBOL:
            self._symbols.append(self._item())
            return self._symbols[-1], {}
        if kind == _TEXT:
            length = self._integer()
            return (None if length == -1 else self._bytes(length).decode("utf-8")), {}
        if kind == _PAIRLIST:
            return self._pairs(flags), {}
        value = self._vector(kind)
        return value, self._pairs(self._integer()) if flags & _HAS_ATTRIBUTES else {}

    def _vector(self, kind: int) -> Any:
        length = self._integer()
        if kind == _INTEGER:
            return np.frombuffer(self._bytes(4 * length), ">i4").tolist()
        if kind == _REAL:
            return np.frombuffer(self._bytes(8 * length), ">f8").tolist()
        if kind in (_TEXTS, _LIST):
            return [self._item() for _ in range(length)]
        raise ValueError(f"it has a value of R's type {kind}")

    def _pairs(self, flags: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while flags & 0xFF == _PAIRLIST:
            tag = self._item() if flags & _HAS_TAG else ""
            found[tag] = self._item()
            flags = self._integer()
        return found

    def _integer(self) -> int:
        return int.from_bytes(self._bytes(4), "big", signed=True)

    def _bytes(self, count: int) -> bytes:
        part = self._content[self._at : self._at + count]
        if len(part) != count:
            raise ValueError("it breaks off")
        self._at += count
        return part
