"""American Community Survey: 100,000 adults of 20 states, 2013 to 2017 (United States Census Bureau)."""

import bz2
import io
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fedsafe.data.catalogue.packaged import packaged_schema
from fedsafe.data.catalogue.r_file import read_r_frame
from fedsafe.data.dataset import Source, Task
from fedsafe.data.sources import RemoteFile, local_copy, obtain, sha256, unpacked
from fedsafe.data.tables import task_from_frame
from fedsafe.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

TABLE, TABLE_SHA256 = (
    "acs_pums_2017_5yr_20states_100k.csv.gz", "4064aab9eec2939518626115fef76454584a60d7102037e88f73f761301bb58b",
)  # fmt: skip
ORIGINAL: Mapping[str, RemoteFile] = {
    "acsbig.rda": RemoteFile(
        url="https://raw.githubusercontent.com/donboyd5/microweight/9b9475e09b595f55b8ed14fe1707655c91f9b091/data/"
        "acsbig.rda",
        sha256="01a002c90292ab9a22147238b5362726303e27fb361f9a85fee43677fcf1558a",
        size=1_369_297,
    )
}
SOURCE = Source(
    name="American Community Survey, public use microdata 2013 to 2017, 100,000 persons (US Census Bureau)",
    licence="public domain (work of the United States government)",
    url="https://www.census.gov/programs-surveys/acs/microdata.html",
)
THRESHOLD = 30_000
EVALUATION_FRACTION = 0.2


def load_acs_states(
    *, environment: Mapping[str, str] = os.environ, original: Mapping[str, RemoteFile] = ORIGINAL
) -> Task:
    """The task ``"acs-states"``: whether a person's income exceeds 30,000 dollars, from age, sex and marital status.

    The holders are the states. The same random 20 % of the records are always for evaluation. The table is looked for
    in ``$FEDSAFE_DATA_DIR/acs_pums``, then in the cache, then downloaded.

    Args:
        environment: Variables that name folders.
        original: The table as an R data file.

    Raises:
        DataError: If the file is not what it should be, or cannot be had; the message says where to put it.
    """
    frame, checksum = _records(environment, original)
    frame["income"] = np.where(frame["pincp"].astype(float) > THRESHOLD, "above 30,000", "up to 30,000")
    schema = packaged_schema("acs-states")
    return task_from_frame(
        frame.rename(columns={"stabbr": "state", "agep": "age", "mar": "marital status"}),
        schema,
        name="acs-states",
        origin="the American Community Survey",
        evaluation_name="20 % of the persons, chosen once at random (public)",
        source=replace(SOURCE, sha256=checksum, note=schema.note),
        evaluation_fraction=EVALUATION_FRACTION,
    )


def _records(
    environment: Mapping[str, str], original: Mapping[str, RemoteFile]
) -> tuple["pd.DataFrame", str]:
    import pandas as pd

    used = ["stabbr", "agep", "sex", "mar", "pincp"]
    content = local_copy(environment, f"acs_pums/{TABLE}", TABLE_SHA256)
    if content is not None:
        table = pd.read_csv(io.BytesIO(unpacked(content, TABLE)), usecols=used)
        return table[used], sha256(content)
    (content,) = obtain(
        environment, "acs_pums", original, "The extract of the American Community Survey"
    ).values()
    columns = read_r_frame(bz2.decompress(content))
    absent = [name for name in used if name not in columns]
    if absent:
        raise DataError(
            f"The extract of the American Community Survey lacks the columns {', '.join(absent)}."
        )
    return pd.DataFrame({name: columns[name] for name in used}), sha256(content)
