"""Arrays that stay in their files: read block by block, and sent to a worker as the name of the file."""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import DataError

# Bytes that are looked at in one go.
_BLOCK = 1 << 25


@dataclass(frozen=True, kw_only=True)
class FileArray:
    """Where in a file an array is, for whoever can open the file: much less to send than the array.

    Args:
        path: The file, absolute.
        offset: Where the array begins, in bytes.
        shape: Of the array.
        dtype: Of its values, as numpy writes it.
        size: Of the whole file, in bytes.
        changed: When the file was last changed, in nanoseconds.
    """

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str
    size: int
    changed: int

    def open(self) -> NDArray[Any]:
        """The array, mapped from the file.

        Raises:
            DataError: The file is not there, or is not as it was.
        """
        try:
            found = Path(self.path).stat()
            if (found.st_size, found.st_mtime_ns) != (self.size, self.changed):
                raise DataError(
                    f"{self.path} was changed while it was in use: a run needs the same records from beginning to end; "
                    "put the original back, or start a new run"
                )
            return np.asarray(
                np.memmap(self.path, self.dtype, mode="r", offset=self.offset, shape=self.shape)
            )
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be opened where a client is trained: {error.strerror or error}; put the file at "
                "the same place on every machine"
            ) from error


def file_array(array: NDArray[Any]) -> FileArray | None:
    """Where the values of an array are in a file; None if they are in memory.

    Only a map that is opened for reading counts: what is written to another one need not be in the file.
    """
    root = _map_of(array)
    if root is None or not array.size or not array.flags.c_contiguous:
        return None
    path = Path(str(root.filename))
    try:
        found = path.stat()
    except OSError:  # deleted since: the map is all that there is
        return None
    mapped: mmap.mmap = root._mmap  # type: ignore[attr-defined]
    begins = np.frombuffer(mapped, np.uint8).ctypes.data
    # A map begins at a whole page of the file, numpy's own at `offset`.
    return FileArray(
        path=str(path.resolve()),
        offset=root.offset - root.offset % mmap.ALLOCATIONGRANULARITY + array.ctypes.data - begins,
        shape=array.shape,
        dtype=array.dtype.str,
        size=found.st_size,
        changed=found.st_mtime_ns,
    )


def blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The array in parts of its first axis, in order; the pages of a mapped one are let go after each."""
    each = max(1, _BLOCK // max(1, array[:1].nbytes))
    for first in range(0, len(array), each):
        yield array[first : first + each]
        let_go(array)


def let_go(array: NDArray[Any]) -> None:
    """Unmap the pages of a mapped array that were read: the file's cache keeps them, this process does not."""
    root = _map_of(array)
    advice = getattr(mmap, "MADV_DONTNEED", None)  # not on Windows
    if root is not None and advice is not None:
        root._mmap.madvise(advice)  # type: ignore[attr-defined]


def extremes(array: NDArray[Any]) -> tuple[Any, Any]:
    """Smallest and largest value of an array that is not empty."""
    found = [(block.min(), block.max()) for block in blocks(array)]
    return min(low for low, _ in found), max(high for _, high in found)


def _map_of(array: NDArray[Any]) -> np.memmap[Any, Any] | None:
    """The read-only map whose memory an array is a view of."""
    step: Any = array
    while step is not None:
        if (
            isinstance(step, np.memmap)
            and step.filename is not None
            and not isinstance(step.base, np.ndarray)
        ):
            return step if step.mode == "r" else None
        step = getattr(step, "base", None)
    return None
