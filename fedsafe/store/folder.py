"""The run folder: everything a run leaves behind, in one place.

The layout::

    RUN/
    ├── config.toml          the configuration, as resolved
    ├── record.jsonl         start, one line for each complete round, end
    ├── findings.jsonl       one finding a line, with its round and assessor
    ├── requirements.jsonl   one verdict a line
    ├── checkpoints/         round-00003.safetensors
    ├── report.html, card.md
    ├── assessments/         what `fedsafe assess RUN` found, apart from the rounds
    └── private/             0700: ledger, noise key, cohorts, per-client spend, timings, the aggregator's state, the
                             folders that import paths were looked up in, which examples the accepted model gets right

No file outside ``private/`` holds or determines a round's cohort; a copy to share leaves ``private/`` out.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from fedsafe.errors import RecordError
from fedsafe.records import Json, RecordLine, from_json
from fedsafe.store.checkpoints import read_checkpoint, write_checkpoint
from fedsafe.store.files import replace_file
from fedsafe.store.lines import append_lines, read_lines, truncate_lines

_CHECKPOINT = re.compile(r"round-(\d{5,})\.safetensors")
_STATE = re.compile(r"aggregator-state-(\d{5,})\.safetensors")


@dataclass(frozen=True)
class RunFolder:
    """A run folder on disk; make one with `create` or `open`.

    Attributes:
        path: The folder.
    """

    path: Path

    @classmethod
    def create(cls, path: str | os.PathLike[str], config_toml: str) -> Self:
        """Makes a run folder, or nothing at all.

        Args:
            path: A path that does not exist, or an empty folder.
            config_toml: The resolved configuration, written as ``config.toml``.

        Raises:
            RecordError: The path is in use, or cannot be made.
        """
        folder = Path(path)
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise _in_use(folder)
        try:
            if folder.is_dir():  # perhaps a mount point or a link, which cannot be renamed over
                _fill(folder, config_toml)
            else:
                _make(folder, config_toml)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise _in_use(folder) from error
            raise RecordError(
                f"cannot make the run folder {folder}: {error.strerror}; choose another --out"
            ) from error
        return cls(folder)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Opens an existing run folder; ``private/`` may be absent, as in a shared copy.

        Args:
            path: The folder.

        Raises:
            RecordError: It is not a run folder; the message says what is missing.
        """
        folder = Path(path)
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise RecordError(f"{folder} is not a run folder: it {what}; give the --out of a run")
        missing = [name for name in ("config.toml", "record.jsonl") if not (folder / name).is_file()]
        if missing:
            raise RecordError(f"{folder} is not a run folder: it has no {' and no '.join(missing)}")
        return cls(folder)

    @property
    def private(self) -> Path:
        """The folder of what must not be shared."""
        return self.path / "private"

    @property
    def config(self) -> str:
        """The text of ``config.toml``."""
        try:
            return (self.path / "config.toml").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecordError(f"cannot read {self.path / 'config.toml'}: {error}") from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder, so that no other process runs or resumes it; death releases it.

        Raises:
            RecordError: Another process holds it, or ``private/`` is absent.
        """
        try:
            descriptor = os.open(self.private / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise RecordError(
                f"cannot lock {self.path}: {self.private / 'lock'}: {error.strerror}; a shared copy of a run "
                "can be read but not resumed"
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                raise RecordError(
                    f"{self.path} is in use by another process (pid {holder}); wait for it to end, or stop it"
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
            yield
        finally:
            os.close(descriptor)

    def append(self, name: str, *lines: Mapping[str, Any], durable: bool = False) -> None:
        """Appends lines to a file of the folder with one write.

        Args:
            name: Such as ``findings.jsonl`` or ``private/timings.jsonl``.
            lines: Mappings; numbers that are not finite become null.
            durable: Wait for the disk, so that they survive a power failure and not only a kill.

        Raises:
            RecordError: A value cannot be held by a record, or the name leads outside the folder.
        """
        append_lines(self._inside(name), lines, durable=durable)

    def read(self, name: str) -> list[Json]:
        """Reads the complete lines of a file; an absent file has none.

        Args:
            name: Such as ``findings.jsonl``.

        Raises:
            RecordError: A complete line is malformed, or the name leads outside the folder.
        """
        return read_lines(self._inside(name))

    def truncate_after(self, name: str, keep: int | Callable[[Json], bool]) -> int:
        """Drops lines atomically, as a resumed run does with what an incomplete round left.

        Args:
            name: Such as ``findings.jsonl``.
            keep: How many lines stay, counted from the first, or what says whether a line stays.

        Returns:
            How many complete lines were dropped.

        Raises:
            RecordError: A complete line is malformed, or the name leads outside the folder.
        """
        return truncate_lines(self._inside(name), keep)

    def append_record(self, line: RecordLine) -> None:
        """Appends to ``record.jsonl``; for a `Round` this commits the round."""
        self.append("record.jsonl", line.to_json())

    def record(self) -> list[RecordLine]:
        """The lines of ``record.jsonl``.

        Raises:
            RecordError: A line is malformed or has another schema.
        """
        return [from_json(line) for line in self.read("record.jsonl")]

    def append_timing(self, **timing: Any) -> None:
        """Appends to ``private/timings.jsonl``: the time of a round tells about its cohort."""
        self.append("private/timings.jsonl", timing)

    def replace_text(self, name: str, text: str) -> Path:
        """Writes a text file of the folder atomically.

        Args:
            name: Such as ``report.html``.
            text: Its whole content.

        Returns:
            The path of the file.
        """
        path = self._inside(name)
        replace_file(path, text.encode("utf-8"))
        return path

    def write_checkpoint(
        self,
        round: int,
        tensors: Mapping[str, np.ndarray],
        metadata: Mapping[str, str],
        *,
        keep: int | None = None,
    ) -> str:
        """Writes the checkpoint of a round atomically.

        Args:
            round: Number of the round, 0 or more.
            tensors: Name to array, of any shape.
            metadata: Text to text.
            keep: How many of the latest checkpoints stay; all of them where None.

        Returns:
            The path relative to the run folder, with forward slashes.

        Raises:
            RecordError: An array cannot be held by safetensors, or `round` or `keep` is out of range.
        """
        if round < 0 or (keep is not None and keep < 1):
            raise RecordError(
                f"cannot write checkpoint {round} keeping {keep}; rounds count from 0, keep from 1"
            )
        relative = checkpoint_name(round)
        path = self.path / relative
        path.parent.mkdir(exist_ok=True)
        write_checkpoint(path, tensors, metadata)
        # When a round ended tells about its cohort: every checkpoint bears the time of the run's start.
        began = (self.path / "config.toml").stat().st_mtime_ns
        os.utime(path, ns=(began, began))
        if keep is not None:
            for old in self.checkpoints()[:-keep]:
                (self.path / checkpoint_name(old)).unlink(missing_ok=True)
        return relative

    def write_aggregator_state(
        self, round: int, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
    ) -> None:
        """Writes what the aggregator remembers after a round into ``private/``, atomically.

        It goes before the checkpoint of its round, and that of the round before stays: a crash between the two files
        goes back to the older one.

        Args:
            round: Number of the round.
            tensors: Name to array, of any shape.
            metadata: Text to text.

        Raises:
            RecordError: An array cannot be held by safetensors.
        """
        write_checkpoint(self.path / _state_name(round), tensors, metadata)
        for path in self.private.iterdir():
            match = _STATE.fullmatch(path.name)
            if match and int(match.group(1)) < round - 1:
                path.unlink(missing_ok=True)

    def read_aggregator_state(self, round: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Reads what the aggregator remembered after a round.

        Args:
            round: Number of the round, one of the newest two.

        Returns:
            Arrays by name, and the metadata.

        Raises:
            RecordError: It is absent, cut or damaged.
        """
        return read_checkpoint(self.path / _state_name(round))

    def write_private(
        self, name: str, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
    ) -> None:
        """Writes arrays into ``private/``, atomically.

        Args:
            name: Of the file, without a folder.
            tensors: Name to array, of any shape.
            metadata: Text to text.

        Raises:
            RecordError: An array cannot be held by safetensors, or the name leads outside the folder.
        """
        write_checkpoint(self._inside(f"private/{name}"), tensors, metadata)

    def read_private(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Reads arrays of ``private/`` and checks their content.

        Args:
            name: Of the file, without a folder.

        Returns:
            Arrays by name, and the metadata.

        Raises:
            RecordError: It is absent, cut or damaged.
        """
        return read_checkpoint(self._inside(f"private/{name}"))

    def read_checkpoint(self, which: int | str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Reads a checkpoint and checks its content.

        Args:
            which: Number of the round, or the path that `write_checkpoint` returned.

        Returns:
            Arrays by name, and the metadata.

        Raises:
            RecordError: The checkpoint is absent, cut or damaged.
        """
        return read_checkpoint(self._inside(checkpoint_name(which) if isinstance(which, int) else which))

    def checkpoints(self) -> list[int]:
        """Rounds that have a checkpoint, in order."""
        folder = self.path / "checkpoints"
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(match.group(1)) for name in names if (match := _CHECKPOINT.fullmatch(name)))

    def _inside(self, name: str) -> Path:
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts:
            raise RecordError(f"{name!r} is not the name of a file inside a run folder")
        return self.path / name


def checkpoint_name(number: int) -> str:
    """Path of a round's checkpoint relative to the run folder."""
    return f"checkpoints/round-{number:05d}.safetensors"


def _state_name(number: int) -> str:
    return f"private/aggregator-state-{number:05d}.safetensors"


def _in_use(folder: Path) -> RecordError:
    return RecordError(f"output folder in use: {folder}; choose another --out, or --resume it")


def _make(folder: Path, config_toml: str) -> None:
    """Fills a hidden sibling and renames it, so that the folder appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    sibling = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.new")
    sibling.mkdir()
    try:
        _fill(sibling, config_toml)
        os.rename(sibling, folder)
    except BaseException:
        shutil.rmtree(sibling, ignore_errors=True)
        raise


def _fill(folder: Path, config_toml: str) -> None:
    """Puts the first content into an empty folder, ``config.toml`` last; undoes it on failure."""
    private, checkpoints, record = folder / "private", folder / "checkpoints", folder / "record.jsonl"
    try:
        private.mkdir(mode=0o700)
        private.chmod(0o700)
        checkpoints.mkdir()
        record.touch()
        replace_file(folder / "config.toml", config_toml.encode("utf-8"))
    except BaseException:
        for made in (private, checkpoints):
            with contextlib.suppress(OSError):
                made.rmdir()
        record.unlink(missing_ok=True)
        raise
