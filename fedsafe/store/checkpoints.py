"""Checkpoints: named arrays and text in a safetensors file, with a digest of their content.

A safetensors file cannot tell that a bit of an array has flipped, so a digest of the arrays and of the
metadata goes into its metadata, and reading checks it. Equal content gives equal bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedsafe.errors import RecordError
from fedsafe.store.files import replace_file

_DIGEST = "fedsafe.sha256"


def write_checkpoint(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes a checkpoint atomically.

    Args:
        path: The file to make or replace; its folder exists.
        tensors: Name to array, of any shape.
        metadata: Text to text.

    Raises:
        RecordError: An array is of a type that safetensors cannot hold.
    """
    plain = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    header = {str(key): str(metadata[key]) for key in sorted(metadata)}
    header[_DIGEST] = _file_digest(plain, header)
    try:
        content = _canonical(save(plain, metadata=header))
    except (SafetensorError, KeyError, ValueError) as error:
        raise RecordError(f"cannot write the checkpoint {path}: {error}") from error
    replace_file(path, content)


def read_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads a checkpoint and checks its digest.

    Args:
        path: The file.

    Returns:
        Arrays by name, and the metadata that was given when it was written.

    Raises:
        RecordError: The file is absent, cut, damaged, or not a FedSafe checkpoint.
    """
    try:
        with safe_open(str(path), framework="np") as opened:
            tensors: dict[str, np.ndarray] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata: dict[str, Any] = dict(opened.metadata() or {})
    except FileNotFoundError as error:
        raise RecordError(f"there is no checkpoint {path}") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise RecordError(f"the checkpoint {path} is cut or damaged: {error}; use an earlier one") from error
    expected = metadata.pop(_DIGEST, None)
    if expected is None:
        raise RecordError(f"the checkpoint {path} was not written by fedsafe: its metadata has no {_DIGEST}")
    if _file_digest(tensors, metadata) != expected:
        raise RecordError(
            f"the checkpoint {path} is damaged: its content does not match its digest; use an earlier one"
        )
    return tensors, metadata


def _file_digest(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    text = json.dumps(metadata, sort_keys=True)
    return hashlib.sha256(f"{content_digest(tensors)} {text}".encode()).hexdigest()


def _canonical(content: bytes) -> bytes:
    """Orders the header's keys, which safetensors writes in the order of a randomly seeded hash table."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def content_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and values, whatever the order of the mapping.

    Args:
        tensors: Name to array, of any shape.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        digest.update(f"{len(name)}:{name}:{array.dtype.newbyteorder('<').str}:{array.shape};".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()
