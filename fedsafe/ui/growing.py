"""Lines of JSON that a run is still writing: only what was added is read again."""

import json
import os
from collections.abc import Callable
from typing import Generic, TypeVar

from fedsafe.errors import RecordError
from fedsafe.records import Json
from fedsafe.ui.files import Beneath, Stamp, read_from, stamp_of

Line = TypeVar("Line")

MOST_BYTES = 1 << 26
_TAIL = 64


class GrowingLines(Generic[Line]):
    """The complete lines of a file; a last one without its newline is not there yet.

    A file that was replaced, cut or edited is read anew; one that is gone has no lines.

    Args:
        path: Of the file, relative to the folder.
        read: Makes of a JSON object what is kept of it.

    Attributes:
        lines: What was read, up to the first line that could not be.
        problem: Why the lines end early; None where they do not.
        torn: Whether a line without its newline follows.
        stamp: Of the file at the last look; None where it is not there.
    """

    def __init__(self, path: str, read: Callable[[Json], Line]) -> None:
        self._path, self._read = path, read
        self._forget()
        self.stamp: Stamp | None = None

    def _forget(self) -> None:
        self.lines: list[Line] = []
        self.problem: str | None = None
        self.torn = False
        self._end, self._tail, self._count = 0, b"", 0

    def refresh(self, files: Beneath) -> bool:
        """Look again.

        Args:
            files: The folder.

        Returns:
            Whether anything changed.
        """
        found = files.stamp(self._path)
        if found is not None and found == self.stamp:
            return False
        before, self.stamp = self.stamp, found
        if found is None:
            self._forget()
            return before is not None
        try:
            with files.file(self._path) as descriptor:
                # What is open is what counts: the name may stand for another file by now.
                self.stamp = found = stamp_of(os.fstat(descriptor))
                grown = before is not None and before.inode == found.inode and found.size >= self._end
                if (
                    not grown
                    or read_from(descriptor, self._end - len(self._tail), len(self._tail)) != self._tail
                ):
                    self._forget()
                elif before is not None and found.size <= before.size:
                    self._forget()  # edited in place
                if found.size > MOST_BYTES:
                    self.problem = f"it has {found.size:,} bytes; more than {MOST_BYTES:,} are not read"
                    return True
                content = read_from(descriptor, self._end, found.size - self._end)
        except OSError as error:
            self._forget()
            self.problem = f"it cannot be read: {error.strerror or error}"
            return True
        self._take(content)
        return True

    def _take(self, content: bytes) -> None:
        *complete, rest = content.split(b"\n")
        self.torn = bool(rest)
        taken = len(content) - len(rest)
        self._end += taken
        self._tail = (self._tail + content[:taken])[-_TAIL:]
        for raw in complete:
            self._count += 1
            if self.problem is not None:
                continue
            try:
                line = json.loads(raw)
                if not isinstance(line, dict):
                    raise RecordError(f"it is a JSON {type(line).__name__}, not an object")
                self.lines.append(self._read(line))
            except (RecordError, ValueError, RecursionError) as error:
                self.problem = f"line {self._count}: {error}"
