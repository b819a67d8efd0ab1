"""``nn.MultiheadAttention``, stacked: four stacked linear layers, and between them nothing that has parameters."""

from dataclasses import replace
from math import inf

import torch
from torch import Tensor, nn

from fedsafe.client.stacked.layers.base import Slots, StackedLayer
from fedsafe.client.stacked.layers.dot_product_attention import attend
from fedsafe.client.stacked.layers.linear import StackedLinear
from fedsafe.errors import ModelError


class StackedMultiheadAttention(StackedLayer):
    """``nn.MultiheadAttention`` (Vaswani et al. 2017) with its own projections for each client."""

    def __init__(self, template: nn.MultiheadAttention, slots: Slots) -> None:
        super().__init__(template, slots)
        if not template.batch_first:
            self.examples_in, self.examples_out = (1, 1, 1, 0), (1, 0)
        self._heads, self._batch_first = template.num_heads, template.batch_first
        width = template.embed_dim
        widths = width, template.kdim, template.vdim
        self._query, self._key, self._value = (
            _linear(_third(slots, place, name, width), inputs, width)
            for place, (name, inputs) in enumerate(zip("qkv", widths, strict=True))
        )
        self._output = _linear(_renamed(slots, "out_proj.weight", "out_proj.bias"), width, width)

    @staticmethod
    def unsupported(template: nn.MultiheadAttention) -> str | None:
        """Dropout, and keys and values beside those of the input."""
        if template.dropout:
            return f"dropout = {template.dropout}"
        if template.bias_k is not None or template.bias_v is not None:
            return "add_bias_kv"
        return "add_zero_attn" if template.add_zero_attn else None

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """What ``nn.MultiheadAttention`` gives, for ``clients * batch`` sequences.

        Raises:
            ModelError: The query has no batch, or is said to be causal without a mask.
        """
        if query.ndim != 3:
            raise ModelError(
                f"an attention layer's query is of shape {tuple(query.shape)}: give it (examples, positions, values)"
            )
        if is_causal and attn_mask is None:
            raise ModelError("an attention layer is called with is_causal and no attn_mask: give it the mask")
        if not self._batch_first:
            query, key, value = (part.transpose(0, 1) for part in (query, key, value))
        q, k, v = self._query(query), self._key(key), self._value(value)
        # The mask is what it is said to be, unless it is needed for more.
        if is_causal and key_padding_mask is None and not need_weights:
            attn_mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).triu(1)
        mask = _mask(attn_mask, key_padding_mask, q)
        # Only for the weights' sake does the ordinary layer let a position that may see nothing become NaN.
        mixed, weights = attend(q, k, v, mask, self._heads, zero_if_all_masked=not need_weights)
        output = self._output(mixed)
        shown = None
        if need_weights:
            shown = weights.mean(1) if average_attn_weights else weights
        return (output if self._batch_first else output.transpose(0, 1)), shown


def _third(slots: Slots, place: int, name: str, width: int) -> Slots:
    """The slots of the query's, the key's or the value's projection, which may be a third of a packed one."""
    if slots.has("in_proj_weight"):
        slots = _rows(slots, "in_proj_weight", place, 3)
        own = _renamed(slots, "in_proj_weight", "in_proj_bias")
    else:
        own = _renamed(slots, f"{name}_proj_weight", "in_proj_bias")
    return _rows(own, "bias", place, 3) if own.has("bias") else own


def _rows(slots: Slots, name: str, place: int, parts: int) -> Slots:
    """The same slots, of the parameter of that name only one of so many equal parts."""
    if name in slots.frozen:
        return replace(slots, frozen={**slots.frozen, name: slots.frozen[name].chunk(parts)[place]})
    whole = slots.columns[name]
    size = (whole.stop - whole.start) // parts
    first = whole.start + place * size
    return replace(slots, columns={**slots.columns, name: slice(first, first + size)})


def _renamed(slots: Slots, weight: str, bias: str) -> Slots:
    """The slots of a weight and its bias, by the names that a linear layer has for them."""
    own = slots.only(weight, bias)
    names = {weight: "weight", bias: "bias"}
    columns, frozen = own.columns, own.frozen
    return replace(
        own,
        columns={names[name]: place for name, place in columns.items()},
        frozen={names[name]: value for name, value in frozen.items()},
        names={},
    )


def _linear(slots: Slots, inputs: int, outputs: int) -> StackedLinear:
    return StackedLinear(nn.Linear(inputs, outputs, bias=slots.has("bias"), device="meta"), slots)


def _mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor) -> Tensor | None:
    """What is added to the scores ``(clients * batch, heads, positions, keys)``, or None for nothing."""
    parts = []
    if attn_mask is not None:
        mask = _additive(attn_mask, q)
        parts.append(mask if mask.ndim == 2 else mask.view(len(q), -1, *mask.shape[1:]))
    if key_padding_mask is not None:
        parts.append(_additive(key_padding_mask, q)[:, None, None])
    return sum(parts[1:], parts[0]) if parts else None


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -inf)
