"""Sinks that write a file: a tidy table, or every event as a line of JSON."""

import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedsafe.errors import ConfigError
from fedsafe.records import dumps

COLUMNS = ("round", "source", "metric", "where", "status", "value", "low", "high", "n", "n_unit")
"""Of a tidy table of a run."""
_TAKEN = (
    "config.toml", "record.jsonl", "findings.jsonl", "requirements.jsonl", "report.html", "card.md", "checkpoints",
    "private", ".",
)  # fmt: skip


def csv_file(folder: Path, *, path: str = "metrics.csv") -> "CsvSink":
    """A tidy table in the run folder.

    Args:
        folder: The run folder.
        path: The file, relative to it.

    Raises:
        ConfigError: The path is one that a run needs itself.
    """
    return CsvSink(_free(folder, path))


def jsonl_file(folder: Path, *, path: str = "events.jsonl") -> "JsonlSink":
    """Every event, in the run folder.

    Args:
        folder: The run folder.
        path: The file, relative to it.

    Raises:
        ConfigError: The path is one that a run needs itself.
    """
    return JsonlSink(_free(folder, path))


def _free(folder: Path, path: str) -> Path:
    parts = Path(os.path.normpath(path)).parts
    if parts and parts[0] in _TAKEN:
        raise ConfigError(f"A sink cannot write {path!r}, which belongs to the run: choose another `path`.")
    return folder / path


class CsvSink:
    """A tidy table: one row for each number of each round, finding and verdict.

    Columns: ``round``, ``source`` (``"round"``, ``"planned spend"``, ``"requirement"`` or an assessor), ``metric``,
    ``where`` (the slice), ``status``, ``value``, ``low`` and ``high`` (the interval), ``n``, ``n_unit``. A number that
    does not exist is empty.

    Args:
        path: The file, which is written anew.
    """

    def __init__(self, path: Path | str) -> None:
        self._file = _File(Path(path))

    def write(self, event: Mapping[str, Any]) -> None:
        """Add the rows of an event."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if self._file.fresh:
            writer.writerow(COLUMNS)
        writer.writerows(metric_rows(event))
        self._file.append(text.getvalue())

    def close(self) -> None:
        """Nothing is held open."""


class JsonlSink:
    """One event a line, as JSON.

    Args:
        path: The file, which is written anew.
    """

    def __init__(self, path: Path | str) -> None:
        self._file = _File(Path(path))

    def write(self, event: Mapping[str, Any]) -> None:
        """Add a line."""
        self._file.append(dumps(event) + "\n")

    def close(self) -> None:
        """Nothing is held open."""


class _File:
    """A file that is made anew with what is written first, and can be followed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.fresh = True

    def append(self, text: str) -> None:
        if self.fresh:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("w" if self.fresh else "a", encoding="utf-8", newline="") as file:
            file.write(text)
        self.fresh = False


def metric_rows(event: Mapping[str, Any]) -> Iterator[list[Any]]:
    """The rows of an event, with a value for each of :data:`COLUMNS`."""
    number = event.get("round")
    if event["kind"] == "round":
        for metric, value in event["metrics"].items():
            yield [number, "round", metric, "", "", value, None, None, None, None]
        for unit, value in event["spend"].items():
            yield [number, "planned spend", f"epsilon_{unit}", "", "", value, None, None, None, None]
    elif event["kind"] in ("finding", "verdict"):
        low, high = event["interval"] or (None, None)
        where = ", ".join(f"{key}={value}" for key, value in event["where"].items())
        if event["kind"] == "finding":
            source, metric, status = event["assessor"], event["metric"], event["status"]
        else:
            source, status = "requirement", event["verdict"]
            metric = f"{event['metric']} {event['op']} {event['threshold']:g}"
        value, n, unit = event["value"], event.get("n"), event.get("n_unit")
        yield [number, source, metric, where, status, value, low, high, n, unit]
