"""Texts as features: vectors of a frozen sentence encoder, computed once and kept."""

import hashlib
import os
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.sources import CACHE_DIR, cache_dir
from fedsafe.data.text_weights import SHA256, load_encoder
from fedsafe.errors import ConfigError, DataError

DIMENSIONS = 384
_LONE = re.compile("[\ud800-\udfff]")
_AT_ONCE = 512  # texts embedded between two writes, so that an interruption loses little
_VERSION = 1  # of what is kept
_WAIT = 120.0  # seconds for another process that writes
Vectors = NDArray[np.float32]
Layers = Literal["last", "all"]
FEATURES: Mapping[str, Layers] = {"minilm": "last", "minilm-layers": "all"}  # as configurations name them


def embed(
    texts: Sequence[str],
    *,
    layers: Layers = "last",
    keep: bool = True,
    environment: Mapping[str, str] = os.environ,
) -> Vectors:
    """Vectors of texts, by all-MiniLM-L6-v2 (:mod:`fedsafe.data.minilm`).

    A text is embedded once: its vector is kept in FedSafe's cache folder under the text's hash, in a file that only its
    owner can read. What is kept there says a lot about the texts: set ``keep`` to False where they must leave no trace.

    Args:
        texts: ``n`` texts of any length; tokens after the 256th are not read.
        layers: ``"last"`` for the vector that sentences are compared by, ``"all"`` for the mean over layers.
        keep: Whether vectors are looked up and kept.
        environment: Variables that name folders.

    Returns:
        ``(n, 384)`` float32, each of unit length, so every value lies in [-1, 1] whatever the texts are.

    Raises:
        ConfigError: If ``layers`` is neither.
        DataError: If a text is none, the extra ``text`` is not installed, the weights are others, or the cache cannot
            be used.
    """
    if layers not in get_args(Layers):
        raise ConfigError(f"layers = {layers!r} is unknown: use one of {', '.join(get_args(Layers))}.")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"Text {row} (counted from 0) is {text!r}, which is no text.")
        if _LONE.search(text):
            raise DataError(
                f"Text {row} (counted from 0) holds half of a surrogate pair, which is no character: {text[:40]!r}. "
                "Read its file with the encoding that it has, or remove it."
            )
    unique = list(dict.fromkeys(texts))
    encoder = cache(lambda: load_encoder(environment))
    if not keep:
        found = dict(zip(unique, encoder()(unique), strict=True)) if unique else {}
    else:
        path = cache_dir(environment) / "texts" / f"minilm-{SHA256[:16]}-{_VERSION}.sqlite"
        found = kept(unique, path, lambda batch: encoder()(batch))
    which = get_args(Layers).index(layers)
    return np.array([found[text][which] for text in texts], np.float32).reshape(-1, DIMENSIONS)


def kept(texts: Sequence[str], path: Path, compute: Callable[[Sequence[str]], Vectors]) -> dict[str, Vectors]:
    """The ``(2, width)`` vectors of texts out of a file, to which those that it lacks are added.

    Two processes may do this at once: each writes whole rows in one transaction, and the first to write one wins.

    Args:
        texts: Different texts.
        path: An SQLite file; made, with its folder, if there is none.
        compute: Gives ``(n, 2, width)`` vectors of the texts that the file lacks.

    Raises:
        DataError: If the file or its folder cannot be used.
    """
    hashes = {text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts}
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        with closing(sqlite3.connect(path, timeout=_WAIT)) as file:
            file.execute("CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, vector BLOB NOT NULL)")
            found = {text: _read(file, digest) for text, digest in hashes.items()}
            absent = [text for text, vector in found.items() if vector is None]
            for start in range(0, len(absent), _AT_ONCE):
                batch = absent[start : start + _AT_ONCE]
                rows = [
                    (hashes[text], np.asarray(vector, "<f4").tobytes())
                    for text, vector in zip(batch, compute(batch), strict=True)
                ]
                with file:
                    file.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
            found |= {text: _read(file, hashes[text]) for text in absent}
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"The kept vectors of texts, {path}, cannot be used: {reason}. Delete the file, or set {CACHE_DIR}."
        ) from error
    return {text: vector for text, vector in found.items() if vector is not None}


def _read(file: sqlite3.Connection, digest: bytes) -> Vectors | None:
    row = file.execute("SELECT vector FROM vectors WHERE text = ?", (digest,)).fetchone()
    return None if row is None else np.frombuffer(row[0], "<f4").astype(np.float32).reshape(2, -1)
