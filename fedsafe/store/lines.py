"""Files of JSON lines that survive being killed.

A line is there once its newline is. A process that was killed in the middle of a write leaves a last line
without a newline: reading ignores it, and the next append cuts it off.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fedsafe.errors import RecordError
from fedsafe.records import Json, dumps
from fedsafe.store.files import replace_file, write_all


def append_lines(path: Path, lines: Iterable[Mapping[str, Any]], *, durable: bool = False) -> None:
    """Appends lines with one write.

    Args:
        path: The file; made where absent.
        lines: Mappings; numbers that are not finite become null.
        durable: Wait for the disk (fsync, some milliseconds), so that the line survives a power failure and
            not only the death of the process.

    Raises:
        RecordError: A value is of a type that a record cannot hold; nothing was written.
    """
    content = "".join(dumps(line) + "\n" for line in lines).encode()
    if not content:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        _cut_torn_line(descriptor)
        write_all(descriptor, content)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> list[Json]:
    """Reads every complete line.

    Args:
        path: The file; an absent one has no lines.

    Returns:
        One dictionary for each line, in order; a last line without its newline is left out.

    Raises:
        RecordError: A complete line is not a JSON object.
    """
    return [_parse(path, number, raw) for number, raw in enumerate(_complete(path), start=1)]


def truncate_lines(path: Path, keep: int | Callable[[Json], bool]) -> int:
    """Drops lines, atomically; the lines that stay keep their bytes.

    Args:
        path: The file; an absent one has no lines.
        keep: How many lines stay, counted from the first, or what says whether a line stays.

    Returns:
        How many complete lines were dropped.

    Raises:
        RecordError: A complete line is not a JSON object.
    """
    lines = _complete(path)
    if callable(keep):
        kept = [raw for number, raw in enumerate(lines, start=1) if keep(_parse(path, number, raw))]
    else:
        if keep < 0:
            raise RecordError(f"cannot keep {keep} lines of {path}; give a count of 0 or more")
        kept = lines[:keep]
    content = b"".join(raw + b"\n" for raw in kept)
    if path.exists() and path.stat().st_size != len(content):
        replace_file(path, content)
    return len(lines) - len(kept)


def _complete(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    return content.split(b"\n")[:-1]


def _parse(path: Path, number: int, raw: bytes) -> Json:
    try:
        value = json.loads(raw, parse_constant=_refuse_constant)
    except ValueError as error:
        raise RecordError(
            f"line {number} of {path} is not JSON ({error}); the file was edited or the disk damaged: "
            "restore it from a copy"
        ) from error
    if not isinstance(value, dict):
        raise RecordError(f"line {number} of {path} is a JSON {type(value).__name__}, not an object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _cut_torn_line(descriptor: int) -> None:
    """Cuts what a killed process left after the last newline, so that the next line starts on its own."""
    end = os.fstat(descriptor).st_size
    if end == 0 or os.pread(descriptor, 1, end - 1) == b"\n":
        return
    block = 1 << 16
    position = end
    while position > 0:
        start = max(0, position - block)
        found = os.pread(descriptor, position - start, start).rfind(b"\n")
        if found >= 0:
            os.ftruncate(descriptor, start + found + 1)
            return
        position = start
    os.ftruncate(descriptor, 0)
