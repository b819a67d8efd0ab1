"""``nn.Embedding``, stacked."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsafe.client.stacked.layers.base import Call, Contribution, Slots, StackedLayer
from fedsafe.client.stacked.layers.contributions import Instantiated, joined


class StackedEmbedding(StackedLayer):
    """``nn.Embedding`` with its own vectors for each client."""

    examples_in = None

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
        output = self.slots.tap(self, tokens.unsqueeze(2), self._looked_up(tokens))
        return output.view(*x.shape, -1)

    def _looked_up(self, tokens: Tensor) -> Tensor:
        if len(tokens) == 1:
            # Faster than an index of both client and token, which a copy of all vectors would be needed to avoid.
            return F.embedding(tokens, self._vectors[0])
        client = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
        return self._vectors[client, tokens]

    def contribution(self, calls: Sequence[Call], batch: int, *, norms: bool = True) -> Contribution:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        inputs, gradients = joined(calls, batch)
        return _Rows(inputs[:, :, 0], gradients, batch, self._vectors.shape[1], self._padding)


class _Rows(Instantiated):
    """Gradients by token: what an example adds to a token's vector is summed at the token's first position.

    What is measured is what is summed, so rounding has no slack.

    Args:
        tokens: ``(clients, batch * positions)``.
        gradients: ``(clients, batch * positions, values)``.
        batch: Examples for each client.
        vocabulary: How many tokens there are.
        padding: The token whose vector is not trained, or None.
    """

    def __init__(
        self, tokens: Tensor, gradients: Tensor, batch: int, vocabulary: int, padding: int | None
    ) -> None:
        clients, rows, width = gradients.shape
        if padding is not None:
            gradients = torch.where((tokens == padding).unsqueeze(2), 0.0, gradients)
        if rows > batch:
            gradients = _added(gradients, _first_places(tokens.view(clients * batch, -1)), clients * rows)
        self._tokens, self._vocabulary = tokens, vocabulary
        super().__init__(gradients.reshape(clients, batch, -1, width))

    def written_out(self) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        (parts,) = self._gradients
        examples = self._tokens.reshape(parts.shape[:3]).flatten(0, 1)
        places = examples + self._vocabulary * torch.arange(len(examples), device=parts.device).unsqueeze(1)
        written = _added(parts, places, len(examples) * self._vocabulary)
        return (written.view(*parts.shape[:2], self._vocabulary, -1),)

    def summed(self, factors: Tensor, keep: Tensor, clean: bool) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        (parts,) = self._gradients
        scaled = parts * factors[:, :, None, None]
        if not clean:
            scaled = torch.where(keep[:, :, None, None], scaled, 0.0)
        clients = len(parts)
        places = self._tokens + self._vocabulary * torch.arange(clients, device=parts.device).unsqueeze(1)
        sums = _added(scaled, places, clients * self._vocabulary)
        return (sums.view(clients, self._vocabulary, -1),)


def _first_places(tokens: Tensor) -> Tensor:
    """``(examples, positions)``: for each position the row of all where its example has the same token first."""
    ordered, positions = tokens.sort(dim=1, stable=True)
    numbers = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    again = F.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
    # Where the run of equal tokens that a sorted position belongs to has begun.
    begun = torch.where(again, 0, numbers).cummax(1).values
    first = torch.empty_like(positions).scatter_(1, positions, positions.gather(1, begun))
    return first + tokens.shape[1] * torch.arange(len(tokens), device=tokens.device).unsqueeze(1)


def _added(rows: Tensor, places: Tensor, count: int) -> Tensor:
    """``(count, values)`` sums of the rows ``(..., values)`` of each place, in the order of the rows."""
    sums = rows.new_zeros(count, rows.shape[-1])
    return sums.index_add_(0, places.flatten(), rows.reshape(-1, rows.shape[-1]))
