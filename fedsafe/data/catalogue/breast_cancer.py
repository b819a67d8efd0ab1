"""Breast Cancer Wisconsin, diagnostic (Wolberg and others, 1993), as it comes with scikit-learn: 569 records."""

import numpy as np

from fedsafe.data.catalogue.packaged import packaged_schema
from fedsafe.data.dataset import Source, Task
from fedsafe.data.sources import verified
from fedsafe.data.tables import task_from_frame

SHA256 = "3a54a12ffd3db348fbe319a9056329cde28da5b2e5ecc26ff7fb9f54aa7cc9f4"
SOURCE = Source(
    name="Breast Cancer Wisconsin, diagnostic (William Wolberg, Nick Street and Olvi Mangasarian, 1993)",
    licence="CC BY 4.0",
    url="https://doi.org/10.24432/C5DW2B",
    sha256=SHA256,
)
EVALUATION_FRACTION = 0.3


def load_breast_cancer() -> Task:
    """The task ``"breast-cancer"``: whether a mass is malignant, from thirty measurements of cell nuclei.

    Each measurement is clamped to public bounds and encoded to [-1, 1]. The same random 30 % of the records are
    always for evaluation.

    Raises:
        DataError: If scikit-learn's copy is not the one that it should be.
    """
    import pandas as pd
    from sklearn import datasets

    found = datasets.load_breast_cancer()
    content = found.data.astype("<f8").tobytes() + found.target.astype(np.uint8).tobytes()
    verified(content, SHA256, "scikit-learn's copy of the breast cancer records")
    frame = pd.DataFrame(found.data, columns=[str(name) for name in found.feature_names])
    frame["diagnosis"] = found.target_names[found.target]
    schema = packaged_schema("breast-cancer")
    note = f"The copy in scikit-learn; the checksum is that of its values, then its labels. {schema.note}"
    return task_from_frame(
        frame,
        schema,
        name="breast-cancer",
        origin="Breast Cancer Wisconsin",
        evaluation_name="30 % of the breast cancer records, chosen once at random (public)",
        source=Source(
            name=SOURCE.name, licence=SOURCE.licence, url=SOURCE.url, sha256=SHA256, note=note.strip()
        ),
        evaluation_fraction=EVALUATION_FRACTION,
    )
