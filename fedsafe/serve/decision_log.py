"""The log of decisions: JSON lines, each chained by a keyed hash to the one before it; inputs are never in it.

An input is there as an HMAC with a secret key: a plain hash of a small table row could be found by trying all rows.
What the model made of it is there in coarse steps for the same reason: who has the model could find the row by a
confidence of six digits. `docs/serving.md` says what a line still tells.
The same key chains the lines, so that nobody without it can rewrite the log and make it fit. What a chain cannot show
is that lines are missing at the end: keep the head elsewhere, and give it to `verify_log`.

A batch is in the operating system's hands when `DecisionLog.append` returns, so that killing the process loses nothing;
when it is on the disk, too, is a matter of `sync`.

Lines are written out by hand: ``json`` takes as long for one as the model for its answer. A test holds them to it.
"""

import fcntl
import hmac
import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import ConfigError, RecordError
from fedsafe.serve.decision import Decision
from fedsafe.serve.disk import Disk
from fedsafe.store.files import write_all

FORMAT: Final = "fedsafe.decisions/1"
Sync = Literal["batch", "second", "never"]

_LINE = "line"
_STEPS: Final = (0.01, 0.05)
_DIGITS: Final = 2
_SUFFIX = ',"hash":"'
_ENDING = len(_SUFFIX) + 64 + 2


@dataclass(frozen=True, kw_only=True)
class LogHead:
    """The newest line: its number, from 0, and its hash; -1 and "" of an empty log."""

    sequence: int
    hash: str


def audit_key(path: Path) -> bytes:
    """The key in a file, which is made, for its owner alone, where it is absent.

    Raises:
        RecordError: It cannot be read or made, or is no key.
    """
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = bytes.fromhex(path.read_text(encoding="ascii").strip())
        else:
            key = os.urandom(32)
            try:
                write_all(descriptor, (key.hex() + "\n").encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise RecordError(f"the key {path} cannot be read or made: {error.strerror}") from error
    except ValueError as error:
        raise RecordError(f"{path} is no key: restore it, or begin a new log with a new key") from error
    if len(key) != 32:
        raise RecordError(f"{path} is no key of 32 bytes: restore it, or begin a new log with a new key")
    return key


class DecisionLog:
    """Appends decisions; one process at a time.

    Args:
        path: The file; made, for its owner alone, where absent.
        key: Secret of the hashes, 32 bytes.
        model: Digest of the model, for the line that says that a process began.
        sync: When lines are on the disk, too: before each "batch" is given out, within about a "second" and beside the
            decisions, or "never" by this log.
        about: More of that line, such as the level of the monitor.

    Raises:
        ConfigError: The key or `sync` is none.
        RecordError: The file cannot be opened, is in use, or its last line was written with another key.
    """

    def __init__(
        self,
        path: Path | str,
        key: bytes,
        *,
        model: str,
        sync: Sync = "second",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if sync not in ("batch", "second", "never") or len(key) < 16:
            raise ConfigError(f"a decision log needs sync = batch, second or never, and a key: got {sync!r}")
        self.path, self._key, self._sync, self._model = Path(path), key, sync, model[:16]
        self._lock, self._closed, self._torn = threading.Lock(), False, False
        self._disk: Disk | None = None
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise RecordError(f"the decision log {path} cannot be opened: {error.strerror}") from error
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RecordError(f"the decision log {path} is in use by another process: stop it") from error
            self._head = self._resume()
            began = {"format": FORMAT, "model_sha256": model, **(about or {})}
            self._write([_fields({"kind": "open", "time": _text(time.time()), **began})])
        except BaseException:
            os.close(self._file)
            raise
        if sync == "second":
            self._disk = Disk(self._file)

    @property
    def head(self) -> LogHead:
        """The newest line."""
        return self._head

    def keyed(self, content: bytes, what: str = "input") -> str:
        """HMAC-SHA256 of something that the log must not hold, in hexadecimal; `what` keeps kinds apart."""
        return _keyed(self._key, what, content)

    def append(
        self,
        decisions: Sequence[Decision],
        contents: NDArray[Any] | Sequence[bytes],
        *,
        caller: str = "",
        seconds: float | None = None,
    ) -> None:
        """Log a batch.

        Args:
            decisions: Of the batch.
            contents: ``(n, *inputs)`` encoded inputs, or n texts as bytes, that they are about; only keyed hashes of
                them are kept.
            caller: Who asked; kept as a keyed hash.
            seconds: Time since 1970; now if left out.

        Raises:
            RecordError: The log is closed, or cannot be written; then nothing of the batch is in it.
        """
        who = self.keyed(caller.encode("utf-8", "surrogatepass"), "caller")[:16] if caller else ""
        now = _text(time.time() if seconds is None else seconds)
        if isinstance(contents, np.ndarray):
            contents = [row.tobytes() for row in np.ascontiguousarray(contents)]
        begins, goes_on = (
            f'"kind":"decision","time":"{now}","id":',
            f',"model":"{self._model}","caller":"{who}",',
        )
        with self._lock:
            self._write(
                [
                    f'{begins}{json.dumps(decision.id)}{goes_on}"input":"{self.keyed(content)}",{_decided(decision)}'
                    for decision, content in zip(decisions, contents, strict=True)
                ]
            )

    def note(self, kind: str, body: Mapping[str, Any]) -> None:
        """Log something that is no decision, such as an alert."""
        with self._lock:
            self._write([_fields({"kind": kind, "time": _text(time.time()), **body})])

    def close(self) -> None:
        """Wait for the disk, and let go of the file."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if self._disk is not None:
                    self._disk.close()
                os.fsync(self._file)
                os.close(self._file)

    def _write(self, lines: Sequence[str]) -> None:
        """Lines by the fields of their JSON, without braces, number and hash."""
        if self._closed:
            raise RecordError(f"the decision log {self.path} is closed: no decision can be made without it")
        if self._torn:
            raise RecordError(f"the decision log {self.path} ends in half a line: open it again")
        if self._disk is not None and self._disk.failed:
            raise RecordError(f"the decision log {self.path} cannot be kept on the disk: {self._disk.failed}")
        number, digest, parts = self._head.sequence, self._head.hash, []
        for line in lines:
            number += 1
            body = f'{{"sequence":{number},{line}'
            digest = self.keyed(f"{digest}{body}}}".encode(), _LINE)
            parts.append(f'{body}{_SUFFIX}{digest}"}}\n')
        before = None
        try:
            before = os.fstat(self._file).st_size
            write_all(self._file, "".join(parts).encode())
            if self._sync == "batch":
                os.fsync(self._file)
        except OSError as error:
            if before is not None:
                try:
                    os.ftruncate(self._file, before)
                except OSError:
                    self._torn = True  # half a line may be there: whoever opens it next cuts it off
            raise RecordError(f"the decision log {self.path} cannot be written: {error.strerror}") from error
        self._head = LogHead(sequence=number, hash=digest)
        if self._disk is not None:
            self._disk.changed()

    def _resume(self) -> LogHead:
        """The head of what is there; a last line that a killed machine left half-written is cut off."""
        size = os.fstat(self._file).st_size
        window = min(size, 1 << 20)
        tail = os.pread(self._file, window, size - window)
        end = tail.rfind(b"\n") + 1
        if end < len(tail):
            os.ftruncate(self._file, size - (len(tail) - end))
        if not end:
            if window < size:
                raise RecordError(f"{self.path} is no decision log: begin a new one")
            return LogHead(sequence=-1, hash="")
        lines = tail[:end].splitlines()
        last = _parsed(self.path, lines[-1].decode("utf-8", "replace"))
        before = _parsed(self.path, lines[-2].decode("utf-8", "replace"))["hash"] if len(lines) > 1 else ""
        if self.keyed((before + last["body"]).encode(), _LINE) != last["hash"]:
            raise RecordError(
                f"the last line of {self.path} does not fit the key: restore the key or the log"
            )
        return LogHead(sequence=int(last["line"]["sequence"]), hash=last["hash"])


def read_log(path: Path | str) -> Iterator[dict[str, Any]]:
    """The complete lines of a log, oldest first, unverified.

    Raises:
        RecordError: It cannot be read, or a line is none of a log.
    """
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            for raw in file:
                if raw.endswith("\n"):
                    line: dict[str, Any] = _parsed(Path(path), raw[:-1])["line"]
                    yield line
    except OSError as error:
        raise RecordError(f"the decision log {path} cannot be read: {error.strerror}") from error


def verify_log(path: Path | str, key: bytes, *, head: LogHead | None = None) -> LogHead:
    """Check the chain of a log.

    Args:
        path: The log.
        key: Of the log.
        head: One that was kept elsewhere; the log must contain it.

    Returns:
        The newest line.

    Raises:
        RecordError: A line was changed, moved, added or taken out, or the log ends before the head.
    """
    previous, met = LogHead(sequence=-1, hash=""), head is None or head.sequence < 0
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            for raw in file:
                if not raw.endswith("\n"):
                    break  # half-written
                found = _parsed(Path(path), raw[:-1])
                digest = _keyed(key, _LINE, (previous.hash + found["body"]).encode())
                number = previous.sequence + 1
                if found["line"]["sequence"] != number or not hmac.compare_digest(digest, found["hash"]):
                    raise RecordError(f"the chain of {path} breaks at line {number}: it was edited")
                previous = LogHead(sequence=number, hash=digest)
                met = met or previous == head
    except OSError as error:
        raise RecordError(f"the decision log {path} cannot be read: {error.strerror}") from error
    if not met and head is not None:
        raise RecordError(f"{path} does not contain line {head.sequence} as it was: it was cut or replaced")
    return previous


def _keyed(key: bytes, what: str, content: bytes) -> str:
    return hmac.digest(key, b"%s:%s" % (what.encode(), content), "sha256").hex()


def _parsed(path: Path, raw: str) -> dict[str, Any]:
    try:
        line = json.loads(raw)
        if not (
            isinstance(line, dict)
            and raw[-_ENDING:].startswith(_SUFFIX)
            and isinstance(line["sequence"], int)
        ):
            raise ValueError("it has no hash at its end")
        return {"line": line, "hash": raw[-66:-2], "body": raw[:-_ENDING] + "}"}
    except (ValueError, KeyError) as error:
        raise RecordError(
            f"{path} has a line that is none of a decision log ({error}): it was edited"
        ) from error


def _fields(line: Mapping[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":"), allow_nan=False)[1:-1]


def _decided(decision: Decision) -> str:
    p_values = ",".join([f"{_quoted(name)}:{_step(p)}" for name, p in decision.p_values.items()])
    label = "null" if decision.label is None else _quoted(decision.label)
    return (
        f'"answered":{"true" if decision.answered else "false"},"label":{label},'
        f'"value":{_coarse(decision.value)},"confidence":{_number(decision.confidence, _DIGITS)},'
        f'"reasons":{_texts(decision.reasons)},"notes":{_texts(decision.notes)},"p":{{{p_values}}}'
    )


def _number(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return "null"
    if not math.isfinite(value):
        raise RecordError(f"{value!r} cannot be logged: JSON has no such number")
    return repr(float(value) if digits is None else round(float(value), digits))


def _coarse(value: float | None) -> str:
    """A number that is predicted, to two digits that count."""
    return _number(value if value is None or not math.isfinite(value) else float(f"{value:.{_DIGITS}g}"))


def _step(p: float) -> float:
    """The step that a p-value is at or below."""
    return next((step for step in _STEPS if p <= step), 1.0)


@lru_cache(1024)
def _quoted(text: str) -> str:
    """A class or the name of a p-value: there are few."""
    return json.dumps(text)


def _texts(found: tuple[str, ...]) -> str:
    return json.dumps(found, separators=(",", ":")) if found else "[]"


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
