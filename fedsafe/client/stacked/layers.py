"""Stacked layers: one set of weights per client, and the per-example norms and clipped sums they allow.

A layer sees activations of all clients at once, client-major: ``(clients * batch, ..., features)``. In its forward
pass it leaves a *tap*, its input and its pre-activation. After one backward pass to the pre-activations, the
squared norm of each example's gradient and the clipped sum of gradients follow from the taps without ever writing
a gradient per example (Goodfellow 2015; Bu et al. 2023, "book-keeping").
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Tap:
    """What one call of a layer leaves behind.

    Args:
        layer: The layer.
        inputs: ``(clients, batch * positions, inputs)``.
        output: The pre-activation, as the rest of the model saw it.
    """

    layer: "StackedLinear"
    inputs: Tensor
    output: Tensor


class StackedLinear(nn.Module):
    """``nn.Linear`` with its own weights for each client; positions between batch and features are shared.

    Args:
        template: The layer that is stacked.
        clients: How many clients.
        parameters: ``(clients, parameters)``, every client's whole model.
        columns: Where this layer's named parameters lie in it.
        taps: The list that each call appends to.
    """

    def __init__(
        self,
        template: nn.Linear,
        clients: int,
        parameters: Tensor,
        columns: dict[str, slice],
        taps: list[Tap],
    ) -> None:
        super().__init__()
        self.clients = clients
        self.columns = columns
        self._taps = taps
        self._weight = parameters[:, columns["weight"]].view(
            clients, template.out_features, template.in_features
        )
        self._bias = parameters[:, columns["bias"]].unsqueeze(1) if "bias" in columns else None

    def forward(self, x: Tensor) -> Tensor:
        """``(clients * batch, ..., inputs)`` to ``(clients * batch, ..., outputs)``."""
        inputs = x.reshape(self.clients, -1, x.shape[-1])
        transposed = self._weight.transpose(1, 2)
        bias = self._bias
        output = torch.bmm(inputs, transposed) if bias is None else torch.baddbmm(bias, inputs, transposed)
        if torch.is_grad_enabled():
            if not output.requires_grad:
                output.requires_grad_()
            self._taps.append(Tap(self, inputs.detach(), output))
        return output.view(*x.shape[:-1], -1)

    def squared_norms(self, inputs: Tensor, gradients: Tensor, batch: int) -> Tensor:
        """``(clients, batch)`` squared norms in double precision.

        For one position the gradient of the weight is an outer product, so its norm is the product of the norms
        (Goodfellow 2015). For several, the sum over pairs of positions ("ghost norm", Li et al. 2022) or the
        gradient itself, whichever is smaller.

        Args:
            inputs: ``(clients, batch * positions, inputs)``.
            gradients: ``(clients, batch * positions, outputs)``, of the loss by the pre-activation.
            batch: Examples for each client.
        """
        bias = 0.0 if self._bias is None else 1.0
        positions = inputs.shape[1] // batch
        if positions == 1:
            return _squared(gradients) * (_squared(inputs) + bias)
        a = inputs.reshape(self.clients * batch, positions, -1).double()
        g = gradients.reshape(self.clients * batch, positions, -1).double()
        if positions * positions <= a.shape[2] * g.shape[2]:
            squares = ((torch.bmm(a, a.transpose(1, 2)) + bias) * torch.bmm(g, g.transpose(1, 2))).sum((1, 2))
        else:
            squares = torch.bmm(g.transpose(1, 2), a).square().sum((1, 2)) + bias * g.sum(1).square().sum(1)
        return squares.view(self.clients, batch)

    def rounding_slack(self, inputs: Tensor, gradients: Tensor, batch: int) -> Tensor | float:
        """How much longer than its norm an example's single-precision contribution can get, ``(clients, batch)``.

        Over several positions the terms of a gradient may cancel, and what is left of them is rounding: at most
        ``positions`` units of it on each product of norms. One position has nothing to cancel.
        """
        positions = inputs.shape[1] // batch
        if positions == 1:
            return 0.0
        products = (_squared(gradients) * (_squared(inputs) + 1.0)).sqrt()
        slack: Tensor = products.view(self.clients, batch, positions).sum(2)
        return slack * (positions * torch.finfo(gradients.dtype).eps)

    def write_sum(self, inputs: Tensor, gradients: Tensor, sums: Tensor) -> None:
        """Write the sum over examples of gradients that are already scaled into ``sums`` (clients, parameters)."""
        target = sums[:, self.columns["weight"]].view(self.clients, gradients.shape[2], inputs.shape[2])
        torch.bmm(gradients.transpose(1, 2), inputs, out=target)
        if self._bias is not None:
            # A product with ones: a plain sum changes its bits with the number of clients.
            ones = inputs.new_ones(self.clients, inputs.shape[1], 1)
            sums[:, self.columns["bias"]] = torch.bmm(gradients.transpose(1, 2), ones)[:, :, 0]


def _squared(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=2, dtype=torch.float64)
    return norms.square()


StackedRule = Callable[[nn.Linear, int, Tensor, dict[str, slice], list[Tap]], StackedLinear]

# Layer type -> how to stack it. A subclass may change `forward`, so only the exact type matches.
RULES: dict[type[nn.Module], StackedRule] = {nn.Linear: StackedLinear}
