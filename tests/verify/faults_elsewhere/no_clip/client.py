"""The PyTorch quickstart's client with DP-SGD in place of SGD."""

from collections.abc import Callable

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from no_clip.task import Net, load_data

SAMPLE_RATE = 0.05
STEPS = 5
MAX_GRAD_NORM = 1.0
NOISE_MULTIPLIER = 0.9

Gradients = Callable[[Net, torch.Tensor, torch.Tensor, float], None]


def clipped_gradients(net: Net, x: torch.Tensor, y: torch.Tensor, batch_size: float) -> None:
    """Leave the clipped gradient of the batch in ``net``."""
    loss = F.cross_entropy(net(x), y, reduction="sum") / batch_size
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), MAX_GRAD_NORM)


def clipped_per_example(net: Net, x: torch.Tensor, y: torch.Tensor, batch_size: float) -> None:
    """Leave the mean of the examples' clipped gradients in ``net``."""
    weights = {name: parameter.detach() for name, parameter in net.named_parameters()}
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def loss(weights: dict[str, torch.Tensor], image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(net, weights, image[None]), label[None])

    if len(y):
        examples = vmap(grad(loss), (None, 0, 0))(weights, x, y)
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in examples.values()]).norm(dim=0)
        usable = norms.isfinite()  # by selection: a factor of zero would leave NaN in the sum
        factors = MAX_GRAD_NORM / norms[usable].clamp(min=MAX_GRAD_NORM)
        total = {name: torch.tensordot(factors, each[usable], dims=1) for name, each in examples.items()}
    for name, parameter in net.named_parameters():
        parameter.grad = total[name] / batch_size


def dp_sgd(net: Net, x: torch.Tensor, y: torch.Tensor, lr: float, gradients: Gradients) -> None:
    """Five steps on Poisson batches, each with fresh noise."""
    rng = torch.Generator()
    rng.seed()  # from the operating system
    batch_size = SAMPLE_RATE * len(x)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for _ in range(STEPS):
        batch = torch.rand(len(x), generator=rng) < SAMPLE_RATE
        optimizer.zero_grad()
        gradients(net, x[batch], y[batch], batch_size)
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=rng)
            parameter.grad += NOISE_MULTIPLIER * MAX_GRAD_NORM / batch_size * noise
        optimizer.step()


def client_app(gradients: Gradients) -> ClientApp:
    """A client that trains with these gradients."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        net = Net()
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        trainloader, _ = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])
        x, y = trainloader.dataset.tensors
        dp_sgd(net, x, y, message.content["config"]["lr"], gradients)
        metrics = MetricRecord({"num-examples": len(x)})
        content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
        return Message(content=content, reply_to=message)

    return app


app = client_app(clipped_gradients)
corrected = client_app(clipped_per_example)
