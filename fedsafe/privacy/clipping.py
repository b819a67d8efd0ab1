"""Clipping: what bounds the influence of one record or one client.

Guarantees:
    No row that leaves this module is longer than ``clip``, whatever went in.

    ==================  ==========================================
    row                 result
    ==================  ==========================================
    all zeros           zeros (factor 1)
    NaN or infinite     zeros, by selection: 0 x NaN is NaN
    norm 1e30           scaled to just under ``clip``
    no row at all       an empty array
    ==================  ==========================================
"""

import numpy as np
from numpy.typing import NDArray

# Rounding in single precision can lengthen a clipped row by a relative 1e-6; this leaves it room.
MARGIN = 1.0 - 2.0**-10

# Of a row: below it, squares may have lost digits.
_LEAST_SQUARE = 1e-200


def clip_rows(rows: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
    """Scale each row to a Euclidean norm of at most ``clip``; a non-finite row becomes zero.

    The norm is taken over the whole row, all tensors together (a clip per tensor would let the joint norm grow
    with the square root of their number).

    Args:
        rows: ``(rows, parameters)``.
        clip: The bound, above zero.

    Returns:
        ``(rows, parameters)``, every row no longer than ``clip``.
    """
    safe = finite_rows(rows)
    norms = _norms(safe)
    bound = clip * MARGIN
    clipped = safe * (bound / np.maximum(norms, bound))[:, None]
    # A norm that overflowed is infinite: its factor is zero and so is the row.
    finite = np.isfinite(norms)
    return clipped if finite.all() else np.where(finite[:, None], clipped, 0.0)


def finite_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows with a non-finite value become zero; the others keep their bits."""
    # A sum is not finite if one of its terms is not: nearly always it says enough, and it takes one pass.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(rows.sum(axis=1)).all():
            return rows
    return np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)


def _norms(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean norms ``(rows,)`` of finite rows."""
    with np.errstate(over="ignore"):
        squares = np.square(rows).sum(axis=1)
        norms: NDArray[np.float64] = np.sqrt(squares)
        # Squares of very large or very small values leave the range of doubles: scaling first keeps them in it.
        outside = ~((squares > _LEAST_SQUARE) & (squares < np.inf))
        if outside.any():
            some = rows[outside]
            peak = np.maximum(np.abs(some).max(axis=1, initial=0.0), np.finfo(float).tiny)
            norms[outside] = peak * np.linalg.norm(some / peak[:, None], axis=1)
    return norms
