"""Rank correlations of many pairs of rows at once."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]

# Values that are sorted together: they and their keys stay within some tens of megabytes.
_BLOCK = 1 << 20


def kendall(left: Array, right: Array) -> Array:
    """Kendall's tau-b (1945), row by row, by counting inversions while merging (Knight, 1966).

    Each row takes O(n log^2 n) steps for its n columns.

    Args:
        left: ``(rows, columns)``.
        right: ``(rows, columns)``.

    Returns:
        ``(rows,)``; not a number where all values of a row are equal, or one of them is not finite.
    """
    block = max(1, _BLOCK // max(1, left.shape[1]))
    found = [
        _kendall(left[start : start + block], right[start : start + block])
        for start in range(0, len(left), block)
    ]
    return np.concatenate(found) if found else np.zeros(0)


def _kendall(left: Array, right: Array) -> Array:
    columns = left.shape[1]
    ranks = _dense_ranks(left), _dense_ranks(right)
    # By the left value, and by the right one where these are equal.
    both = np.sort(ranks[0] * columns + ranks[1], axis=1)
    pairs = columns * (columns - 1) // 2
    untied = [pairs - _tied_pairs(np.sort(part, axis=1)) for part in ranks]
    discordant = _inversions(both % max(1, columns))
    # Pairs that are untied on the left, less those of them that are tied on the right, are in order or out of it.
    ordered = untied[0] - (pairs - untied[1]) + _tied_pairs(both)
    # Each pair counts twice, as in the sum over all of the matrix of signs.
    product = 2.0 * (ordered - 2 * discordant)
    room = np.sqrt((2.0 * untied[0]) * (2.0 * untied[1]))
    usable = (room > 0) & np.isfinite(left).all(axis=1) & np.isfinite(right).all(axis=1)
    return np.asarray(np.divide(product, room, out=np.full(len(left), np.nan), where=usable))


def _dense_ranks(values: Array) -> NDArray[np.int64]:
    """0 for the smallest value of each row, 1 for the next larger one; equal values have equal ranks."""
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    steps = np.zeros(values.shape, dtype=np.int64)
    np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1, out=steps[:, 1:])
    ranks = np.empty_like(steps)
    np.put_along_axis(ranks, order, steps, axis=1)
    return ranks


def _tied_pairs(ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """``(rows,)`` pairs of equal values in rows that are sorted."""
    rows, columns = ordered.shape
    places = np.arange(columns)
    begins = np.zeros((rows, columns), dtype=np.int64)
    begins[:, 1:] = np.where(ordered[:, 1:] != ordered[:, :-1], places[1:], 0)
    # Each value makes a pair with every equal one before it.
    found: NDArray[np.int64] = (places - np.maximum.accumulate(begins, axis=1)).sum(axis=1)
    return found


def _inversions(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """``(rows,)`` pairs of which the first value is larger; values are whole and not negative."""
    rows, columns = values.shape
    length = 1 << max(0, columns - 1).bit_length()
    # What fills a row up comes last and is largest, so that it is never out of order.
    merged = np.full((rows, length), columns, dtype=np.int64)
    merged[:, :columns] = values
    found = np.zeros(rows, dtype=np.int64)
    width = 1
    while width < length:
        blocks = merged.reshape(rows, -1, 2, width)
        # The last bit says from which half a value comes: of equal ones, the first half's stay first.
        keys = np.sort((2 * blocks + np.array([[0], [1]])).reshape(rows, -1, 2 * width), axis=-1)
        places = ((keys & 1) ^ 1) @ np.arange(2 * width)
        # A value of the first half moves back by as many places as there are smaller ones in the second.
        found += (places - width * (width - 1) // 2).sum(axis=1)
        merged, width = (keys >> 1).reshape(rows, length), 2 * width
    return found


def spearman(left: Array, right: Array) -> Array:
    """``(rows,)`` correlation of ranks (Spearman, 1904), row by row; arguments as in `kendall`."""
    ranks = [rankdata(part, axis=1) for part in (left, right)]
    centred = [part - part.mean(axis=1, keepdims=True) for part in ranks]
    room = np.sqrt(np.square(centred[0]).sum(axis=1) * np.square(centred[1]).sum(axis=1))
    product = (centred[0] * centred[1]).sum(axis=1)
    return np.asarray(np.divide(product, room, out=np.full(len(product), np.nan), where=room > 0))
