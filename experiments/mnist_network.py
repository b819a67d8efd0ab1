"""The network of the MNIST example of Opacus, with its scaling of the pixels, for ``mnist-central.toml``."""

from torch import Tensor, nn

from fedsafe.models import FixedFeatures
from fedsafe.models.images import cnn

# Mean and standard deviation of the training pixels as the example has them: published constants, not measured here.
MEAN, DEVIATION = 0.1307, 0.3081


class Scaled(nn.Module):
    """Grey values in [0, 1] to about zero mean and unit variance."""

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 1, 28, 28)`` to the same."""
        return (x - MEAN) / DEVIATION


def network(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """26,010 parameters at ``(1, 28, 28)`` and ten classes; only the scaling is fixed."""
    return FixedFeatures(Scaled(), cnn(inputs=inputs, outputs=outputs))
