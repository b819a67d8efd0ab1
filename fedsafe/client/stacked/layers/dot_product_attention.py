"""Scaled dot-product attention (Vaswani et al. 2017), a few examples at a time, with the gradient written by hand.

For the short sequences and narrow heads of small models the library's fused kernel costs several times as much. Weights
are left undivided by their sums, which scale the narrower mixtures instead (Dao et al. 2022, Appendix B).
"""

from collections.abc import Sequence
from math import gcd, inf
from typing import Any

import torch
from torch import Tensor

# Exponentials are taken in multiples of this, so that no stack leaves a remainder that is rounded differently.
_KERNEL_WIDTH = 32

# Scores that are computed at once: what stays in the cache is faster.
_SCORES = 2**17

# Sums of exponentials between these have lost no term that counts, also without the largest score taken off first.
_LEAST, _MOST = 1e-20, 1e30


def attend(
    parts: Sequence[Tensor],
    mask: Tensor | None,
    heads: int,
    *,
    zero_if_all_masked: bool,
    need_weights: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Each position's mixture of values, and the weights of it.

    Args:
        parts: Queries ``(examples, positions, heads * values)``, and keys and values ``(examples, keys, heads *
            values)``; or one tensor with all three side by side.
        mask: What is added to the scores, broadcast to ``(examples, heads, positions, keys)``, or None.
        heads: Number of heads.
        zero_if_all_masked: Whether a position that may see no key gets zeros; otherwise it gets NaN.
        need_weights: Whether the weights are given.

    Returns:
        ``(examples, positions, heads * values)``, and ``(examples, heads, positions, keys)`` or None.
    """
    hidden = None
    if mask is not None and zero_if_all_masked:
        hidden = (mask == -inf).all(-1, keepdim=True)
    mixed, weights = _Attend.apply(mask, hidden, heads, need_weights, *parts)  # type: ignore[no-untyped-call]
    return mixed, weights


class _Attend(torch.autograd.Function):
    """Inside, a head of an example is a matrix of its own: ``(examples * heads, positions, values)``.

    Keeps weights ``(examples * heads, positions, keys)`` and scales ``(examples * heads, positions, 1)``, whose product
    is the softmax.
    """

    @staticmethod
    def forward(
        ctx: Any,
        mask: Tensor | None,
        hidden: Tensor | None,
        heads: int,
        need_weights: bool,
        *parts: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        query, key, value = parts[0].chunk(3, 2) if len(parts) == 1 else parts
        ctx.heads, ctx.scale, ctx.together = heads, (query.shape[2] // heads) ** -0.5, len(parts) == 1
        examples, positions, _ = query.shape
        q, k, v = (_by_head(part, heads) for part in (query, key, value))
        weights = q.new_empty(len(q), positions, k.shape[1])
        shaped = weights.view(examples, heads, positions, -1)
        scales = q.new_empty(len(q), positions, 1)
        mixed = torch.empty_like(q)
        for own in _chunks(examples, heads, weights[0].numel()):
            rows = slice(own.start * heads, own.stop * heads)
            added = None if mask is None else _of(mask, own)
            _weigh(shaped[own], scales[rows], q[rows], k[rows], added, ctx.scale)
            if hidden is not None:
                shaped[own].masked_fill_(_of(hidden, own), 0.0)
            torch.bmm(weights[rows], v[rows], out=mixed[rows])
        mixed.mul_(scales)
        ctx.save_for_backward(q, k, v, mixed, weights, scales)
        return _to_examples(mixed, heads, query.new_empty(query.shape)), (weights * scales).view(
            shaped.shape
        ) if need_weights else None

    @staticmethod
    def backward(ctx: Any, by_mixed: Tensor | None, by_weights: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, mixed, weights, scales = ctx.saved_tensors
        heads: int = ctx.heads
        by_query, by_key, by_value = (torch.empty_like(part) for part in (q, k, v))
        outer = torch.zeros_like(q) if by_mixed is None else _by_head(by_mixed, heads).mul_(scales)
        # What the softmax takes off each row: the mean of its gradients under the weights.
        means = (outer * mixed).sum(2, keepdim=True)
        for own in _chunks(len(q) // heads, heads, weights[0].numel()):
            rows = slice(own.start * heads, own.stop * heads)
            w, mean = weights[rows], means[rows]
            by_scores = torch.bmm(outer[rows], v[rows].transpose(1, 2))
            if by_weights is not None:
                more = by_weights[own].flatten(0, 1) * scales[rows]
                by_scores.add_(more)
                mean = mean + (more * w).sum(2, keepdim=True) * scales[rows]
            by_scores.sub_(mean).mul_(w)
            torch.bmm(w.transpose(1, 2), outer[rows], out=by_value[rows])
            by_query[rows].baddbmm_(by_scores, k[rows], beta=0.0, alpha=ctx.scale)
            by_key[rows].baddbmm_(by_scores.transpose(1, 2), q[rows], beta=0.0, alpha=ctx.scale)
        apart = (by_query, by_key, by_value)
        examples, width = len(q) // heads, heads * q.shape[2]
        if ctx.together:
            whole = q.new_empty(examples, q.shape[1], 3 * width)
            for part, place in zip(apart, whole.chunk(3, 2), strict=True):
                _to_examples(part, heads, place)
            return None, None, None, None, whole
        places = (_to_examples(part, heads, part.new_empty(examples, part.shape[1], width)) for part in apart)
        return None, None, None, None, *places


def _weigh(
    shaped: Tensor, scales: Tensor, query: Tensor, key: Tensor, mask: Tensor | None, factor: float
) -> None:
    """Set weights ``(examples, heads, positions, keys)``, and the scales that make each row of them sum to one.

    The largest score of a row is taken off only in heads that need it: it costs more than the exponentials. Which these
    are is seen head by head of each example, so no other example's bits depend on it.
    """
    weights = shaped.view(len(query), *shaped.shape[2:])

    def set_scores() -> None:
        weights.baddbmm_(query, key.transpose(1, 2), beta=0.0, alpha=factor)
        if mask is not None:
            shaped.add_(mask)

    set_scores()
    torch.sum(weights.exp_(), 2, keepdim=True, out=scales)
    # Also where one is NaN.
    far = ~((scales > _LEAST) & (scales < _MOST)).flatten(1).all(1)
    if bool(far.any()):
        set_scores()
        others = torch.softmax(weights[far], 2)
        weights.exp_()[far] = others
        scales[far] = 1.0
    scales.reciprocal_()


def _chunks(examples: int, heads: int, scores: int) -> list[slice]:
    """Slices of examples whose heads have this many scores each."""
    multiple = max(2, _KERNEL_WIDTH // gcd(_KERNEL_WIDTH, heads * scores))
    size = multiple * max(1, _SCORES // (multiple * heads * scores))
    return [slice(first, min(first + size, examples)) for first in range(0, examples, size)]


def _of(mask: Tensor, examples: slice) -> Tensor:
    """A mask's part for some examples: all of it, if it is for all alike."""
    return mask[examples] if mask.ndim == 4 and len(mask) > 1 else mask


def _by_head(values: Tensor, heads: int) -> Tensor:
    """``(examples, positions, heads * values)`` to ``(examples * heads, positions, values)``."""
    apart = values.unflatten(2, (heads, -1)).transpose(1, 2)  # type: ignore[no-untyped-call]
    written: Tensor = apart.new_empty(apart.shape).copy_(apart)
    return written.flatten(0, 1)


def _to_examples(values: Tensor, heads: int, out: Tensor) -> Tensor:
    """The way back, into place."""
    place = out.unflatten(2, (heads, -1)).transpose(1, 2)  # type: ignore[no-untyped-call]
    place.copy_(values.view(place.shape))
    return out
