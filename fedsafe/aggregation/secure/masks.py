"""Whole numbers modulo a power of two, and the streams that hide them."""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from fedsafe.privacy.mechanisms import Grid, wrap

Residues = NDArray[np.unsignedinteger]


def word_type(modulus: int) -> np.dtype[np.unsignedinteger]:
    """The narrowest little-endian unsigned words that hold so many bits."""
    return np.dtype(next(f"<u{size}" for size in (1, 2, 4, 8) if 8 * size >= modulus))


def to_residues(values: Grid, modulus: int) -> Residues:
    """Whole numbers modulo ``2^modulus``, from 0 up."""
    return (values & np.int64((1 << modulus) - 1)).astype(word_type(modulus))


def from_residues(values: Residues, modulus: int) -> Grid:
    """The same as numbers around zero, as sums of the platform are; see :func:`~fedsafe.privacy.mechanisms.wrap`."""
    return wrap(values.astype(np.int64), modulus)


def key_stream(
    key: bytes, count: int, words: np.dtype[np.unsignedinteger] | np.dtype[np.uint32]
) -> NDArray[np.uint32]:
    """``(count,)`` uniform words of ChaCha20 (Bernstein, 2008) from its first block on.

    Args:
        key: 32 bytes that encrypt one stream only, for which a nonce of zeros is sound.
        count: How many.
        words: Their type.
    """
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    drawn: NDArray[np.uint32] = np.frombuffer(stream.update(bytes(count * words.itemsize)), dtype=words)
    return drawn


def add_mask(values: Residues, key: bytes, sign: int) -> None:
    """Add (sign 1) or take away (sign -1) the mask of a key, in place; words wrap around, so higher bits are noise.

    A power of two divides the words' own modulus, so :func:`trimmed` gives the sum modulo it at the end.
    """
    mask = key_stream(key, len(values), values.dtype)
    (np.add if sign > 0 else np.subtract)(values, mask, out=values)


def trimmed(values: Residues, modulus: int) -> Residues:
    """Modulo ``2^modulus``."""
    return values & values.dtype.type((1 << modulus) - 1)
