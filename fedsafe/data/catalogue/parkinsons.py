"""UCI Parkinsons Telemonitoring: 5,875 voice recordings of 42 patients (Tsanas, Little, McSharry and Ramig, 2009)."""

import io
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fedsafe.data.catalogue.packaged import packaged_schema
from fedsafe.data.dataset import Source, Target, Task
from fedsafe.data.options import one_of
from fedsafe.data.schema import Split
from fedsafe.data.sources import RemoteFile, local_copy, obtain, sha256
from fedsafe.data.tables import task_from_frame
from fedsafe.rng import public_generator

if TYPE_CHECKING:
    import pandas as pd

TABLE, TABLE_SHA256 = (
    "parkinsons_updrs.csv", "44cbe43d20dbc5f8654280a1fbd0e094e842a1bd7eaec49535ad945822fd25aa",
)  # fmt: skip
ORIGINAL: Mapping[str, RemoteFile] = {
    "parkinsons_updrs.data": RemoteFile(
        url="https://archive.ics.uci.edu/ml/machine-learning-databases/parkinsons/telemonitoring/parkinsons_updrs.data",
        sha256="f2c7d5025dec4e92e7feae367a5f7ccf58789a10ac6b54bdf15976c599f9dd39",
        size=911_261,
    )
}
SOURCE = Source(
    name="UCI Parkinsons Telemonitoring (Athanasios Tsanas and Max Little, 2009)",
    licence="CC BY 4.0",
    url="https://doi.org/10.24432/C5ZS3N",
)
# The motor part of the scale goes from 0 to 108; 60 leaves room for early Parkinson's disease, as 80 does in the whole.
MOTOR = Target(name="motor_UPDRS", low=0, high=60, unit="points")
TARGETS, SPLITS = ("total", "motor"), ("patient", "record")
_EVALUATED_PATIENTS, _EVALUATED_RECORDS = 8, 0.2


def load_parkinsons(
    *,
    target: str = "total",
    split: str = "patient",
    environment: Mapping[str, str] = os.environ,
    original: Mapping[str, RemoteFile] = ORIGINAL,
) -> Task:
    """The task ``"parkinsons"``: a patient's score on the UPDRS scale, from voice, age and sex.

    The holders are the patients. The file is looked for in ``$FEDSAFE_DATA_DIR/parkinsons_telemonitoring``, then in the
    cache, then downloaded.

    Args:
        target: ``"total"``, clamped to [0, 80] points, or ``"motor"``, clamped to [0, 60].
        split: What is held out for evaluation: ``"patient"``, all records of the same 8 of the 42 patients; or
            ``"record"``, the same random 20 % of the records, so that a model may recognise patients it knows.
        environment: Variables that name folders.
        original: The file as UCI has it.

    Raises:
        ConfigError: If an option is unknown.
        DataError: If the file is not what it should be, or cannot be had; the message says where to put it.
    """
    one_of(target, TARGETS, "task.target")
    one_of(split, SPLITS, "task.split")
    frame, checksum = _records(environment, original)
    schema = packaged_schema("parkinsons")
    if target == "motor":
        schema = replace(schema, target=MOTOR)
    told = f"{_EVALUATED_RECORDS:.0%} of the recordings, chosen once at random"
    if split == "patient":
        schema = replace(schema, split=Split(column="split"))
        told = f"all recordings of {_EVALUATED_PATIENTS} patients, chosen once at random"
    return task_from_frame(
        frame,
        schema,
        name="parkinsons",
        origin="UCI Parkinsons Telemonitoring",
        evaluation_name=f"{told} (public)",
        source=replace(SOURCE, sha256=checksum, note=schema.note),
        evaluation_fraction=_EVALUATED_RECORDS,
    )


def _records(
    environment: Mapping[str, str], original: Mapping[str, RemoteFile]
) -> tuple["pd.DataFrame", str]:
    import pandas as pd

    content = local_copy(environment, f"parkinsons_telemonitoring/{TABLE}", TABLE_SHA256)
    if content is None:
        (content,) = obtain(environment, "parkinsons_telemonitoring", original, SOURCE.name).values()
    frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    frame = frame.rename(columns={"subject#": "patient"})
    patients = sorted(frame["patient"].unique(), key=int)
    order = public_generator(0, "parkinsons evaluation").permutation(len(patients))
    held = {patients[at] for at in order[:_EVALUATED_PATIENTS]}
    frame["split"] = np.where(frame["patient"].isin(held), "test", "train")
    return frame, sha256(content)
