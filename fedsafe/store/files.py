"""Replacing a file so that a reader, or a crash, sees the old content or the new one, never a part."""

import contextlib
import os
import secrets
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file atomically: temporary sibling, fsync, rename.

    A power failure just after it may bring the old content back; it never leaves a part of the new one.

    Args:
        path: The file to make or replace; its folder exists.
        content: The whole new content.

    Raises:
        OSError: The file system refused; the old content is intact and no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_all(descriptor: int, content: bytes) -> None:
    """Writes every byte, going on after a short write (a full pipe, a signal).

    Args:
        descriptor: An open file descriptor.
        content: What to write.
    """
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
