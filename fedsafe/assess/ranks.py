"""Rank correlations of many pairs of rows at once."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]

# Values in one block of signs.
_BLOCK = 1 << 21


def kendall(left: Array, right: Array) -> Array:
    """Kendall's tau-b (1945), row by row.

    Args:
        left: ``(rows, columns)``.
        right: ``(rows, columns)``.

    Returns:
        ``(rows,)``; not a number where all values of a row are equal.
    """
    columns = left.shape[1]
    block = max(1, _BLOCK // columns**2)
    found = []
    for start in range(0, len(left), block):
        signs = [
            np.sign(part[:, :, None] - part[:, None, :])
            for part in (left[start : start + block], right[start : start + block])
        ]
        product = (signs[0] * signs[1]).sum(axis=(1, 2))
        room = np.sqrt(np.square(signs[0]).sum(axis=(1, 2)) * np.square(signs[1]).sum(axis=(1, 2)))
        found.append(np.divide(product, room, out=np.full(len(product), np.nan), where=room > 0))
    return np.concatenate(found)


def spearman(left: Array, right: Array) -> Array:
    """``(rows,)`` correlation of ranks (Spearman, 1904), row by row; arguments as in `kendall`."""
    ranks = [rankdata(part, axis=1) for part in (left, right)]
    centred = [part - part.mean(axis=1, keepdims=True) for part in ranks]
    room = np.sqrt(np.square(centred[0]).sum(axis=1) * np.square(centred[1]).sum(axis=1))
    product = (centred[0] * centred[1]).sum(axis=1)
    return np.asarray(np.divide(product, room, out=np.full(len(product), np.nan), where=room > 0))
