"""Models that tie, freeze or read their parameters themselves."""

import torch
from torch import nn


class TiedLanguageModel(nn.Module):
    """Embedding and output share their weight, as language models do; positions are a plain parameter."""

    def __init__(self, positions=False):
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.inner = nn.Linear(5, 5)
        self.head = nn.Linear(5, 7)
        self.head.weight = self.embed.weight
        self.positions = nn.Parameter(0.3 * torch.randn(1, 9, 5)) if positions else None

    def forward(self, x):
        x = self.embed(x)
        x = x if self.positions is None else x + self.positions[:, : x.size(1)]
        return self.head(torch.tanh(self.inner(x)))


class ReadsItsEmbedding(nn.Module):
    """The same tie, written as an operation on the embedding's weight."""

    def __init__(self):
        super().__init__()
        self.embed, self.inner = nn.Embedding(7, 5), nn.Linear(5, 5)

    def forward(self, x):
        return nn.functional.linear(torch.tanh(self.inner(self.embed(x))), self.embed.weight)


class TiedTables(nn.Module):
    """Two layers with one weight and a bias each, one of them called twice, and a bias that is shared alone."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 3)
        self.two.weight = self.one.weight
        self.norm, self.other = nn.LayerNorm(12), nn.LayerNorm(12)
        self.other.bias = self.norm.bias

    def forward(self, x):
        x = self.norm(torch.tanh(self.two(torch.relu(self.one(self.one(x))))))
        return self.head(self.other(x))


class TiedImages(nn.Module):
    """Two convolutions with one kernel."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, stride=2, bias=False)
        self.two.weight = self.one.weight
        self.head = nn.Linear(2 * 9, 3)

    def forward(self, x):
        return self.head(self.two(torch.tanh(self.one(x))).flatten(1))


class PartlyFrozen(nn.Module):
    """A whole layer, a weight and a bias that are not trained."""

    def __init__(self):
        super().__init__()
        self.fixed, self.bias_only, self.weight_only = nn.Linear(12, 10), nn.Linear(10, 8), nn.Linear(8, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)
        for parameter in (
            *self.fixed.parameters(),
            self.bias_only.weight,
            self.weight_only.bias,
            self.norm.weight,
        ):
            parameter.requires_grad_(False)

    def forward(self, x):
        x = torch.tanh(self.bias_only(torch.relu(self.fixed(x))))
        return self.head(self.norm(self.weight_only(x)))


class FrozenImages(nn.Module):
    """A convolution that is not trained before one whose kernel is not."""

    def __init__(self):
        super().__init__()
        self.fixed, self.own = nn.Conv2d(1, 3, 3, stride=2), nn.Conv2d(3, 4, 2)
        self.norm, self.head = nn.GroupNorm(2, 4), nn.Linear(16, 3)
        for parameter in (*self.fixed.parameters(), self.own.weight, self.norm.bias):
            parameter.requires_grad_(False)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.own(torch.relu(self.fixed(x))))).flatten(1))


class Scales(nn.Module):
    """Scalars, vectors and a matrix of its own, in a list too; a branch that a residual joins."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(12, 12)
        self.gain = nn.Parameter(torch.randn(()))
        self.mix = nn.Parameter(0.3 * torch.randn(12, 12))
        self.shifts = nn.ParameterList([torch.randn(12), torch.randn(12)])
        self.unused = nn.Parameter(torch.randn(4))
        self.slope = nn.PReLU(12)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        y = self.slope(self.one(x) * self.gain + self.shifts[0])
        x = x + torch.tanh(y @ self.mix) if self.training else x
        return self.head(x - self.shifts[1])


class VisionTransformer(nn.Module):
    """Patches, a class token, learned positions, attention: the usual shape of such a model."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 6, 4, stride=4)
        self.token = nn.Parameter(0.5 * torch.randn(1, 1, 6))
        self.places = nn.Parameter(0.5 * torch.randn(1, 5, 6))
        self.norm, self.project, self.out = nn.LayerNorm(6), nn.Linear(6, 18), nn.Linear(6, 6)
        self.numbers = nn.Embedding(5, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.size(0), -1, -1), x], 1) + self.places
        x = x + self.numbers(torch.arange(x.size(1)))
        q, k, v = self.project(self.norm(x)).chunk(3, -1)
        weights = torch.softmax(q @ k.transpose(1, 2) / 6**0.5, -1)
        return self.head((x + self.out(weights @ v))[:, 0])


class ReadsTheWeight(nn.Module):
    """A layer that only lends its parameters."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(12, 3)

    def forward(self, x):
        return nn.functional.linear(x, self.one.weight, self.one.bias)


class WeightUsedTwice(nn.Module):
    """Uses a weight in its layer and outside it."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(12, 12)

    def forward(self, x):
        return nn.functional.linear(torch.relu(self.one(x)), self.one.weight)[:, :3]


class LearnedState(nn.Module):
    """Recurrent layers that start from parameters, steps first and examples first."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.gru, self.lstm = nn.GRU(4, 5, batch_first=True), nn.LSTM(5, 3, num_layers=2)
        self.start = nn.Parameter(torch.randn(1, 1, 5))
        self.hidden, self.cell = nn.Parameter(torch.randn(2, 1, 3)), nn.Parameter(torch.randn(2, 1, 3))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        count = x.size(0)
        y, _ = self.gru(self.embed(x), self.start.expand(-1, count, -1).contiguous())
        state = tuple(part.expand(-1, count, -1).contiguous() for part in (self.hidden, self.cell))
        _, (hidden, cell) = self.lstm(y.transpose(0, 1), state)
        return self.head(torch.cat([hidden[1], cell[0]], 1))
