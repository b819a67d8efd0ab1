"""What there is in a folder: runs, comparisons, grids under attack. Looked up anew for every page."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from fedsafe.ui.comparisons import Comparison, read_comparison
from fedsafe.ui.files import MOST_ENTRIES, Beneath, Stamp
from fedsafe.ui.grids import Grid, read_grid
from fedsafe.ui.runs import Row, RunFiles, WholeRun
from fedsafe.ui.states import Locks

# The folder, what is in it, and what is in that: so `fedsafe ui` finds runs/NAME and comparisons/NAME.
_DEPTH = 2
RUN, COMPARISON, GRID = "run", "comparison", "grid"

_Dated = TypeVar("_Dated", Comparison, Grid)
_SUMMARIES = {COMPARISON: "comparison.json", GRID: "grid.json"}


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What there is.

    Attributes:
        runs: Those in progress first, then the newest.
        comparisons: The newest first.
        grids: The newest first.
        notes: What was left out.
    """

    runs: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    grids: tuple[Grid, ...]
    notes: tuple[str, ...]


class Contents:
    """The folder, and what was read of it before.

    Args:
        root: The folder.

    Raises:
        RecordError: It is not a folder.
    """

    def __init__(self, root: Path) -> None:
        self.files = Beneath(root)
        self._runs: dict[str, RunFiles] = {}
        self._summaries: dict[str, tuple[Stamp | None, Comparison | Grid]] = {}
        self._lock = threading.Lock()

    @property
    def root(self) -> Path:
        """The folder."""
        return self.files.root

    def listing(self) -> Listing:
        """Everything there is now."""
        with self._lock:
            found: dict[str, str] = {}
            left_out = self._look("", 0, found)
            for gone in self._runs.keys() - found.keys():
                del self._runs[gone]
            for gone in self._summaries.keys() - found.keys():
                del self._summaries[gone]
            locks = Locks()
            rows = [
                self._run(key).row(self.files, locks.holds(self.root / key))
                for key, kind in found.items()
                if kind == RUN
            ]
            summaries = [self._summary(key, kind) for key, kind in found.items() if kind != RUN]
        notes = []
        if left_out:
            notes.append(
                f"Left out: links to folders, and entries beyond {MOST_ENTRIES:,} of one folder: {left_out}"
            )
        # Stable sorts, the least important first.
        rows.sort(key=lambda row: row.key)
        rows.sort(key=lambda row: row.order, reverse=True)
        rows.sort(key=lambda row: not row.state.moves)
        return Listing(
            runs=tuple(rows),
            comparisons=tuple(_newest([one for one in summaries if isinstance(one, Comparison)])),
            grids=tuple(_newest([one for one in summaries if isinstance(one, Grid)])),
            notes=tuple(notes),
        )

    def kind(self, key: str) -> str | None:
        """What is at a place; None where nothing is that has a page.

        Args:
            key: Relative to the folder, with forward slashes.
        """
        if key.count("/") >= _DEPTH:
            return None
        return self._kind(key)

    def run(self, key: str) -> WholeRun | None:
        """A run; None where there is none.

        Args:
            key: Relative to the folder, with forward slashes.
        """
        if self.kind(key) != RUN:
            return None
        with self._lock:
            return self._run(key).whole(self.files, Locks().holds(self.root / key))

    def comparison(self, key: str) -> Comparison | None:
        """A comparison; None where there is none.

        Args:
            key: Relative to the folder, with forward slashes.
        """
        if self.kind(key) != COMPARISON:
            return None
        with self._lock:
            found = self._summary(key, COMPARISON)
        return found if isinstance(found, Comparison) else None

    def has(self, path: str) -> bool:
        """Whether there is a file that may be shown."""
        return self.files.stamp(path) is not None

    def _run(self, key: str) -> RunFiles:
        if key not in self._runs:
            self._runs[key] = RunFiles(key, self.name(key))
        return self._runs[key]

    def _summary(self, key: str, kind: str) -> "Comparison | Grid":
        path = inside(key, _SUMMARIES[kind])
        stamp = self.files.stamp(path)
        kept = self._summaries.get(key)
        # A summary that is not there yet changes without a stamp.
        if kept is None or stamp is None or kept[0] != stamp:
            when = (
                ""
                if stamp is None
                else datetime.fromtimestamp(stamp.modified / 1e9, UTC).isoformat(timespec="seconds")
            )
            read = read_comparison if kind == COMPARISON else read_grid
            self._summaries[key] = kept = stamp, read(self.files, key, self.name(key), when)
        return kept[1]

    def name(self, key: str) -> str:
        """What a folder is called."""
        return key.rpartition("/")[2] or self.root.name or str(self.root)

    def _look(self, key: str, depth: int, found: dict[str, str]) -> int:
        """Finds what is at a place and below; how many entries were left out."""
        kind = self._kind(key)
        if kind is not None:
            found[key] = kind
            return 0
        if depth == _DEPTH:
            return 0
        try:
            names, left_out = self.files.folders(key)
        except OSError:
            return 0  # gone, or not ours to read
        return left_out + sum(self._look(inside(key, name), depth + 1, found) for name in names)

    def _kind(self, key: str) -> str | None:
        def there(name: str) -> bool:
            return self.files.stamp(inside(key, name)) is not None

        if there("record.jsonl"):
            return RUN
        if there("comparison.json"):
            return COMPARISON
        if there("grid.json"):
            return GRID
        if there("config.toml"):
            return RUN
        try:
            with self.files.folder(inside(key, "cells")):
                return COMPARISON  # in progress, or interrupted
        except OSError:
            return None


def inside(key: str, name: str) -> str:
    """The path of something in a folder, relative to the root."""
    return f"{key}/{name}" if key else name


def _newest(ones: list[_Dated]) -> list[_Dated]:
    return sorted(ones, key=lambda one: one.order, reverse=True)
