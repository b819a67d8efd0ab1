"""Files beneath one folder, opened so that no link leads out of it and nothing private is reached.

A run folder from somebody else is hostile input: its ``report.html`` may be a link to the noise key. So every part of a
path is opened from the part before it, links are refused at each, and ``private`` is no part that can be named.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsafe.errors import RecordError

PRIVATE = "private"
# Listing more than this of one folder would make a page that nobody can use.
MOST_ENTRIES = 5_000


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What changes when a file does.

    Attributes:
        inode: Another one after the file was replaced.
        modified: In nanoseconds since 1970.
        size: In bytes.
    """

    inode: int
    modified: int
    size: int


class Beneath:
    """Reads beneath a folder.

    Args:
        root: The folder; it may itself be reached by a link.

    Raises:
        RecordError: It is not a folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise RecordError(f"{root} is not a folder: name the one that holds the runs")
        self.root = root.resolve()

    @contextlib.contextmanager
    def folder(self, path: str) -> Iterator[int]:
        """A descriptor of a folder.

        Args:
            path: Relative, with forward slashes; "" is the root.

        Raises:
            OSError: It is not there, a link, no folder, or not to be read.
        """
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in _parts(path):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                inner = os.open(part, flags, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def file(self, path: str) -> Iterator[int]:
        """A descriptor of a regular file, open for reading.

        Args:
            path: Relative, with forward slashes.

        Raises:
            OSError: It is not there, a link, no regular file, or not to be read.
        """
        above, _, name = path.rpartition("/")
        _parts(name or "/")
        with self.folder(above) as folder:
            # A pipe must not block: it is opened without waiting, and then refused.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(f"{path} is no regular file")
            yield descriptor
        finally:
            os.close(descriptor)

    def stamp(self, path: str) -> Stamp | None:
        """The stamp of a regular file; None where there is none that may be read."""
        above, _, name = path.rpartition("/")
        try:
            _parts(name or "/")
            with self.folder(above) as folder:
                about = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return None
        return stamp_of(about) if stat.S_ISREG(about.st_mode) else None

    def text(self, path: str, limit: int = 1 << 20) -> str:
        """The text of a small file.

        Args:
            path: Relative, with forward slashes.
            limit: Most bytes.

        Raises:
            OSError: It is not there, or not to be read.
            RecordError: It is larger, or no text.
        """
        with self.file(path) as descriptor:
            size = os.fstat(descriptor).st_size
            if size > limit:
                raise RecordError(f"{path} has {size:,} bytes; more than {limit:,} are not shown")
            content = read_from(descriptor, 0, limit)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RecordError(f"{path} is not UTF-8 text: {error}") from error

    def folders(self, path: str) -> tuple[list[str], int]:
        """Names of the folders inside one, in order, and how many were left out: links, and all beyond a limit."""
        names, left_out = [], 0
        with self.folder(path) as descriptor, os.scandir(descriptor) as entries:
            for number, entry in enumerate(entries):
                if number >= MOST_ENTRIES:
                    left_out += 1
                elif not _readable(entry.name):
                    continue
                elif entry.is_symlink():
                    left_out += entry.is_dir()
                elif entry.is_dir(follow_symlinks=False):
                    names.append(entry.name)
        return sorted(names), left_out


def stamp_of(about: os.stat_result) -> Stamp:
    """The stamp in what the system says of a file."""
    return Stamp(inode=about.st_ino, modified=about.st_mtime_ns, size=about.st_size)


def read_from(descriptor: int, start: int, most: int) -> bytes:
    """So many bytes of a file from a position on, fewer where it ends."""
    pieces = []
    while most > 0 and (piece := os.pread(descriptor, min(most, 1 << 20), start)):
        pieces.append(piece)
        start += len(piece)
        most -= len(piece)
    return b"".join(pieces)


def _parts(path: str) -> Sequence[str]:
    parts = path.split("/") if path else []
    for part in parts:
        if not _readable(part):
            raise FileNotFoundError(f"{path!r} is not the name of something to show")
    return parts


def _readable(name: str) -> bool:
    """Whether a name may be part of a path: hidden and private ones may not."""
    return bool(name) and not name.startswith(".") and "\0" not in name and name.casefold() != PRIVATE
