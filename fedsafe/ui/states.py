"""How a run is doing, from its record and from whether a process holds it."""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from fedsafe.records import End

# Without a lock to look at, a record that grew so recently, in seconds, is taken for one that still grows.
_RECENT = 60.0
# A line of /proc/locks: its number, kind, mode, process, and the device and number of the file.
_FLOCK = re.compile(r"^\d+: FLOCK +\S+ +\S+ \S+ [0-9a-f]+:[0-9a-f]+:(\d+)", flags=re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class State:
    """A state.

    Attributes:
        key: "running", "finished", "stopped", "spent", "interrupted" or "unreadable": its class in the style sheet.
        mark: A sign, so that it is not told by colour alone.
        words: What it is called.
        why: One clause, or "".
    """

    key: str
    mark: str
    words: str
    why: str = ""

    @property
    def moves(self) -> bool:
        """Whether more is to come."""
        return self.key == "running"


def state_of(
    *, start: bool, end: End | None, problem: str | None, locked: bool | None, quiet: float, torn: bool
) -> State:
    """The state of a run.

    Args:
        start: Whether its record has a start line.
        end: Its end line; None where it has none.
        problem: Why its record could not be read to the end; None where it could.
        locked: Whether a process holds the run; None where that is not known.
        quiet: Seconds since the record grew.
        torn: Whether the record ends in half a line.
    """
    if problem is not None:
        return State(key="unreadable", mark="✕", words="unreadable")
    if end is not None:
        if end.status == "completed":
            return State(key="finished", mark="✓", words="finished")
        why = str(end.reason or "the record does not say why")
        if why.startswith("the budget of "):
            return State(key="spent", mark="◆", words="budget spent", why=why)
        return State(key="stopped", mark="■", words="stopped", why=why)
    if locked or (locked is None and quiet < _RECENT):
        return State(key="running", mark="▶", words="running" if start else "starting")
    why = "no process of this machine holds it, and the record has no end line"
    if locked is None:
        why = "the record has no end line, and has not grown for a minute"
    if torn:
        why += ", and ends in half a line"
    return State(key="interrupted", mark="…", words="interrupted", why=why)


class Locks:
    """Which files are held by a process of this machine, as the system says; looked up once."""

    def __init__(self, table: Path = Path("/proc/locks")) -> None:
        self._inodes: set[int] | None = None
        with contextlib.suppress(OSError):
            text = table.read_text(encoding="ascii", errors="replace")
            self._inodes = {int(inode) for inode in _FLOCK.findall(text)}

    def holds(self, run: Path) -> bool | None:
        """Whether a process runs or resumes a run; None where that is not to be known.

        A run holds the file ``private/lock``. Its number is compared; it is not opened, like all that is private.

        Args:
            run: The run folder.
        """
        if self._inodes is None:
            return None
        try:
            return os.stat(run / "private" / "lock", follow_symlinks=False).st_ino in self._inodes
        except OSError:
            return None
