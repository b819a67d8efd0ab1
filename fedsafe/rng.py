"""Keyed random streams: every secret draw is a function of a key and of what it is drawn for.

A stream is ChaCha20 keyed by ``HMAC-SHA256(key; purpose, client, round, digest)``, so that no two purposes,
clients, rounds or inputs share one, and the same identity always replays the same draws. The cipher costs less
than a statistical generator here (see ``docs/decisions/0001-noise-streams.md``), so simulation and deployment
use the same one. Public randomness (partition, initial weights, evaluation) comes from the seed instead, through
:func:`public_generator`.
"""

import functools
import hashlib
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms
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
        purpose: ``"cohort"``, ``"batches"``, ``"record noise"``, ``"client noise"``, ``"secure aggregation"``, ...
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
        self._subkey = _hmac_sha256(key, identity.encode())
        self._drawn = 0
        self._cipher: CipherContext | None = None

    def branch(self, purpose: str) -> "Stream":
        """Another stream for the same client, round and inputs, which shares no draw with this one.

        It is the same wherever this one has got to.
        """
        own = Stream.__new__(Stream)
        own._subkey = _hmac_sha256(self._subkey, b"branch " + purpose.encode())
        own._drawn, own._cipher = 0, None
        return own

    def words(self, count: int) -> NDArray[np.uint64]:
        """``(count,)`` uniform 64-bit words."""
        words = np.empty(count, dtype="<u8")
        self.fill(words)
        return words

    def fill(self, words: NDArray[np.uint64]) -> None:
        """Write the next uniform 64-bit words of the stream to ``words`` (count,), which is contiguous."""
        if self._cipher is None:
            block, used = divmod(self._drawn, _BLOCK_BYTES)
            # A nonce of zeros is sound: each subkey encrypts one stream only.
            start = block.to_bytes(4, "little") + bytes(12)
            self._cipher = Cipher(algorithms.ChaCha20(self._subkey, start), mode=None).encryptor()
            self._cipher.update(bytes(used))
        self._drawn += words.nbytes
        into = words.view(np.uint8).data
        for first in range(0, len(into), len(_ZEROS)):
            part = into[first : first + len(_ZEROS)]
            self._cipher.update_into(_ZEROS[: len(part)], part)

    def bernoulli(self, rate: float, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Independent events of probability ``rate``, exact to 2^-64."""
        hits: NDArray[np.bool_] = bernoulli_rows([self], rate, shape)[0]
        return hits

    def normal(self, count: int) -> NDArray[np.float64]:
        """``(count,)`` standard normal draws in double precision (Box and Muller, 1958)."""
        pairs = (count + 1) // 2
        words = self.words(2 * pairs)
        radius = np.sqrt(-2.0 * np.log((words[:pairs] + 0.5) * 2.0**-64))
        angle = words[pairs:] * (2.0 * np.pi * 2.0**-64)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def bernoulli_rows(streams: Sequence[Stream], rate: float, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """``(len(streams), *shape)`` independent events of probability ``rate``, exact to 2^-64, one row a stream."""
    threshold = int(rate * 2.0**64)  # exact: a product with a power of two only moves the exponent
    drawn = words_of(streams, math.prod(shape))
    hits = np.ones(drawn.shape, bool) if threshold >= 2**64 else drawn < np.uint64(threshold)
    return hits.reshape(len(streams), *shape)


def normal_rows(streams: Sequence[Stream], count: int) -> NDArray[np.float32]:
    """``(len(streams), count)`` standard normal draws in single precision, one row from each stream.

    Box and Muller (1958) on 63 random bits for each radius, so that the tail reaches 9.3 standard deviations,
    and 24 for each angle. Row i depends on stream i alone.
    """
    out = np.empty((len(streams), count), dtype=np.float32)
    for left in range(0, count, _BLOCK):
        width = min(_BLOCK, count - left)
        rows = min(max(1, len(streams)), max(1, _AT_ONCE // width))
        block = _NormalBlock(rows, width)
        for top in range(0, len(streams), rows):
            block.fill(streams[top : top + rows], out[top : top + rows, left : left + width])
    return out


# The draws of a row that come from one piece of its stream: to change it changes what a stream gives.
_BLOCK = 8192
# Work that fits the cache is four times as fast as one pass over the whole array.
_AT_ONCE = 2**16


class _NormalBlock:
    """Memory for so many normal draws of so many streams at once, used again and again.

    Args:
        rows: Streams.
        count: Draws of each.
    """

    def __init__(self, rows: int, count: int) -> None:
        self._count, self._pairs = count, (count + 1) // 2
        self._width = self._pairs + (self._pairs + 1) // 2
        self._radius = np.empty((rows, self._pairs), dtype=np.float32)
        self._angle = np.empty((rows, self._pairs), dtype=np.float32)
        self._spare = np.empty((rows, self._pairs), dtype=np.uint64)

    def fill(self, streams: Sequence[Stream], out: NDArray[np.float32]) -> None:
        """Write the next draws of each stream to ``out`` (streams, count)."""
        pairs, rest = self._pairs, self._count - self._pairs
        words = words_of(streams, self._width)
        radius, angle, spare = (part[: len(words)] for part in (self._radius, self._angle, self._spare))
        # A 63-bit signed word converts to single precision in one instruction; + 1 keeps the logarithm finite.
        np.right_shift(words[:, :pairs], np.uint64(1), out=spare)
        np.copyto(radius, spare.view(np.int64), casting="unsafe")
        radius += np.float32(1.0)
        radius *= np.float32(2.0**-63)
        np.log(radius, out=radius)
        radius *= np.float32(-2.0)
        np.sqrt(radius, out=radius)
        turns, curve = spare.view(np.uint32)[:, :pairs], spare.view(np.float32)[:, pairs:]
        np.right_shift(words[:, pairs:].view(np.uint32)[:, :pairs], np.uint32(8), out=turns)
        np.copyto(angle, turns.view(np.int32), casting="unsafe")
        angle *= np.float32(2.0 * np.pi * 2.0**-24)
        np.multiply(radius, np.cos(angle, out=curve), out=out[:, :pairs])
        np.multiply(radius[:, :rest], np.sin(angle, out=curve)[:, :rest], out=out[:, pairs:])


_BLOCK_BYTES = 64
# What is encrypted to get the key stream itself; the slice of a memoryview is no copy.
_ZEROS = memoryview(bytes(2**17))
# To open a cipher costs as much as computing a dozen blocks of many streams side by side.
_SHORT, _MANY = 16, 16


def words_of(streams: Sequence[Stream], count: int) -> NDArray[np.uint64]:
    """``(len(streams), count)`` uniform 64-bit words, the next ``count`` of each stream."""
    drawn = streams[0]._drawn if streams else 0
    first, used = divmod(drawn, _BLOCK_BYTES)
    blocks = -(-(used + 8 * count) // _BLOCK_BYTES)
    if (
        len(streams) < _MANY
        or not 1 <= blocks <= _SHORT
        or any(stream._drawn != drawn or stream._cipher is not None for stream in streams)
        or len({id(stream) for stream in streams}) < len(streams)
    ):
        words = np.empty((len(streams), count), dtype=np.uint64)
        for row, stream in zip(words, streams, strict=True):
            stream.fill(row)
        return words
    keys = np.frombuffer(b"".join(stream._subkey for stream in streams), dtype="<u4").reshape(-1, 8)
    rows = max(1, _BLOCK // blocks)
    parts = [_keystream(keys[top : top + rows], first, blocks) for top in range(0, len(keys), rows)]
    for stream in streams:
        stream._drawn += 8 * count
    return np.concatenate(parts).view("<u8")[:, used // 8 : used // 8 + count]


def _keystream(keys: NDArray[np.uint32], first: int, blocks: int) -> NDArray[np.uint32]:
    """``(streams, 16 * blocks)`` words of ChaCha20 (Bernstein, 2008) from block ``first`` on, with a nonce of zeros.

    The four quarter rounds of a round are done at once, for every block of every stream.

    Args:
        keys: ``(streams, 8)`` words of the keys, little endian.
        first: Number of the first block; the last is below 2^32.
        blocks: How many.
    """
    start = np.zeros((16, len(keys), blocks), dtype=np.uint32)
    start[0:4] = np.frombuffer(b"expand 32-byte k", dtype="<u4")[:, None, None]
    start[4:12] = keys.T[:, :, None]
    start[12] = np.arange(first, first + blocks, dtype=np.uint32)
    a, b, c, d = (start[row : row + 4].copy() for row in (0, 4, 8, 12))
    spare = np.empty_like(a)
    for _ in range(10):
        _quarter_rounds(a, b, c, d, spare)
        b, c, d = b[[1, 2, 3, 0]], c[[2, 3, 0, 1]], d[[3, 0, 1, 2]]
        _quarter_rounds(a, b, c, d, spare)
        b, c, d = b[[3, 0, 1, 2]], c[[2, 3, 0, 1]], d[[1, 2, 3, 0]]
    start += np.concatenate([a, b, c, d])
    return np.ascontiguousarray(start.transpose(1, 2, 0)).reshape(len(keys), 16 * blocks)


def _quarter_rounds(
    a: NDArray[np.uint32],
    b: NDArray[np.uint32],
    c: NDArray[np.uint32],
    d: NDArray[np.uint32],
    spare: NDArray[np.uint32],
) -> None:
    for target, other, turned, left in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        target += other
        turned ^= target
        np.left_shift(turned, np.uint32(left), out=spare)
        turned >>= np.uint32(32 - left)
        turned |= spare


def _hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104). The key's part is computed once: many streams share a key."""
    inner, outer = (state.copy() for state in _keyed(key))
    inner.update(message)
    outer.update(inner.digest())
    return bytes(outer.digest())


@functools.lru_cache(maxsize=8)
def _keyed(key: bytes) -> tuple[Any, Any]:  # hash states, for which there is no public type
    padded = key.ljust(64, b"\0")
    inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in padded)) for pad in (0x36, 0x5C))
    return inner, outer
