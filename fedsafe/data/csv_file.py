"""Reads a CSV file as text, and refuses one whose cells would land in the wrong column."""

import bz2
import csv
import gzip
import io
import lzma
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from fedsafe.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".csv.gz", ".csv.xz", ".csv.bz2", ".csv.zip")
_ENCODING = "utf-8-sig"  # UTF-8, with or without the mark that spreadsheets put first


def read_csv(path: Path) -> "pd.DataFrame":
    """Every cell of a CSV file as text, under the column names exactly as the header writes them.

    Names are not made unique: whoever uses a column can see that its name occurs twice.

    Args:
        path: A file whose name ends in one of ``SUFFIXES``; separated by commas, in UTF-8, with a header.

    Raises:
        DataError: If the file has no header, another separator, another encoding, or a record with more or
            fewer fields than the header.
        OSError: If the file cannot be read; this and the following are for the caller to name the file.
        ValueError: If it cannot be parsed or decompressed; also EOFError, RuntimeError, ``csv.Error``,
            ``lzma.LZMAError``, ``zlib.error`` or ``zipfile.BadZipFile``.
    """
    import pandas as pd

    content = _content(path)
    try:
        header = _checked_header(path, content)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be parsed: it is not UTF-8 text. Save it as UTF-8.") from error
    # index_col=False, or pandas takes the first column for an index if rows end in one more comma.
    frame = pd.read_csv(
        io.BytesIO(content),
        dtype=str,
        keep_default_na=False,
        skipinitialspace=True,
        index_col=False,
        encoding=_ENCODING,
    )
    frame.columns = pd.Index(header)
    return frame


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.decompress(content)
    if suffix == ".xz":
        return lzma.decompress(content)
    if suffix == ".bz2":
        return bz2.decompress(content)
    if suffix == ".zip":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if len(names) != 1:
                raise DataError(f"{path} cannot be parsed: it holds {len(names)} files instead of one.")
            return archive.read(names[0])
    return content


def _checked_header(path: Path, content: bytes) -> list[str]:
    """The column names, once every record is known to have as many fields."""
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(content), _ENCODING, newline=""), skipinitialspace=True)
    header: list[str] = []
    before = 0
    for record in lines:
        first, before = before + 1, lines.line_num
        if len(record) <= 1 and not "".join(record).strip():
            continue  # a blank line, which is no record
        if not header:
            header = record
            if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
                raise DataError(
                    f"{path} cannot be parsed: its header is one column, {header[0]!r}. "
                    f"Columns are separated by commas here: save it with commas."
                )
        elif len(record) != len(header):
            raise DataError(
                f"{path} cannot be parsed: line {first} has {len(record)} field(s), the header {len(header)}. "
                f"Correct the line; a cell that holds a comma needs quotation marks around it."
            )
    if not header:
        raise DataError(f"{path} cannot be parsed: it has no header line with the column names.")
    return header
