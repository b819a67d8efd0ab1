"""Small networks of every kind that has bounds, with fixed weights."""

import torch
from torch import nn

IMAGE = (1, 10, 10)


class Residual(nn.Module):
    """A branch and a shortcut, with operations written as functions and as methods."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Linear(3, 3)
        self.register_buffer("shift", torch.tensor([0.1, -0.2, 0.3]))

    def forward(self, x):
        x = torch.relu(self.first(x) - 0.1)
        x = nn.functional.relu(self.second(x) + x)
        x = nn.functional.adaptive_avg_pool2d(x, 1)
        return self.last(x.view(x.size(0), -1)) * 2.0 + self.shift


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def convolutions(pool):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), pool, nn.Conv2d(4, 4, 2), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(36 if pool.kernel_size == 2 else 16, 8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


def dense(first, second):
    layers = nn.Linear(100, 12), first, nn.Linear(12, 9), second, nn.Linear(9, 3)
    return nn.Sequential(nn.Flatten(), *layers)


def head(width):
    return nn.Flatten(), nn.Linear(width, 3)


MODELS = {
    "perceptron": lambda: dense(nn.ReLU(), nn.ReLU()),
    "one logit": lambda: nn.Sequential(nn.Flatten(), nn.Linear(100, 12), nn.ReLU(), nn.Linear(12, 1)),
    "tanh": lambda: dense(nn.Tanh(), nn.Sigmoid()),
    "max pooling": lambda: convolutions(nn.MaxPool2d(2, 1)),
    "padded max pooling": lambda: convolutions(nn.MaxPool2d(3, 2, padding=1)),
    "average pooling": lambda: convolutions(nn.AvgPool2d(2, 1)),
    "max before relu": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.MaxPool2d(2), *head(3)
    ),
    "residual": Residual,
}  # fmt: skip
