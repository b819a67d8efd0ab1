"""The run's secret key: made by the operating system, kept in ``RUN/private/``, never anywhere else."""

import hashlib
import hmac
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.mapped import blocks
from fedsafe.errors import LedgerError
from fedsafe.rng import KEY_BYTES, key_from_seed, new_key

KEY_FILE = "noise.key"


def create_key(private: Path, *, seed: int | None) -> bytes:
    """Make and store the key.

    Args:
        private: The folder ``RUN/private/``.
        seed: Derive the key from this seed, for reproducible simulations; None asks the operating system.
    """
    key = new_key() if seed is None else key_from_seed(seed)
    keep_key(private, key)
    return key


def keep_key(private: Path, key: bytes) -> None:
    """Store a key where there is none yet.

    Args:
        private: A folder for its owner alone, which is made if it is not there.
        key: The secret.

    Raises:
        OSError: Another one is there, or the file cannot be written.
    """
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(private / KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_key(private: Path) -> bytes:
    """Read the key back.

    Raises:
        LedgerError: It is missing or damaged.
    """
    path = private / KEY_FILE
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise LedgerError(
            f"the noise key {path} cannot be read: {error}; a run cannot go on without it"
        ) from error
    if len(key) != KEY_BYTES:
        raise LedgerError(
            f"the noise key {path} has {len(key)} bytes, not {KEY_BYTES}: it was cut; restore it"
        )
    return key


def key_fingerprint(key: bytes) -> str:
    """What the ledger remembers of the key: enough to recognise it, nothing to derive it from."""
    return hmac.digest(key, b"fedsafe ledger fingerprint", "sha256").hex()


def data_fingerprint(key: bytes, arrays: Iterable[NDArray[Any]]) -> str:
    """What the ledger remembers of the records: keyed, so that nobody can test a guess of them.

    Args:
        key: The run's secret.
        arrays: Everything that training and judging read, in a fixed order.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape};".encode())
        for block in blocks(array):
            digest.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
    return hmac.digest(key, b"fedsafe data " + digest.digest(), "sha256").hex()
