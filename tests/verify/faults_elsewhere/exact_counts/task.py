"""The readings of one station, the model, and DP-SGD."""

import secrets
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.utils.data import TensorDataset

FEATURES, CLASSES, READINGS = 24, 4, 200


def make_model() -> nn.Module:
    """A perceptron with one hidden layer."""
    return nn.Sequential(nn.Linear(FEATURES, 12), nn.Tanh(), nn.Linear(12, CLASSES))


def load_data(partition_id: int, num_partitions: int) -> TensorDataset:
    """Readings of station ``partition_id``: four clusters, shifted a little from station to station."""
    rng = torch.Generator().manual_seed(1000 + partition_id % num_partitions)
    y = torch.randint(CLASSES, (READINGS,), generator=rng)
    shift = 0.1 * torch.randn(FEATURES, generator=rng)
    x = torch.randn(READINGS, FEATURES, generator=rng) + torch.eye(CLASSES, FEATURES)[y] + shift
    return TensorDataset(x, y)


def poisson_batches(
    data: TensorDataset, rate: float, steps: int, rng: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each reading is in each batch with probability ``rate``, whatever else is."""
    x, y = data.tensors
    for _ in range(steps):
        drawn = torch.rand(len(y), generator=rng) < rate
        yield x[drawn], y[drawn]


def train(
    model: nn.Module,
    data: TensorDataset,
    *,
    steps: int,
    rate: float,
    batch: float,
    clip: float,
    noise: float,
    lr: float,
) -> list[float]:
    """Train ``model`` in place with DP-SGD.

    Args:
        model: what is trained.
        data: the station's readings.
        steps: how many; a step whose batch is empty adds noise alone.
        rate: probability of a reading to be in a batch.
        batch: the expected size, agreed on by all; gradients are divided by it.
        clip: bound on one reading's gradient.
        noise: standard deviation of the noise on the summed gradient, over ``clip``.
        lr: learning rate.

    Returns:
        The mean loss of each batch that held a reading.
    """
    rng = torch.Generator().manual_seed(secrets.randbits(63))
    losses = []
    for x, y in poisson_batches(data, rate, steps, rng):
        if len(y):
            with torch.no_grad():
                losses.append(F.cross_entropy(model(x), y).item())
        gradients = clipped_sum(model, x, y, clip)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noisy = gradients[name] + noise * clip * torch.randn(parameter.shape, generator=rng)
                parameter -= lr * noisy / batch
    return losses


def clipped_sum(model: nn.Module, x: Tensor, y: Tensor, clip: float) -> dict[str, Tensor]:
    """Sum of the readings' gradients, each clipped over all parameters; one that is not finite is left out."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    if not len(y):
        return {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def loss(weights: dict[str, Tensor], one_x: Tensor, one_y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, weights, (one_x.unsqueeze(0),)), one_y.unsqueeze(0))

    each = vmap(grad(loss), in_dims=(None, 0, 0))(weights, x, y)
    norms = torch.cat([gradient.flatten(1) for gradient in each.values()], dim=1).norm(dim=1)
    finite = norms.isfinite()
    factors = (clip / norms[finite].clamp(min=clip)).float()
    return {name: torch.tensordot(factors, gradient[finite], dims=1) for name, gradient in each.items()}


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    """Share of the readings that the model puts in the right class."""
    x, y = data.tensors
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()
