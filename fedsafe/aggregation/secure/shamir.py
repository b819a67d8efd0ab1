"""Shares of secrets (Shamir, 1979) over the field of 2^31 - 1 elements, for many holders and limbs at once.

A secret of 32 bytes is sixteen elements of 16 bits. Products of two elements fit 64-bit words, and a Mersenne prime is
reduced by a shift and an addition.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.secure.masks import key_stream

PRIME = 2**31 - 1
SECRET_BYTES = 32
_LIMBS = SECRET_BYTES // 2
SHARE_BYTES = 4 * _LIMBS

Elements = NDArray[np.uint64]


def deal(secret: bytes, holders: Sequence[int], threshold: int, key: bytes) -> list[bytes]:
    """A share for each holder: any ``threshold`` of them give the secret back, and fewer say nothing about it.

    Args:
        secret: 32 bytes.
        holders: Distinct numbers from 0 to ``2^31 - 3``.
        threshold: t, from 1 to the number of holders.
        key: 32 bytes that the coefficients are drawn from, of this secret alone.

    Returns:
        64 bytes each.
    """
    points = np.array(holders, dtype=np.uint64)[:, None] + np.uint64(1)
    limbs = np.frombuffer(secret, dtype="<u2").astype(np.uint64)
    coefficients = _uniform(key, (threshold - 1) * _LIMBS).reshape(threshold - 1, _LIMBS)
    values = np.zeros((len(holders), _LIMBS), dtype=np.uint64)
    for coefficient in [*coefficients[::-1], limbs]:  # Horner, from the highest power down to the secret
        values = _reduced(values * points + coefficient)
    return [row.tobytes() for row in values.astype("<u4")]


def recover(shares: Sequence[bytes], holders: Sequence[int]) -> bytes | None:
    """The secret that the shares lie on, by Lagrange's formula; None if they lie on none.

    Args:
        shares: As many as the threshold, 64 bytes each.
        holders: Whose they are, in the same order.
    """
    values = np.frombuffer(b"".join(shares), dtype="<u4").reshape(len(shares), _LIMBS).astype(np.uint64)
    weighted = _reduced(values * _weights_at_zero(holders)[:, None])
    limbs = weighted.sum(axis=0) % np.uint64(PRIME)  # 2^33 sums of elements fit a word
    return limbs.astype("<u2").tobytes() if limbs.max() < 2**16 else None


def is_share(share: bytes) -> bool:
    """Whether these are sixteen elements of the field."""
    return len(share) == SHARE_BYTES and bool((np.frombuffer(share, dtype="<u4") < PRIME).all())


def _weights_at_zero(holders: Sequence[int]) -> Elements:
    """``(holders,)`` the factor of each share: the product of ``x_j / (x_j - x_i)`` over all other j."""
    points = np.array(holders, dtype=np.int64) + 1
    apart = (points[None, :] - points[:, None]) % PRIME
    np.fill_diagonal(apart, 1)
    above = np.broadcast_to(points, apart.shape).copy()
    np.fill_diagonal(above, 1)
    top, bottom = _product(above.astype(np.uint64)), _product(apart.astype(np.uint64))
    inverse = np.array([pow(int(value), -1, PRIME) for value in bottom], dtype=np.uint64)
    return _reduced(top * inverse)


def _product(rows: Elements) -> Elements:
    """``(rows,)`` of each row."""
    product = np.ones(len(rows), dtype=np.uint64)
    for column in rows.T:
        product = _reduced(product * column)
    return product


def _reduced(values: Elements) -> Elements:
    """Modulo the prime, of anything below 2^63."""
    prime, bits = np.uint64(PRIME), np.uint64(31)
    values = (values & prime) + (values >> bits)
    values = (values & prime) + (values >> bits)
    return np.where(values >= prime, values - prime, values)


def _uniform(key: bytes, count: int) -> Elements:
    """``(count,)`` uniform elements: 31 bits of a stream each, without those that are the prime itself."""
    wanted, drawn = count + 16, np.empty(0, dtype=np.uint32)
    while len(drawn) < count:
        words = key_stream(key, wanted, np.dtype("<u4")) & np.uint32(PRIME)
        drawn, wanted = words[words != PRIME], 2 * wanted
    return drawn[:count].astype(np.uint64)
