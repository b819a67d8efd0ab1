"""Public features, and what is trained on them."""

from typing import Self

from torch import Tensor, nn

from fedsafe.errors import ModelError


class FixedFeatures(nn.Module):
    """A model whose first part is public and never trained: only the head learns, and only the head costs privacy.

    Training may apply the fixed part to all records once (:func:`fedsafe.client.precompute`); attacks and judges see
    the whole, from raw inputs to outputs.

    Args:
        fixed: From inputs to features; each example's from it alone. Its parameters, if any, must be frozen
            (``requires_grad_(False)``). It stays in evaluation mode.
        head: From features to outputs.

    Raises:
        ModelError: A part is no ``nn.Module``.
    """

    def __init__(self, fixed: nn.Module, head: nn.Module) -> None:
        super().__init__()
        for name, part in (("fixed", fixed), ("head", head)):
            if not isinstance(part, nn.Module):
                raise ModelError(
                    f"FixedFeatures needs an nn.Module as its {name} part, not {part!r}: put the function into the "
                    "forward of one"
                )
        self.fixed = fixed
        self.head = head
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the head alone: dropout or statistics of a batch are no public features."""
        super().train(mode)
        self.fixed.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """``(n, ...)`` inputs to ``(n, ...)`` outputs."""
        outputs: Tensor = self.head(self.fixed(x))
        return outputs
