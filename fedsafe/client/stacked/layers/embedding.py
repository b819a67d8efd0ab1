"""``nn.Embedding``, stacked."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedsafe.client.stacked.layers.base import Call, Contribution, Slots, StackedLayer, squared
from fedsafe.client.stacked.layers.contributions import joined


class StackedEmbedding(StackedLayer):
    """``nn.Embedding`` with its own vectors for each client."""

    inside = "before"

    def __init__(self, template: nn.Embedding, slots: Slots) -> None:
        super().__init__(template, slots)
        self._padding = template.padding_idx
        self._vectors = slots.view("weight", template.num_embeddings, template.embedding_dim)

    @staticmethod
    def unsupported(template: nn.Embedding) -> str | None:
        """What scales or moves vectors by the batch, and sparse gradients."""
        if template.max_norm is not None:
            return f"max_norm = {template.max_norm}"
        if template.scale_grad_by_freq:
            return "scale_grad_by_freq"
        return "sparse gradients" if template.sparse else None

    def forward(self, x: Tensor) -> Tensor:
        """``(clients * batch, ...)`` tokens to ``(clients * batch, ..., values)``."""
        tokens = x.reshape(self.slots.clients, -1)
        client = torch.arange(self.slots.clients, device=x.device).unsqueeze(1)
        output = self.slots.tap(self, tokens.unsqueeze(2), self._vectors[client, tokens])
        return output.view(*x.shape, -1)

    def contribution(self, calls: Sequence[Call], batch: int, *, norms: bool = True) -> Contribution:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        inputs, gradients = joined(calls, batch)
        return _Rows(inputs[:, :, 0], gradients, batch, self._vectors.shape[1], self._padding)


class _Rows:
    """Gradients by token: what an example adds to a token's vector is summed at the token's first position.

    What is measured is what is summed, so rounding has no slack.

    Args:
        tokens: ``(clients, batch * positions)``.
        gradients: ``(clients, batch * positions, values)``.
        batch: Examples for each client.
        vocabulary: How many tokens there are.
        padding: The token whose vector is not trained, or None.
    """

    slack = 0.0
    mass = 0.0

    def __init__(
        self, tokens: Tensor, gradients: Tensor, batch: int, vocabulary: int, padding: int | None
    ) -> None:
        clients, rows, width = gradients.shape
        own = tokens.reshape(clients * batch, -1)
        parts = gradients.reshape(clients * batch, -1, width)
        if padding is not None:
            parts = torch.where((own == padding).unsqueeze(2), 0.0, parts)
        if rows > batch:
            same = own.unsqueeze(2) == own.unsqueeze(1)
            # Row t of the triangle is empty exactly where position t has a token for the first time.
            first = ~same.tril(-1).any(2)
            parts = torch.bmm((same & first.unsqueeze(2)).to(parts.dtype), parts)
        self._tokens, self._vocabulary = tokens, vocabulary
        self._parts = parts.view(clients, rows, width)
        self.squares = squared(parts.reshape(clients, batch, -1))

    def written_out(self) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        clients, rows, width = self._parts.shape
        batch = self.squares.shape[1]
        places = self._tokens.reshape(clients * batch, -1, 1).expand(-1, -1, width)
        written = self._parts.new_zeros(clients * batch, self._vocabulary, width)
        written.scatter_add_(1, places, self._parts.reshape(clients * batch, -1, width))
        return (written.view(clients, batch, self._vocabulary, width),)

    def summed(self, factors: Tensor, keep: Tensor, clean: bool) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        clients, rows, width = self._parts.shape
        positions = rows // factors.shape[1]
        scaled = self._parts * factors.repeat_interleave(positions, 1).unsqueeze(2)
        if not clean:
            scaled = torch.where(keep.repeat_interleave(positions, 1).unsqueeze(2), scaled, 0.0)
        sums = scaled.new_zeros(clients * self._vocabulary, width)
        places = self._tokens + self._vocabulary * torch.arange(clients, device=scaled.device).unsqueeze(1)
        sums.index_add_(0, places.flatten(), scaled.flatten(0, 1))
        return (sums.view(clients, self._vocabulary, width),)
