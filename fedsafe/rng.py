"""Keyed random streams: every secret draw is a function of a key and of what it is drawn for.

A stream is ChaCha20 keyed by ``HMAC-SHA256(key; purpose, client, round, digest)``, so that no two purposes,
clients, rounds or inputs share one, and the same identity always replays the same draws. The cipher costs less
than a statistical generator here (see ``docs/decisions/0001-noise-streams.md``), so simulation and deployment
use the same one. Public randomness (partition, initial weights, evaluation) comes from the seed instead, through
:func:`public_generator`.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

KEY_BYTES = 32
GENERATOR = "ChaCha20"


def new_key() -> bytes:
    """A fresh 256-bit key from the operating system."""
    return secrets.token_bytes(KEY_BYTES)


def key_from_seed(seed: int) -> bytes:
    """The key of a reproducible simulation. Whoever knows the seed can remove the noise."""
    return hashlib.sha256(b"fedsafe reproducible key %d" % seed).digest()


def public_generator(seed: int, purpose: str) -> np.random.Generator:
    """A generator for public randomness; two purposes never share a sequence."""
    words = hashlib.sha256(f"fedsafe public {seed} {purpose}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(words, "little")))


@dataclass(frozen=True, kw_only=True)
class StreamId:
    """What a stream is drawn for.

    Args:
        purpose: ``"cohort"``, ``"batches"``, ``"record noise"`` or ``"client noise"``.
        client: The client, or -1 for the server.
        round: The round, from 1.
        digest: Digest of the broadcast parameters and the plan, so that a stream meets one input only.
    """

    purpose: str
    client: int
    round: int
    digest: bytes

    def encode(self) -> bytes:
        """An injective encoding: lengths are written before the parts of variable length."""
        name = self.purpose.encode()
        head = len(name).to_bytes(2, "big") + name
        return (
            head
            + int(self.client).to_bytes(8, "big", signed=True)
            + int(self.round).to_bytes(8, "big")
            + self.digest
        )


class Stream:
    """Uniform and normal draws from one keyed stream, in the order in which they are asked for.

    Args:
        key: The run's secret key, 32 bytes.
        identity: What the draws are for.
    """

    def __init__(self, key: bytes, identity: StreamId) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a stream key has {KEY_BYTES} bytes, not {len(key)}")
        subkey = hmac.digest(key, identity.encode(), "sha256")
        # A nonce of zeros is sound: each subkey encrypts one stream only.
        self._cipher = Cipher(algorithms.ChaCha20(subkey, bytes(16)), mode=None).encryptor()

    def words(self, count: int) -> NDArray[np.uint64]:
        """``(count,)`` uniform 64-bit words."""
        return np.frombuffer(self._cipher.update(bytes(8 * count)), dtype="<u8")

    def bernoulli(self, rate: float, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Independent events of probability ``rate``, exact to 2^-64."""
        count = int(np.prod(shape))
        threshold = int(rate * 2.0**64)  # exact: a product with a power of two only moves the exponent
        drawn = self.words(count)
        hits = np.ones(count, bool) if threshold >= 2**64 else drawn < np.uint64(threshold)
        return hits.reshape(shape)

    def normal(self, count: int) -> NDArray[np.float64]:
        """``(count,)`` standard normal draws in double precision (Box and Muller, 1958)."""
        pairs = (count + 1) // 2
        words = self.words(2 * pairs)
        radius = np.sqrt(-2.0 * np.log((words[:pairs] + 0.5) * 2.0**-64))
        angle = words[pairs:] * (2.0 * np.pi * 2.0**-64)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def normal_rows(streams: Sequence[Stream], count: int) -> NDArray[np.float32]:
    """``(len(streams), count)`` standard normal draws in single precision, one row from each stream.

    Box and Muller (1958) on 64 random bits for each radius, so that the tail reaches 9.4 standard deviations,
    and 32 for each angle. Row i depends on stream i alone.
    """
    out = np.empty((len(streams), count), dtype=np.float32)
    for left in range(0, count, _BLOCK):
        width = min(_BLOCK, count - left)
        rows = max(1, _BLOCK // width)
        for top in range(0, len(streams), rows):
            out[top : top + rows, left : left + width] = _normal_block(streams[top : top + rows], width)
    return out


# Work that fits the cache is four times as fast as one pass over the whole array.
_BLOCK = 8192


def _normal_block(streams: Sequence[Stream], count: int) -> NDArray[np.float32]:
    pairs = (count + 1) // 2
    width = pairs + (pairs + 1) // 2
    words = np.empty((len(streams), width), dtype=np.uint64)
    for row, stream in zip(words, streams, strict=True):
        row[:] = stream.words(width)
    # A 63-bit signed word converts to single precision in one instruction; + 1 keeps the logarithm finite.
    uniform = (words[:, :pairs] >> np.uint64(1)).view(np.int64).astype(np.float32)
    radius = np.sqrt(np.log((uniform + np.float32(1.0)) * np.float32(2.0**-63)) * np.float32(-2.0))
    turns = np.ascontiguousarray(words[:, pairs:]).view(np.uint32)[:, :pairs]
    angle = (turns >> np.uint32(8)).view(np.int32).astype(np.float32) * np.float32(2.0 * np.pi * 2.0**-24)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count]
