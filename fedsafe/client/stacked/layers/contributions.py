"""Two kinds of contribution: gradients that are written out per example, and products that never are."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedsafe.client.stacked.alignment import aligned_product
from fedsafe.client.stacked.layers.base import Call, Contribution, squared

# Single precision loses what is smaller than half a unit of the sum so far, and over more values than this, that can
# be more than the margin of the clip.
_WIDE = 2**14


class Instantiated:
    """Gradients written out per example: what is measured is what is summed, so rounding has no slack.

    Args:
        gradients: For each parameter, ``(clients, batch, ...)``.
    """

    slack = 0.0
    mass = 0.0

    def __init__(self, *gradients: Tensor) -> None:
        self._gradients = gradients
        squares = [_lengths_squared(part) for part in gradients]
        self.squares = squares[0] if len(squares) == 1 else torch.stack(squares).sum(0)

    def written_out(self) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        return self._gradients

    def summed(self, factors: Tensor, keep: Tensor, clean: bool) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        sums = []
        for part in self._gradients:
            rows = part.flatten(2)
            used = rows if clean else torch.where(keep.unsqueeze(2), rows, 0.0)
            # A product with the factors: a plain sum changes its bits with the number of clients.
            sums.append(aligned_product(factors.unsqueeze(1), used)[:, 0].view(len(part), *part.shape[2:]))
        return tuple(sums)


def _lengths_squared(gradients: Tensor) -> Tensor:
    """``(clients, batch)`` squared norms of ``(clients, batch, ...)``."""
    rows = gradients.flatten(2)
    if rows.shape[2] <= _WIDE:
        return _row_squares(rows)
    return _row_squares(gradients).reshape(*gradients.shape[:2], -1).sum(2)


def _row_squares(rows: Tensor, least: float = 0.0, wide: int = _WIDE) -> Tensor:
    """Squared norms over the last dimension: in single precision where that neither overflows nor matters.

    Args:
        rows: Of any shape.
        least: Norms up to this are taken in double precision too.
        wide: Rows of more values than this are, whatever their norm.
    """
    if rows.shape[-1] > wide:
        return squared(rows)
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1)
    low, high = (float(bound) for bound in norms.aminmax())
    # Also where a bound is NaN, which hides the others.
    if not (low >= least and high < _LARGE):
        exact: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64)
        return torch.where((norms >= least) & (norms < _LARGE), norms.double(), exact).square()
    return norms.double().square_()


# The square of a larger value may overflow single precision; that of a smaller one than 1e-19 is lost.
_LARGE, _SMALL = 1e15, 1e-15

# Rounding in the denormal range is off by up to 1e-45 whatever the value, which inputs shorter than the root of this
# leave far below any clip.
_LONG_INPUTS = 1e60


class OuterProducts:
    """Gradients of a matrix product, by its inputs and the gradients of its outputs; never written out.

    For one position the gradient of the weight is an outer product, so its norm is the product of the norms
    (Goodfellow 2015). For several, it is the sum over pairs of positions ("ghost norm", Li et al. 2022), in double
    precision.

    Args:
        inputs: ``(clients, batch * positions, inputs)``.
        gradients: ``(clients, batch * positions, outputs)``.
        batch: Examples for each client.
        biases: How many biases are added to the product, each with the same gradient.
        norms: Whether norms are wanted, or the sums alone.
    """

    def __init__(
        self, inputs: Tensor, gradients: Tensor, batch: int, biases: int, *, norms: bool = True
    ) -> None:
        self._inputs, self._gradients, self._biases = inputs, gradients, biases
        self._positions = inputs.shape[1] // batch
        self.slack: Tensor | float = 0.0
        self.mass: Tensor | float = 0.0
        self._norms = norms
        if not norms:
            return
        # What is small here may be multiplied by what is large there, and what both lose adds up.
        self._lengths = _row_squares(inputs, _SMALL, _WIDE // 4)
        squares = _row_squares(gradients, _SMALL, _WIDE // 4) * (self._lengths + biases)
        if self._positions == 1:
            self.squares = squares
        else:
            self.squares = self._ghost(batch)
            self.mass = squares.sqrt().view(len(squares), batch, -1).sum(2)
            # The terms of a gradient may cancel, and what is left of them in the sum is rounding: at most as many
            # units of it on each term as there are terms.
            self.slack = self.mass * (self._positions * torch.finfo(gradients.dtype).eps)

    def _ghost(self, batch: int) -> Tensor:
        clients = len(self._inputs)
        a = self._inputs.reshape(clients * batch, self._positions, -1).double()
        g = self._gradients.reshape(clients * batch, self._positions, -1).double()
        pairs = (torch.bmm(a, a.transpose(1, 2)) + self._biases) * torch.bmm(g, g.transpose(1, 2))
        # The sum of a Gram matrix is not negative; its rounding may be.
        return pairs.sum((1, 2)).clamp(min=0.0).view(clients, batch)

    def written_out(self) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        clients, batch = len(self._inputs), self._inputs.shape[1] // self._positions
        return written_products(self._inputs, self._gradients, clients, batch, self._biases)

    def summed(self, factors: Tensor, keep: Tensor, clean: bool) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`: the weight's sum, then each bias's."""
        inputs, gradients = self._inputs, self._gradients
        if self._positions > 1:
            factors = factors.repeat_interleave(self._positions, 1)
            keep = keep.repeat_interleave(self._positions, 1)
        scaled = gradients * factors.unsqueeze(2)
        # Also where the maximum is NaN, which hides the others.
        if self._norms and not float(self._lengths.max()) <= _LONG_INPUTS:
            scaled = torch.where(self._denormal(scaled).unsqueeze(2), 0.0, scaled)
        if not clean:
            # A dropped example's zero gradient meets its inputs, which is only zero if these are finite.
            scaled = torch.where(keep.unsqueeze(2), scaled, 0.0)
            inputs = torch.where(keep.unsqueeze(2), inputs, 0.0)
        transposed = scaled.transpose(1, 2)
        weight = aligned_product(transposed, inputs)
        if not self._biases:
            return (weight,)
        ones = inputs.new_ones(len(inputs), inputs.shape[1], 1)
        return (weight, *[aligned_product(transposed, ones)[:, :, 0]] * self._biases)

    def _denormal(self, scaled: Tensor) -> Tensor:
        """``(clients, batch * positions)``: examples to leave out, since a long input meets a denormal gradient.

        Scaling rounded that gradient to few digits, and the input makes the error as large as the clip. The whole
        example goes: its other positions may need this one to cancel.
        """
        tiny = torch.finfo(scaled.dtype).tiny
        rows = (self._lengths > _LONG_INPUTS) & ((scaled != 0.0) & (scaled.abs() < tiny)).any(2)
        examples = rows.view(len(rows), -1, self._positions).any(2)
        return examples.repeat_interleave(self._positions, 1)


def joined(calls: Sequence[Call], batch: int) -> tuple[Tensor, Tensor]:
    """Inputs and gradients of a layer's calls, which become further positions of the same example.

    Returns:
        Both ``(clients, batch * positions, values)``.
    """
    if len(calls) == 1:
        return calls[0].inputs, calls[0].gradients
    inputs, gradients = (
        torch.cat([part.unflatten(1, (batch, -1)) for part in side], 2).flatten(1, 2)
        for side in zip(*[(call.inputs, call.gradients) for call in calls], strict=True)
    )
    return inputs, gradients


def instantiates(positions: int, width: int, outputs: int) -> bool:
    """Whether a matrix product's gradients are smaller written out than as pairs of positions.

    Counts multiplications for one example; those of the pairs are in double precision, and cost twice as much.
    """
    return positions > 1 and 2 * positions * (width + outputs) > width * outputs


def matrix_product(
    inputs: Tensor, gradients: Tensor, batch: int, *, biases: int, norms: bool = True
) -> Contribution:
    """The contribution of ``outputs = inputs @ weight.T + bias``: whichever form is smaller, by shape alone.

    Args:
        inputs: ``(clients, batch * positions, inputs)``.
        gradients: ``(clients, batch * positions, outputs)``.
        batch: Examples for each client.
        biases: How many biases are added, each with the same gradient.
        norms: Whether norms are wanted: sums alone need no gradients written out.

    Returns:
        One whose sums are those of the weight ``(clients, outputs, inputs)``, then of each bias
        ``(clients, outputs)``.
    """
    clients, rows, width = inputs.shape
    if not norms or not instantiates(rows // batch, width, gradients.shape[2]):
        return OuterProducts(inputs, gradients, batch, biases, norms=norms)
    return Instantiated(*written_products(inputs, gradients, clients, batch, biases))


def written_products(
    inputs: Tensor, gradients: Tensor, clients: int, batch: int, biases: int
) -> tuple[Tensor, ...]:
    """``(clients, batch, outputs, inputs)`` gradients by the weight, then by each bias without ``inputs``."""
    a, g = (part.reshape(clients * batch, -1, part.shape[2]) for part in (inputs, gradients))
    weight = torch.bmm(g.transpose(1, 2), a).view(clients, batch, g.shape[2], a.shape[2])
    bias = [bias_gradients(g).reshape(clients, batch, -1)] * biases
    return (weight, *bias)


def bias_gradients(gradients: Tensor) -> Tensor:
    """``(examples, outputs)`` sum over positions of ``(examples, positions, outputs)``."""
    return gradients.sum(1)
