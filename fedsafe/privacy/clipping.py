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
    # Scaling first keeps the square of a huge finite value from overflowing.
    peak = np.maximum(np.abs(safe).max(axis=1, initial=0.0), np.finfo(float).tiny)
    with np.errstate(over="ignore"):
        norms = peak * np.linalg.norm(safe / peak[:, None], axis=1)
    bound = clip * MARGIN
    factors = bound / np.maximum(norms, bound)
    clipped = safe * factors[:, None]
    # A norm that overflowed is infinite: its factor is zero and so is the row.
    return np.where(np.isfinite(norms)[:, None], clipped, 0.0)


def finite_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows with a non-finite value become zero; the others keep their bits."""
    return np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
