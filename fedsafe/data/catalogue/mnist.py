"""MNIST with its writers: handwritten digits of 28 x 28 pixels (LeCun, Cortes and Burges, 1998).

Who wrote which digit is known from QMNIST (Yadav and Bottou, 2019): 539 writers of the 60,000 training digits, and
297 others of the 10,000 test digits.
"""

import io
import os
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.dataset import Examples, Source, Task
from fedsafe.data.inputs import ArraySchema
from fedsafe.data.sources import RemoteFile, local_copy, obtain, sha256
from fedsafe.errors import DataError

_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
_QMNIST = "https://raw.githubusercontent.com/facebookresearch/qmnist/94061367ec2e099ea18c553c75727ecf849ddb9b"
DIGITS: Mapping[str, RemoteFile] = {
    "train-images-idx3-ubyte": RemoteFile(
        url=f"{_MNIST}/train-images-idx3-ubyte.gz",
        sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        size=47_040_016,
        packed=True,
    ),
    "train-labels-idx1-ubyte": RemoteFile(
        url=f"{_MNIST}/train-labels-idx1-ubyte.gz",
        sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        size=60_008,
        packed=True,
    ),
    "t10k-images-idx3-ubyte": RemoteFile(
        url=f"{_MNIST}/t10k-images-idx3-ubyte.gz",
        sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        size=7_840_016,
        packed=True,
    ),
    "t10k-labels-idx1-ubyte": RemoteFile(
        url=f"{_MNIST}/t10k-labels-idx1-ubyte.gz",
        sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        size=10_008,
        packed=True,
    ),
}
LABELS: Mapping[str, RemoteFile] = {
    "qmnist-train-labels-idx2-int": RemoteFile(
        url=f"{_QMNIST}/qmnist-train-labels-idx2-int.gz",
        sha256="bb1b6e1ec7b04fd5696f1ed50b5f58f8ef195118edd5c93c81783df9740b8ac5",
        size=1_920_012,
        packed=True,
    ),
    "qmnist-test-labels-idx2-int": RemoteFile(
        url=f"{_QMNIST}/qmnist-test-labels-idx2-int.gz",
        sha256="92d0ccb8c25f9c6534270fb4be7e1d24a1c6d315edfc8a638bfbd31c70f362dd",
        size=1_920_012,
        packed=True,
    ),
}
WRITERS, WRITERS_SHA256 = (
    "mnist_writers.npz", "b9a635070bfb2801359c9d8706ca743c9e01cb6ad4c781035ac46cc089f32780",
)  # fmt: skip
SOURCE = Source(
    name="MNIST (Yann LeCun, Corinna Cortes and Chris Burges, 1998); writers from QMNIST (Yadav and Bottou, 2019)",
    licence="MNIST: CC BY-SA 3.0, as usually stated; QMNIST labels: BSD 3-Clause style",
    url="https://github.com/facebookresearch/qmnist",
    note="The checksum is that of the four files of MNIST, unpacked, one after another.",
)
_WRITER = 2  # the column of QMNIST's labels


def load_mnist_writers(
    *,
    environment: Mapping[str, str] = os.environ,
    digits: Mapping[str, RemoteFile] = DIGITS,
    labels: Mapping[str, RemoteFile] = LABELS,
) -> Task:
    """The task ``"mnist-writers"``: which of ten digits an image shows.

    An image is ``(1, 28, 28)``, grey values in [0, 1] (bytes divided by 255). The holders, ``"writer"``, are the people
    who wrote the digits; those of the test digits wrote no training digit.

    The files are looked for in ``$FEDSAFE_DATA_DIR/mnist`` (``*-ubyte`` or ``*-ubyte.gz``; the writers in
    ``mnist_writers.npz`` or QMNIST's own files), then in the cache, then downloaded.

    Args:
        environment: Variables that name folders.
        digits: The four files of MNIST.
        labels: The two files of QMNIST's labels.

    Raises:
        DataError: If a file is not what it should be, or none can be had; the message says where to put one.
    """
    content = obtain(environment, "mnist", digits, "MNIST")
    train_x, train_y, test_x, test_y = (_idx(content[name]) for name in digits)
    train_by, test_by = _writers(environment, labels, (train_y, test_y))
    return Task(
        name="mnist-writers",
        kind="multiclass",
        classes=tuple("0123456789"),
        schema=ArraySchema(shape=(1, *train_x.shape[1:]), lowest=0.0, highest=1.0),
        train=_examples(train_x, train_y, train_by),
        evaluation=_examples(test_x, test_y, test_by),
        evaluation_name="MNIST test digits, by other writers (public)",
        source=replace(SOURCE, sha256=sha256(b"".join(content.values()))),
        evaluation_public=True,
    )


def _examples(images: NDArray[np.int64], labels: NDArray[np.int64], writers: NDArray[np.int64]) -> Examples:
    x = images[:, None].astype(np.float32)
    x /= np.float32(255.0)
    return Examples(x=x, y=labels.astype(np.int64), holders={"writer": writers.astype(np.str_)})


def _writers(
    environment: Mapping[str, str],
    labels: Mapping[str, RemoteFile],
    digits: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Who wrote the training digits, and who the test digits."""
    joined = local_copy(environment, f"mnist/{WRITERS}", WRITERS_SHA256)
    if joined is not None:
        with np.load(io.BytesIO(joined)) as arrays:
            return arrays["writer_train"], arrays["writer_test"]
    content = obtain(environment, "mnist", labels, "QMNIST, which knows the writers of MNIST,")
    found = []
    for name, own in zip(labels, digits, strict=True):
        # QMNIST has more test digits than MNIST; the first are MNIST's.
        rows = _idx(content[name])[: len(own)]
        if not np.array_equal(rows[:, 0], own):
            raise DataError(
                f"The labels in {name} are not those of MNIST: the writers would be other digits'."
            )
        found.append(rows[:, _WRITER])
    return found[0], found[1]


def _idx(content: bytes) -> NDArray[np.int64]:
    """The array in a file of LeCun's IDX format, of bytes or 32-bit integers."""
    kind = {0x08: "u1", 0x0C: ">i4"}[content[2]]
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return np.frombuffer(content, kind, offset=4 + 4 * dimensions).reshape(shape)
