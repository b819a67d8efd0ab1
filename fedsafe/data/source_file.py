"""Where a client of a real federation has its records: a file or a database that only it can read.

The format of ``data.toml``, every key::

    format = "fedsafe.data-source/1"
    client = "north"               # the name that the federation knows this client by
    schema = "schema.toml"         # its copy of the public schema
    path = "patients.parquet"      # or patients.csv; in place of [sql]
    outside = "refuse"             # or "clamp": what happens to a number outside its public bounds
    validation = 0.2               # part of the records kept out of training, to judge the model on here
    seed = 0                       # decides which

    # [sql]                        # in place of path
    # url = "env:HOSPITAL_DATABASE"   # an SQLAlchemy URL, or the environment variable that holds it
    # query = "SELECT age, sex, ill FROM patients ORDER BY id"

Relative paths start at the folder of ``data.toml``. Records stay in the order in which the file or the query has them.
Which of them are kept out of training follows from their places in it: if it followed from what records say, changing
one would move others into the training or out of it, and the noise is for one. So let no value that is protected
decide the order: end a query with ``ORDER BY`` and an identifier. A database that gives another order in the middle of
a run is refused, since a round that is repeated must meet the same records.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fedsafe.data.columns import nearest
from fedsafe.data.dataset import Examples, hold_out
from fedsafe.data.deployed import own_schema
from fedsafe.data.rows_check import Problem, problems_of
from fedsafe.data.schema import Schema
from fedsafe.data.tables import examples_of, read_table
from fedsafe.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "fedsafe.data-source/1"
Outside = Literal["refuse", "clamp"]
_KEYS = ("format", "client", "schema", "path", "sql", "outside", "validation", "seed")


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A client's records and what they must be like.

    Args:
        client: Its name in the federation.
        schema_path: Its copy of the public schema.
        path: The file that has the records; None for a database.
        url: SQLAlchemy URL, or ``"env:NAME"``; None for a file.
        query: What is asked of the database.
        outside: What happens to a number outside its public bounds.
        validation: Part of the records kept out of training, in [0, 1).
        seed: Decides which.
    """

    client: str
    schema_path: Path
    path: Path | None
    url: str | None
    query: str | None
    outside: Outside
    validation: float
    seed: int

    @property
    def schema(self) -> Schema:
        """The public schema, without the columns that a client's own records need not have.

        Raises:
            DataError: It cannot be read.
        """
        return own_schema(self.schema_path)

    @property
    def origin(self) -> str:
        """What to call the records in messages; never a password of the URL."""
        return str(self.path) if self.path is not None else "the query of [sql]"

    def read(self) -> "pd.DataFrame":
        """The raw records.

        Raises:
            DataError: They cannot be read.
        """
        return read_table(self.path) if self.path is not None else self._query()

    def problems(self, frame: "pd.DataFrame") -> list[Problem]:
        """All that keeps raw records from being trained on, by row and column."""
        return problems_of(frame, self.schema, self.origin, outside=self.outside)

    def load(self) -> tuple[Examples, Examples]:
        """The records to train on, and those to judge the model on here.

        Raises:
            DataError: A record is not as the schema says; the first one is named by row and column.
        """
        frame = self.read()
        found = self.problems(frame)
        if found:
            more = f" (and {len(found) - 1} more: fedsafe data check)" if len(found) > 1 else ""
            raise DataError(f"{self.origin}: {found[0]}{more}")
        whole = examples_of(frame, self.schema, self.origin)
        if not self.validation:
            return whole, whole.take(np.arange(0))
        held, kept = hold_out(len(whole), self.validation, self.seed)
        return whole.take(kept), whole.take(held)

    def files(self) -> tuple[Path, ...]:
        """Files of this machine that have the records: also those of a database that is a file."""
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        if self.path is not None:
            return (self.path,)
        try:
            name = make_url(self._database()).database or ""
        except (DataError, ArgumentError):
            return ()  # nothing is read from it either
        file = name.removeprefix("file:").partition("?")[0]
        beside = [Path(file + end) for end in ("", "-wal", "-journal", "-shm")] if file else []
        return tuple(path for path in beside if path.is_file())

    def _database(self) -> str:
        url = self.url or ""
        if not url.startswith("env:"):
            return url
        name = url.removeprefix("env:")
        if not os.environ.get(name):
            raise DataError(f"[sql] url names the environment variable {name!r}, which is not set: set it.")
        return os.environ[name]

    def _query(self) -> "pd.DataFrame":
        import pandas as pd
        from pandas.errors import DatabaseError
        from sqlalchemy import create_engine, text
        from sqlalchemy.exc import SQLAlchemyError

        try:
            engine = create_engine(self._database())
            try:
                with engine.connect() as connection:
                    return pd.read_sql_query(text(self.query or ""), connection)
            finally:
                engine.dispose()
        except (SQLAlchemyError, DatabaseError, ImportError, ValueError) as error:
            cause = error.__cause__ if isinstance(error, DatabaseError) else error
            # The driver's own first line says what is wrong; the others repeat the query and may quote values.
            said = str(getattr(cause, "orig", None) or cause).splitlines()[0]
            raise DataError(f"The query of [sql] failed: {said}. Correct the url or the query.") from None


def read_source(path: Path) -> DataSource:
    """The data source in a ``data.toml``.

    Raises:
        DataError: The file cannot be read or breaks the format; it names file and key.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"The data source {path} cannot be read: {error.strerror or error}.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path} is not valid TOML: {error}.") from error
    for key in document:
        if key not in _KEYS:
            raise DataError(
                f"{path} has the unknown key {key!r}.{nearest(key, _KEYS)} Keys: {', '.join(_KEYS)}."
            )
    if document.get("format") != FORMAT:
        raise DataError(f"{path} has format {document.get('format')!r}; this version reads {FORMAT!r}.")
    if ("path" in document) == ("sql" in document):
        raise DataError(f"{path} needs one of `path`, a CSV or Parquet file, and [sql], a database.")
    sql = document.get("sql", {})
    if not isinstance(sql, Mapping) or set(sql) - {"url", "query"}:
        raise DataError(f"{path}, [sql] has the keys {', '.join(sql)}: it takes url and query.")
    outside = document.get("outside", "refuse")
    if outside not in get_args(Outside):
        raise DataError(f"{path} has outside = {outside!r}; use 'refuse' or 'clamp'.")
    return DataSource(
        client=_text(document, "client", path),
        schema_path=path.parent / _text(document, "schema", path),
        path=path.parent / _text(document, "path", path) if "path" in document else None,
        url=_text(sql, "url", path) if sql else None,
        query=_text(sql, "query", path) if sql else None,
        outside=outside,
        validation=_fraction(document, path),
        seed=_seed(document, path),
    )


def _text(table: Mapping[str, Any], key: str, path: Path) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise DataError(f"{path} has {key} = {value!r}: give a text.")
    return value


def _fraction(document: Mapping[str, Any], path: Path) -> float:
    value = document.get("validation", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
        raise DataError(f"{path} has validation = {value!r}: give a part of the records, from 0 to below 1.")
    return float(value)


def _seed(document: Mapping[str, Any], path: Path) -> int:
    value = document.get("seed", 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"{path} has seed = {value!r}: give a whole number from 0.")
    return value
