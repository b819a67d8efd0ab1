"""Finished or interrupted runs for other programs: tables, and the experiment trackers that sinks know.

What leaves is what a sink gets, the shareable record; nothing of ``private/`` is read.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fedsafe.errors import ConfigError, RecordError
from fedsafe.runs.file_sinks import COLUMNS, CsvSink, metric_rows
from fedsafe.runs.sinks import Sink, recorded_events
from fedsafe.runs.trackers import MlflowSink, TensorBoardSink

# A name that says which run, where a folder of several is written to.
_FILE = "metrics"


def export_run(run: Path, form: str, out: Path, *, experiment: str = "fedsafe") -> Path:
    """Write a run for another program.

    Args:
        run: The run folder, or a shared copy of one.
        form: One of :data:`FORMATS`.
        out: A folder, which is made: of tables, of TensorBoard's log, or MLflow's store.
        experiment: MLflow's.

    Returns:
        What was written.

    Raises:
        ConfigError: The format is unknown, needs a package that is not installed, or the folder is the run's own, is a
            file, or has an export already.
        RecordError: It is not a run folder, is damaged, or the files cannot be written.
    """
    if form not in FORMATS:
        raise ConfigError(f"--format {form!r} is not known: use {', '.join(FORMATS)}")
    events = list(recorded_events(run))
    _require_free(run, out, form)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return FORMATS[form](events, out, experiment)
    except OSError as error:
        raise RecordError(f"{out} cannot be written: {error.strerror}; choose another folder") from error


def _require_free(run: Path, out: Path, form: str) -> None:
    inside = out.resolve()
    if inside == run.resolve() or run.resolve() in inside.parents:
        raise ConfigError(
            f"--out {out} is inside the run: name a folder of its own, so that the run stays as it is"
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file: name a folder")
    # MLflow keeps many runs in one store.
    if form != "mlflow" and out.exists() and any(out.iterdir()):
        raise ConfigError(f"--out {out} is not empty: name a folder of its own for each export")


def _csv(events: list[dict[str, Any]], out: Path, experiment: str) -> Path:
    return _send(CsvSink(out / f"{_FILE}.csv"), events, out / f"{_FILE}.csv")


def _parquet(events: list[dict[str, Any]], out: Path, experiment: str) -> Path:
    import pandas as pd

    rows = [row for event in events for row in metric_rows(event)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in ("value", "low", "high"):
        frame[name] = pd.to_numeric(frame[name]).astype("float64")
    frame["n"] = pd.to_numeric(frame["n"]).astype("Int64")
    path = out / f"{_FILE}.parquet"
    frame.to_parquet(path, index=False)
    return path


def _tensorboard(events: list[dict[str, Any]], out: Path, experiment: str) -> Path:
    return _send(TensorBoardSink(out), events, out)


def _mlflow(events: list[dict[str, Any]], out: Path, experiment: str) -> Path:
    store = out / "mlflow.db"
    return _send(
        MlflowSink(experiment=experiment, tracking_uri=f"sqlite:///{store.resolve()}"), events, store
    )


def _send(sink: Sink, events: list[dict[str, Any]], written: Path) -> Path:
    for event in events:
        sink.write(event)
    sink.close()
    return written


FORMATS: Mapping[str, Callable[[list[dict[str, Any]], Path, str], Path]] = MappingProxyType(
    {"csv": _csv, "parquet": _parquet, "tensorboard": _tensorboard, "mlflow": _mlflow}
)
"""What a run can be written as: name to what writes it."""
