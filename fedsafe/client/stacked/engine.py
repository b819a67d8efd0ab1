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

import math

import torch
from torch import Tensor

from fedsafe.client.objectives import Objective
from fedsafe.client.stacked.alignment import aligned_rows
from fedsafe.client.stacked.model import StackedModel, calls_by_layer
from fedsafe.privacy.clipping import MARGIN

# Terms of one example that cancel pass through the sum that all share, and round it to the unit of their own size: so
# they may be this many clips long together, where what remains of them is at most one. An ordinary example's terms are
# shorter, and its bits are those of its norm.
_CANCELLING = 64


def clipped_sum(
    model: StackedModel, objective: Objective, x: Tensor, y: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, Tensor]:
    """Sum of clipped per-example gradients of each client.

    Args:
        model: The stack.
        objective: Gives one loss per example.
        x: ``(clients * batch, ...)`` inputs.
        y: ``(clients * batch, ...)`` targets.
        mask: ``(clients, batch)``, False for padding.
        clip: Bound on one example's gradient, all tensors together; infinity leaves finite gradients as they are.

    Returns:
        Sums ``(clients, parameters)`` and norms before clipping ``(clients, batch)`` in double precision.
    """
    clients, batch = mask.shape
    model.taps.clear()
    with torch.enable_grad():
        losses = objective(model.module, x, y)
        if losses.shape != y.shape[:1]:
            raise ValueError(
                f"the objective gave losses of shape {tuple(losses.shape)}, not {tuple(y.shape[:1])}"
            )
        handles = [tap.handle for tap in model.taps]
        gradients = torch.autograd.grad(losses.sum(), handles, allow_unused=True)
    calls = calls_by_layer(model.taps, gradients)
    model.taps.clear()

    contributions = [(layer, layer.contribution(own, batch)) for layer, own in calls.items()]
    squares = mask.new_zeros((clients, batch), dtype=torch.float64)
    slack: Tensor | float = 0.0
    for _, contribution in contributions:
        squares = squares + contribution.squares
        slack = slack + contribution.slack
    norms = squares.sqrt()
    longest = norms + slack
    for _, contribution in contributions:
        if isinstance(contribution.mass, Tensor):
            longest = torch.maximum(longest, contribution.mass / _CANCELLING)
    finite = torch.isfinite(longest) & torch.isfinite(losses.detach().view(clients, batch))
    keep = mask & finite
    factors = (clip * MARGIN / longest).clamp(max=1.0) if math.isfinite(clip) else torch.ones_like(norms)
    # A denormal factor has too few digits to bound anything: such an example is dropped.
    keep = keep & (factors >= torch.finfo(model.parameters.dtype).tiny)
    factors = torch.where(keep, factors, 0.0).to(model.parameters.dtype)

    clean = bool(finite.all())
    sums = aligned_rows(clients, model.parameters.shape[1], model.parameters.dtype).zero_()
    for layer, contribution in contributions:
        layer.write(contribution.summed(factors, keep, clean), sums)
    return sums, norms
