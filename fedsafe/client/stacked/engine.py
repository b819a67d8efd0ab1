"""One step of DP-SGD for a whole stack of clients.

Guarantees:
    The sum that noise is added to moves by at most ``clip`` when one example is zeroed out, and no client's bits
    depend on another client.

    The first holds in exact arithmetic. In single precision an example also moves how the sums of the others round,
    by about one unit (2^-23) of the longest partial sum, which is as many clips long as there are examples. And terms
    of one example that cancel each other make partial sums longer: they are kept to 64 clips together, so n such
    examples on different parameters add up to about 64 sqrt(n) units. The clip's margin of 2^-10 covers both for
    batches of up to 4,096 examples: a trainer cuts a larger one into such parts and adds their sums in double precision
    (``packing.py``). This is an argument about rounding that was tried on adversarial batches, and no proof for every
    order in which a library may add.

    ==========================  ================================================
    example                     contribution to its client's sum
    ==========================  ================================================
    padding                     zero, by selection
    loss or norm not finite     zero, by selection (0 x NaN is NaN)
    gradient of norm 1e30       scaled to just under ``clip``, or zero where the scale would be denormal
    gradient of zero            zero
    ==========================  ================================================
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from fedsafe.client.batches import Batch
from fedsafe.client.objectives import Objective
from fedsafe.client.stacked.alignment import aligned_rows
from fedsafe.client.stacked.joining import Part, parts_of
from fedsafe.client.stacked.model import StackedModel
from fedsafe.privacy.clipping import MARGIN

# Terms of one example that cancel pass through the sum that all share, and round it to the unit of their own size: so
# they may be this many clips long together, where what remains of them is at most one. An ordinary example's terms are
# shorter, and its bits are those of its norm.
_CANCELLING = 64


def clipped_sum(
    model: StackedModel, objective: Objective, batch: Batch, mask: Tensor, clip: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Sum of clipped per-example gradients of each client.

    Args:
        model: The stack.
        objective: Gives one loss per example.
        batch: Of ``clients * batch`` examples, client-major.
        mask: ``(clients, batch)``, False for padding.
        clip: Bound on one example's gradient, all tensors together; infinity leaves finite gradients as they are.
            One for all, or ``(clients, 1)`` in double precision.

    Returns:
        Sums ``(clients, parameters)`` and norms before clipping ``(clients, batch)`` in double precision.
    """
    losses, calls = model.differentiate(objective, batch)
    parts = list(parts_of(calls, mask.shape[1]))
    return _clipped(model, losses.view(mask.shape), parts, mask, clip)


def plain_sum(model: StackedModel, objective: Objective, batch: Batch, mask: Tensor) -> Tensor:
    """``(clients, parameters)`` sums of per-example gradients without clipping, faster than with an infinite clip.

    Arguments as for :func:`clipped_sum`. Examples whose loss or gradient is not finite are dropped here too: a client
    that has one is summed once more with norms.
    """
    losses, calls = model.differentiate(objective, batch, mask)
    factors = mask.to(model.parameters.dtype)
    sums = _zeros(model)
    for part in parts_of(calls, mask.shape[1], norms=False):
        _add(part, part.contribution.summed(factors, mask, True), sums)
    losses = losses.view(mask.shape)
    dirty = ~torch.isfinite(sums.sum(1)) | ~torch.isfinite(torch.where(mask, losses, 0.0)).all(1)
    if dirty.any():
        again, _ = _clipped(model, losses, list(parts_of(calls, mask.shape[1])), mask, torch.inf)
        sums.copy_(torch.where(dirty.unsqueeze(1), again, sums))
    return sums


def _clipped(
    model: StackedModel, losses: Tensor, parts: list[Part], mask: Tensor, clip: float | Tensor
) -> tuple[Tensor, Tensor]:
    squares = mask.new_zeros(mask.shape, dtype=torch.float64)
    slack: Tensor | float = 0.0
    for part in parts:
        squares = squares + part.contribution.squares
        slack = slack + part.contribution.slack
    norms = squares.sqrt()
    longest = norms + slack
    for part in parts:
        if isinstance(part.contribution.mass, Tensor):
            longest = torch.maximum(longest, part.contribution.mass / _CANCELLING)
    finite = torch.isfinite(longest) & torch.isfinite(losses)
    keep = mask & finite
    # An infinite clip over a norm of zero, or over an infinite one, is a number too.
    factors = torch.nan_to_num(clip * MARGIN / longest, nan=1.0).clamp(max=1.0)
    # A denormal factor has too few digits to bound anything: such an example is dropped.
    keep = keep & (factors >= torch.finfo(model.parameters.dtype).tiny)
    factors = torch.where(keep, factors, 0.0).to(model.parameters.dtype)

    clean = bool(finite.all())
    sums = _zeros(model)
    for part in parts:
        _add(part, part.contribution.summed(factors, keep, clean), sums)
    return sums, norms


def _zeros(model: StackedModel) -> Tensor:
    rows, columns = model.parameters.shape
    return aligned_rows(rows, columns, model.parameters.dtype, model.parameters.device).zero_()


def _add(part: Part, summed: Iterable[Tensor], sums: Tensor) -> None:
    # Each place is written once, unless norms were not wanted and a parameter belongs to several layers.
    for place, values in part.placed(tuple(summed)):
        sums[:, place].view(values.shape).add_(values)
