"""Handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998), as they come with scikit-learn: 1,797 records."""

import numpy as np

from fedsafe.data.dataset import Examples, Source, Task, hold_out
from fedsafe.data.inputs import ArraySchema
from fedsafe.data.sources import verified

SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
SOURCE = Source(
    name="Optical Recognition of Handwritten Digits, test part (Ethem Alpaydin and Cenk Kaynak, 1998)",
    licence="CC BY 4.0",
    url="https://doi.org/10.24432/C50P49",
    sha256=SHA256,
    note="The copy in scikit-learn; the checksum is that of its pixels, then its labels, one byte each.",
)
EVALUATION_FRACTION = 0.3


def load_digits() -> Task:
    """The task ``"digits"``: which of ten digits an image shows.

    An image is ``(1, 8, 8)``, grey values in [0, 1] (counts of 0 to 16 dark pixels, divided by 16). The same random
    30 % of the records are always for evaluation.

    Raises:
        DataError: If scikit-learn's copy is not the one that it should be.
    """
    from sklearn import datasets

    found = datasets.load_digits()
    pixels, labels = found.data.astype(np.uint8), found.target.astype(np.int64)
    verified(
        pixels.tobytes() + labels.astype(np.uint8).tobytes(), SHA256, "scikit-learn's copy of the digits"
    )
    examples = Examples(x=(pixels / np.float32(16)).astype(np.float32).reshape(-1, 1, 8, 8), y=labels)
    held, kept = hold_out(len(examples), EVALUATION_FRACTION, seed=0)
    return Task(
        name="digits",
        kind="multiclass",
        classes=tuple("0123456789"),
        schema=ArraySchema(shape=(1, 8, 8), lowest=0.0, highest=1.0),
        train=examples.take(kept),
        evaluation=examples.take(held),
        evaluation_name="30 % of the digits, chosen once at random (public)",
        source=SOURCE,
        evaluation_public=True,
    )
