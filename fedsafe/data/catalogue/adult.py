"""UCI Adult: predict whether a person's income exceeds 50,000 dollars (Becker and Kohavi, 1996).

32,561 training and 16,281 test records from the 1994 census of the United States, with the original split.
"""

import io
import lzma
import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from fedsafe.data.catalogue.packaged import packaged_files, packaged_schema
from fedsafe.data.dataset import Source, Task
from fedsafe.data.sources import RemoteFile, cache_dir, data_dir, download, read_verified, sha256, verified
from fedsafe.data.tables import task_from_frame
from fedsafe.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

JOINED = "adult_48842.csv.xz"
JOINED_SHA256 = "70c341c732db9d5c2c7a66ff7646adb5b202a0a10648cb8408354a88cb3f69ab"
_UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult"
ORIGINAL: Mapping[str, RemoteFile] = {
    "adult.data": RemoteFile(
        url=f"{_UCI}/adult.data",
        sha256="5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
        size=3_974_305,
    ),
    "adult.test": RemoteFile(
        url=f"{_UCI}/adult.test",
        sha256="a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
        size=2_003_153,
    ),
}
COLUMNS = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation",
    "relationship", "race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country",
    "income",
)  # fmt: skip
SOURCE = Source(
    name="UCI Adult (Barry Becker and Ronny Kohavi, 1996)",
    licence="CC BY 4.0",
    url="https://doi.org/10.24432/C5XW20",
    sha256=JOINED_SHA256,
)


def load_adult(
    *,
    environment: Mapping[str, str] = os.environ,
    package: Traversable | None = None,
    original: Mapping[str, RemoteFile] = ORIGINAL,
) -> Task:
    """The task ``"adult"``.

    The records come from the first of: ``$FEDSAFE_DATA_DIR/adult/adult_48842.csv.xz``, the copy in the
    package, the two original files in the cache folder or downloaded to it. Each is checked against its
    checksum.

    Args:
        environment: Variables that name folders.
        package: The folder of packaged files; by default the installed one.
        original: The two original files, ``"adult.data"`` (training) and ``"adult.test"``.

    Raises:
        DataError: If a file is not what it should be, or none can be had; the message says where to put one.
    """
    files = package if package is not None else packaged_files()
    schema = packaged_schema("adult")
    frame, checksum = _records(environment, files, original)
    return task_from_frame(
        frame,
        schema,
        name="adult",
        origin="UCI Adult",
        evaluation_name="UCI Adult test split (public)",
        source=replace(SOURCE, sha256=checksum, note=schema.note),
    )


def parse_original(train: bytes, test: bytes) -> "pd.DataFrame":
    """The joined frame, from the two files in UCI's own format.

    Both are comma-and-space separated without a header and end in an empty line. The test file starts with a
    line ``|1x3 Cross validator``, and its labels end in a full stop.

    Raises:
        DataError: If a record has not 15 fields.
    """
    import pandas as pd

    parts = []
    for content, split in ((train, "train"), (test, "test")):
        lines = [line for line in content.decode("utf-8").splitlines() if line and not line.startswith("|")]
        records = [[field.strip() for field in line.split(",")] for line in lines]
        for number, record in enumerate(records, start=1):
            if len(record) != len(COLUMNS):
                raise DataError(
                    f"Record {number} of the Adult {split} file has {len(record)} fields instead of 15."
                )
        part = pd.DataFrame(records, columns=list(COLUMNS), dtype=str)
        part["income"] = part["income"].str.removesuffix(".")
        parts.append(part.assign(split=split))
    return pd.concat(parts, ignore_index=True)


def _records(
    environment: Mapping[str, str], files: Traversable, original: Mapping[str, RemoteFile]
) -> tuple["pd.DataFrame", str]:
    folder = data_dir(environment)
    named = folder / "adult" / JOINED if folder else None
    if named and named.is_file():
        return _parse_joined(read_verified(named, JOINED_SHA256)), JOINED_SHA256
    packaged = files / JOINED
    if packaged.is_file():
        return _parse_joined(verified(packaged.read_bytes(), JOINED_SHA256, str(packaged))), JOINED_SHA256
    cache = cache_dir(environment) / "adult"
    try:
        paths = [download(remote, cache / name) for name, remote in original.items()]
    except DataError as error:
        place = named or Path("$FEDSAFE_DATA_DIR") / "adult" / JOINED
        raise DataError(f"UCI Adult is not on this machine. {error} Or put {JOINED} at {place}.") from error
    train, test = (path.read_bytes() for path in paths)
    return parse_original(train, test), sha256(train + test)


def _parse_joined(content: bytes) -> "pd.DataFrame":
    import pandas as pd

    return pd.read_csv(io.BytesIO(lzma.decompress(content)), dtype=str, keep_default_na=False)
