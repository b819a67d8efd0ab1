"""Scaled dot-product attention (Vaswani et al. 2017), a few examples at a time, with the gradient written by hand.

For the short sequences and narrow heads of small models the library's fused kernel costs twice as much.
"""

from math import inf
from typing import Any

import torch
from torch import Tensor

# Examples are taken in multiples of this, so that no stack leaves a remainder, and never one alone.
_EXAMPLES = 16

# Scores that are computed at once: what stays in the cache is faster.
_SCORES = 2**17


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, heads: int, *, zero_if_all_masked: bool
) -> tuple[Tensor, Tensor]:
    """Each position's mixture of values, and the weights of it.

    Args:
        query: ``(examples, positions, heads * values)``.
        key: ``(examples, keys, heads * values)``.
        value: Like the key.
        mask: What is added to the scores, broadcast to ``(examples, heads, positions, keys)``, or None.
        heads: Number of heads.
        zero_if_all_masked: Whether a position that may see no key gets zeros; otherwise it gets NaN.

    Returns:
        ``(examples, positions, heads * values)``, and ``(examples, heads, positions, keys)``.
    """
    hidden = None
    if mask is not None and zero_if_all_masked:
        hidden = (mask == -inf).all(-1, keepdim=True)
    mixed, weights = _Attend.apply(query, key, value, mask, hidden, heads)  # type: ignore[no-untyped-call]
    return mixed, weights


class _Attend(torch.autograd.Function):
    """Inside, a head of an example is a matrix of its own: ``(examples * heads, positions, values)``."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        hidden: Tensor | None,
        heads: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.heads, ctx.scale = heads, (query.shape[2] // heads) ** -0.5
        examples, positions, _ = query.shape
        q, k, v = _by_head(query, heads, ctx.scale), _by_head(key, heads), _by_head(value, heads)
        weights = q.new_empty(len(q), positions, k.shape[1])
        shaped = weights.view(examples, heads, positions, -1)
        mixed = torch.empty_like(query)
        for own in _chunks(examples, weights[0].numel() * heads):
            rows = slice(own.start * heads, own.stop * heads)
            scores = torch.bmm(q[rows], k[rows].transpose(1, 2))
            if mask is not None:
                scores.view(-1, *shaped.shape[1:]).add_(_of(mask, own))
            torch.softmax(scores, 2, out=weights[rows])
            if hidden is not None:
                shaped[own].masked_fill_(_of(hidden, own), 0.0)
            _to_examples(torch.bmm(weights[rows], v[rows]), mixed[own], heads)
        ctx.save_for_backward(q, k, v, weights)
        return mixed, shaped

    @staticmethod
    def backward(ctx: Any, by_mixed: Tensor | None, by_weights: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        heads: int = ctx.heads
        examples, width = len(q) // heads, q.shape[2] * heads
        by_query, by_key, by_value = (q.new_empty(examples, part.shape[1], width) for part in (q, k, v))
        if by_mixed is None:
            by_mixed = torch.zeros_like(by_query)
        for own in _chunks(examples, weights[0].numel() * heads):
            rows = slice(own.start * heads, own.stop * heads)
            by_heads = _by_head(by_mixed[own], heads)
            by_scores = torch.bmm(by_heads, v[rows].transpose(1, 2))
            if by_weights is not None:
                by_scores.add_(by_weights[own].flatten(0, 1))
            by_scores = torch._softmax_backward_data(by_scores, weights[rows], 2, weights.dtype)
            _to_examples(torch.bmm(weights[rows].transpose(1, 2), by_heads), by_value[own], heads)
            _to_examples(torch.bmm(by_scores, k[rows]), by_query[own], heads, ctx.scale)
            _to_examples(torch.bmm(by_scores.transpose(1, 2), q[rows]), by_key[own], heads)
        return by_query, by_key, by_value, None, None, None


def _chunks(examples: int, scores: int) -> list[slice]:
    """Slices of examples that have this many scores each."""
    size = _EXAMPLES * max(1, _SCORES // (_EXAMPLES * scores))
    return [slice(first, min(first + size, examples)) for first in range(0, examples, size)]


def _of(mask: Tensor, examples: slice) -> Tensor:
    """A mask's part for some examples: all of it, if it is for all alike."""
    return mask[examples] if mask.ndim == 4 and len(mask) > 1 else mask


def _by_head(values: Tensor, heads: int, scale: float = 1.0) -> Tensor:
    """``(examples, positions, heads * values)`` to ``(examples * heads, positions, values)``."""
    apart = values.unflatten(2, (heads, -1)).transpose(1, 2)  # type: ignore[no-untyped-call]
    written = apart.new_empty(apart.shape)
    return (torch.mul(apart, scale, out=written) if scale != 1.0 else written.copy_(apart)).flatten(0, 1)


def _to_examples(values: Tensor, out: Tensor, heads: int, scale: float = 1.0) -> None:
    """The way back, into place."""
    place = out.unflatten(2, (heads, -1)).transpose(1, 2)  # type: ignore[no-untyped-call]
    values = values.view(place.shape)
    if scale == 1.0:
        place.copy_(values)
    else:
        torch.mul(values, scale, out=place)
