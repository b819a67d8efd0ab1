"""Outputs of examples of which some parts are replaced by a baseline, many at a time."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

# Distances from the baseline whose square is below this are none: a quotient by them would be rounding.
_NOWHERE = 1e-9


def masked_outputs(
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    baseline: Tensor,
    target: Tensor,
    kept: NDArray[np.bool_],
    columns: NDArray[np.int64],
    *,
    batch: int,
) -> Array:
    """The explained output where only some columns keep the example's values.

    Args:
        forward: Map from ``(n, *inputs)`` to ``(n, outputs)``.
        x: ``(n, *inputs)``.
        baseline: ``(1, *inputs)`` that gives the other values.
        target: ``(n,)`` the output that is read.
        kept: ``(masks, columns)`` which columns keep theirs, the same for every example; or ``(n, masks, columns)``.
        columns: ``(*inputs,)`` the column of each feature.
        batch: Examples in one forward pass, at most.

    Returns:
        ``(n, masks)``.
    """
    n, masks = len(x), kept.shape[-2]
    member = torch.as_tensor(columns.ravel(), device=x.device)
    table = torch.as_tensor(np.ascontiguousarray(kept), device=x.device)
    parts = []
    with torch.no_grad():
        for start in range(0, n * masks, batch):
            place = torch.arange(start, min(start + batch, n * masks), device=x.device)
            example, mask = place // masks, place % masks
            chosen = table[mask] if table.ndim == 2 else table[example, mask]
            features = chosen[:, member].view(-1, *x.shape[1:])
            outputs = forward(torch.where(features, x[example], baseline))
            parts.append(outputs.gather(1, target[example, None])[:, 0].double().cpu())
    return np.asarray(torch.cat(parts).view(n, masks).numpy())


def spread(values: Array, x: Tensor, baseline: Tensor, columns: NDArray[np.int64]) -> Tensor:
    """The gentlest slope ``(n, *inputs)`` whose product with the distance gives each column its attribution.

    Args:
        values: ``(n, columns)`` attributions.
        x: ``(n, *inputs)``.
        baseline: ``(1, *inputs)``.
        columns: ``(*inputs,)`` the column of each feature. One that is at the baseline has no slope.
    """
    away = (x - baseline).detach().double().flatten(1)
    member = torch.as_tensor(columns.ravel(), device=x.device)
    squares = torch.zeros(values.shape, dtype=torch.float64, device=x.device).index_add_(1, member, away**2)
    found = torch.as_tensor(values, device=x.device)
    slopes = torch.where(squares > _NOWHERE, found / squares, torch.zeros_like(found))
    return (slopes[:, member] * away).view(x.shape).to(x.dtype)
