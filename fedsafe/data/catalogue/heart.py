"""UCI Heart Disease: 920 patients of four hospitals (Janosi, Steinbrunn, Pfisterer and Detrano, 1988)."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from fedsafe.data.catalogue.packaged import packaged_schema
from fedsafe.data.dataset import Source, Task
from fedsafe.data.sources import RemoteFile, obtain, sha256
from fedsafe.data.tables import task_from_frame
from fedsafe.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/heart-disease"
HOSPITALS: Mapping[str, str] = {
    "processed.cleveland.data": "Cleveland",
    "processed.hungarian.data": "Hungary",
    "processed.switzerland.data": "Switzerland",
    "processed.va.data": "Long Beach",
}
ORIGINAL: Mapping[str, RemoteFile] = {
    name: RemoteFile(url=f"{_UCI}/{name}", sha256=checksum, size=size)
    for name, checksum, size in (
        (
            "processed.cleveland.data",
            "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8",
            18_461,
        ),
        (
            "processed.hungarian.data",
            "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796",
            10_263,
        ),
        (
            "processed.switzerland.data",
            "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314",
            4_109,
        ),
        ("processed.va.data", "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f", 6_737),
    )
}
COLUMNS = (
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca", "thal",
    "num",
)  # fmt: skip
SOURCE = Source(
    name="UCI Heart Disease (Andras Janosi, William Steinbrunn, Matthias Pfisterer and Robert Detrano, 1988)",
    licence="CC BY 4.0",
    url="https://doi.org/10.24432/C52P4X",
)
EVALUATION_FRACTION = 0.25


def load_heart(
    *, environment: Mapping[str, str] = os.environ, original: Mapping[str, RemoteFile] = ORIGINAL
) -> Task:
    """The task ``"heart"``: whether a vessel is narrowed by more than half (``num`` above 0).

    The holders, ``"hospital"``, are Cleveland, Hungary, Switzerland and Long Beach. The same random 25 % of the records
    are always for evaluation. The four files are looked for in ``$FEDSAFE_DATA_DIR/heart_disease``, then in the cache,
    then downloaded.

    Args:
        environment: Variables that name folders.
        original: The four files.

    Raises:
        DataError: If a file is not what it should be, or one cannot be had; the message says where to put it.
    """
    import pandas as pd

    content = obtain(environment, "heart_disease", original, "UCI Heart Disease")
    frame = pd.concat([parse(content[name], name) for name in original], ignore_index=True)
    schema = packaged_schema("heart")
    return task_from_frame(
        frame,
        schema,
        name="heart",
        origin="UCI Heart Disease",
        evaluation_name="25 % of the patients of all four hospitals, chosen once at random (public)",
        source=replace(SOURCE, sha256=sha256(b"".join(content.values())), note=schema.note),
        evaluation_fraction=EVALUATION_FRACTION,
    )


def parse(content: bytes, name: str) -> "pd.DataFrame":
    """The records of one hospital, as texts.

    Numbers are written alike (one file has ``1.0`` where others have ``1``), and a blood pressure or cholesterol of 0,
    which no living patient has, is missing.

    Raises:
        DataError: If a record has not 14 fields.
    """
    import pandas as pd

    records = [line.split(",") for line in content.decode("ascii").splitlines() if line.strip()]
    for number, record in enumerate(records, start=1):
        if len(record) != len(COLUMNS):
            raise DataError(f"Record {number} of {name} has {len(record)} fields instead of {len(COLUMNS)}.")
    frame = pd.DataFrame(records, columns=list(COLUMNS), dtype=str).map(_alike)
    measured = ["trestbps", "chol"]
    frame[measured] = frame[measured].replace("0", "?")
    frame["disease"] = frame["num"].map(lambda narrowed: "no" if narrowed == "0" else "yes")
    return frame.drop(columns="num").assign(hospital=HOSPITALS[name])


def _alike(field: str) -> str:
    field = field.strip()
    try:
        return f"{float(field):g}"
    except ValueError:
        return field
