"""What a stream follows of each decision, and what is known of it before the stream begins."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.fairness.flips import protected_columns
from fedsafe.data import Categorical, Examples, Schema, Task
from fedsafe.errors import ConfigError, RecordError
from fedsafe.serve.detectors.base import Array, Floats
from fedsafe.serve.monitor import COMBINED, Checks, Monitor
from fedsafe.serve.monitor_files import model_digest
from fedsafe.serve.streams.monitoring import ALPHA, Expected, StreamMonitor

_FEWEST = 100
"""Known records of a group whose rate is tested: a rate of fewer is hardly known itself."""


class Reader:
    """Reads scores, outputs, decisions and groups.

    Followed are the logit of a binary task, the number of a regression, or else the confidence; counted in the rates is
    class 1 of a binary task.

    Args:
        monitor: Of the model.
        task: Its task.
    """

    def __init__(self, monitor: Monitor, task: Task) -> None:
        self._monitor, self._binary, schema = monitor, task.kind == "binary", task.schema
        self.columns: dict[str, tuple[tuple[str, ...], NDArray[np.int64]]] = {}
        if isinstance(schema, Schema) and self._binary:
            start = 0
            for column in schema.columns:
                place = np.arange(start, start + len(column.feature_names))
                start += len(place)
                if isinstance(column, Categorical) and column.name in protected_columns(schema, ()):
                    names = tuple(name.removeprefix(f"{column.name}=") for name in column.feature_names)
                    self.columns[column.name] = (names, place)

    def read(self, x: Floats, checks: Checks) -> tuple[Array, Array, Array, dict[str, NDArray[np.int64]]]:
        """Arguments of `StreamMonitor.observe`."""
        outputs = checks.outputs
        single = outputs.shape[1] == 1 or not self._monitor.classes
        followed = outputs[:, 0] if single else self._monitor.probabilities(outputs).max(axis=1)
        codes = {
            name: x[:, place].argmax(axis=1).astype(np.int64) for name, (_, place) in self.columns.items()
        }
        return checks.score, followed, (outputs[:, 0] > 0).astype(np.float64), codes


def open_stream(
    path: Path | str | None,
    monitor: Monitor,
    task: Task,
    known: Examples,
    *,
    alpha: float = ALPHA,
    rate_tolerance: float = 0.1,
    confidence_tolerance: float = 0.05,
    window: int = 1000,
    labels: bool = True,
    seed: int = 0,
) -> StreamMonitor:
    """A stream for a guard: the one in the file, if there is one, or a new one.

    Args:
        path: Where `StreamMonitor.save` writes; None for a new one.
        monitor: Of the model.
        task: Its task.
        known: Public records that the monitor was not fitted on, at least 100.
        alpha: See `StreamMonitor`, as the others.
        rate_tolerance: Of the rates of groups.
        confidence_tolerance: Of the confidence.
        window: Of the groups.
        labels: Whether labels may come in; not of a number that is predicted, which has no confidence.
        seed: Of the ties.

    Raises:
        ConfigError: There are too few known records.
        RecordError: The file cannot be read, or follows another model.
    """
    reader, model = Reader(monitor, task), model_digest(monitor.forward.model)
    if path is not None and Path(path).is_file():
        stream = StreamMonitor.load(path)
        if stream.model != model:
            raise RecordError(f"the stream {path} follows another model: move it away to begin a new one")
        stream.reader, stream.path = reader, Path(path)
        return stream
    if len(known) < _FEWEST:
        raise ConfigError(f"a stream needs {_FEWEST} known public records or more, not {len(known)}")
    x = np.asarray(known.x, np.float32)
    _, followed, positive, codes = reader.read(x, monitor.check(x))
    rates = {
        name: {
            group: (int(positive[codes[name] == code].sum()), int((codes[name] == code).sum()))
            for code, group in enumerate(reader.columns[name][0])
            if int((codes[name] == code).sum()) >= _FEWEST
        }
        for name in reader.columns
    }
    stream = StreamMonitor(
        Expected(
            scores=monitor.calibrations[COMBINED].scores,
            predictions=followed,
            rates={name: found for name, found in rates.items() if found},
            codes={name: names for name, (names, _) in reader.columns.items()},
        ),
        alpha=alpha,
        rate_tolerance=rate_tolerance,
        confidence_tolerance=confidence_tolerance,
        window=window,
        labels=labels and bool(monitor.classes),
        seed=seed,
    )
    stream.reader, stream.model = reader, model
    stream.path = None if path is None else Path(path)
    return stream
