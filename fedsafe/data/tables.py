"""A task from the user's own table: a CSV or Parquet file and a public schema."""

import csv
import lzma
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedsafe.data.csv_file import SUFFIXES, read_csv
from fedsafe.data.dataset import Examples, Kind, Source, Task, hold_out
from fedsafe.data.schema import Schema
from fedsafe.data.schema_file import read_schema
from fedsafe.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

_PARQUET = (".parquet", ".pq")
EVALUATION_FRACTION = 0.2


def load_table(
    path: Path, schema_path: Path, evaluation_fraction: float | None = None, seed: int = 0
) -> Task:
    """A task from a table.

    If the schema names a split column, that column decides which records are for evaluation; otherwise a
    random part is held out. They count as public only if the schema says ``evaluation = "public"``.

    Args:
        path: A CSV file (may be compressed) or a Parquet file.
        schema_path: The public schema.
        evaluation_fraction: Part held out for evaluation, in (0, 1); by default 0.2.
        seed: Decides which.

    Raises:
        ConfigError: If ``evaluation_fraction`` contradicts the schema's split column or is outside (0, 1).
        DataError: If a file is missing or unreadable, a column is missing, or labels cannot be used.
    """
    schema = read_schema(schema_path)
    if schema.split and evaluation_fraction is not None:
        raise ConfigError(
            f"evaluation_fraction = {evaluation_fraction} contradicts the split column "
            f"{schema.split.column!r} of {schema_path}. Leave one of them out."
        )
    frame = read_table(path)
    public = "public" if schema.evaluation_public else "private: each figure computed on them is a release"
    fraction = EVALUATION_FRACTION if evaluation_fraction is None else evaluation_fraction
    how = (
        f"split column {schema.split.column!r}"
        if schema.split
        else f"{fraction:.0%} held out with seed {seed}"
    )
    return task_from_frame(
        frame,
        schema,
        name=path.name.split(".")[0],
        origin=str(path),
        evaluation_name=f"{path.name}, {how} ({public})",
        # A checksum of private records would be a release of its own.
        source=Source(name=path.name, note=schema.note),
        evaluation_fraction=fraction,
        seed=seed,
    )


def task_from_frame(
    frame: "pd.DataFrame",
    schema: Schema,
    *,
    name: str,
    origin: str,
    evaluation_name: str,
    source: Source,
    evaluation: "pd.DataFrame | None" = None,
    evaluation_fraction: float = EVALUATION_FRACTION,
    evaluation_public: bool = False,
    seed: int = 0,
) -> Task:
    """A task from raw records in memory.

    Args:
        frame: Raw records, one a row; columns that the schema does not name are ignored.
        schema: The public schema.
        name: Short name of the task.
        origin: What to call the frame in messages.
        evaluation_name: What the evaluation records are, and whether they are public.
        source: Where the records come from.
        evaluation: Raw records to judge on; by default some of ``frame``.
        evaluation_fraction: Part held out for evaluation if there are no such records and no split column.
        evaluation_public: Whether the evaluation records are public, if the schema does not say so.
        seed: Decides which.

    Raises:
        ConfigError: If ``evaluation_fraction`` is outside (0, 1), or both ``evaluation`` and a split column say what
            is evaluated on.
        DataError: If a column is missing or wholly unreadable, or labels or split values cannot be used.
    """
    if evaluation is not None and schema.split:
        raise ConfigError(
            f"The schema's split column {schema.split.column!r} says which records are for evaluation: leave it or "
            f"`evaluation` out."
        )
    train = examples_of(frame, schema, origin)
    if evaluation is not None:
        judged = examples_of(evaluation, schema, f"{origin} for evaluation")
    else:
        held, kept = (
            schema.split.indices(frame, origin)
            if schema.split
            else hold_out(len(train), evaluation_fraction, seed)
        )
        train, judged = train.take(kept), train.take(held)
    classes = schema.label.classes if schema.label else ()
    kinds: Mapping[int, Kind] = {0: "regression", 2: "binary"}
    return Task(
        name=name,
        kind=kinds.get(len(classes), "multiclass"),
        classes=classes,
        target=schema.target,
        schema=schema,
        train=train,
        evaluation=judged,
        evaluation_name=evaluation_name,
        source=source,
        evaluation_public=schema.evaluation_public or evaluation_public,
    )


def examples_of(frame: "pd.DataFrame", schema: Schema, origin: str) -> Examples:
    """Encoded records of a raw table.

    Args:
        frame: Raw records, one a row.
        schema: The public schema.
        origin: What to call the frame in messages.

    Raises:
        DataError: If a column is missing or wholly unreadable, there are no records, or labels cannot be used.
    """
    schema.check(frame, origin)
    if not len(frame):
        raise DataError(f"{origin} has no records.")
    schema.check_values(frame, origin)
    return Examples(
        x=schema.encode(frame),
        y=schema.answers(frame),
        groups=schema.groups(frame),
        holders=schema.owners(frame),
    )


def read_table(path: Path) -> "pd.DataFrame":
    """Raw records of a CSV or Parquet file.

    Every cell of a CSV file is read as text: types guessed from a whole column would let one record change
    another.

    Raises:
        DataError: If the file is missing, is of another type, or cannot be parsed: a CSV file must be in
            UTF-8, separated by commas, with as many fields in each record as in the header.
    """
    import pandas as pd

    if not path.name.lower().endswith(_PARQUET + SUFFIXES):
        raise DataError(
            f"{path} is neither CSV nor Parquet. Use a file named {', '.join(('*.csv', '*.parquet'))}."
        )
    try:
        if path.name.lower().endswith(_PARQUET):
            return pd.read_parquet(path, engine="pyarrow")
        return read_csv(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (
        ValueError, EOFError, RuntimeError, csv.Error, lzma.LZMAError, zlib.error, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        # Parsers of both formats raise subclasses of ValueError, or csv.Error; the others are broken or
        # encrypted compressed files.
        raise DataError(f"{path} cannot be parsed: {str(error).splitlines()[0]}.") from error
