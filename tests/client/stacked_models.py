"""Small models of every kind that the stacked engine has rules for, and data that fits them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsafe.data import Signature
from fedsafe.models import build_model


class CalledTwice(nn.Module):
    """One layer, used at two places: the gradient of its weight is a sum."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(12, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.body(torch.relu(self.body(x)))))


class Positions(nn.Module):
    """A linear layer over several positions of an example."""

    def __init__(self, positions, outputs, width=12):
        super().__init__()
        self.positions = positions
        self.inner = nn.Linear(12 // positions, width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        hidden = torch.tanh(self.inner(x.view(x.shape[0], self.positions, -1)))
        return self.head(hidden.sum(1))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(12, 12, bias=False)
        self.head = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4))

    def forward(self, x):
        return self.head(x + torch.relu(self.one(x)))


class Views(nn.Module):
    """The usual small image model, with a ``view`` that needs contiguous memory and operations in place."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(4, 6, 2)
        self.norm = nn.GroupNorm(3, 6)
        self.head = nn.Linear(6 * 9, 3)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu_(self.conv1(x)), 2, 1, padding=1)
        x = nn.functional.avg_pool2d(torch.relu_(self.norm(self.conv2(x))), 2, 1)
        return self.head(x.view(len(x), -1))


class ResidualImages(nn.Module):
    """Residual blocks with group norms; one convolution is called twice, at two sizes."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(2, 4), nn.GroupNorm(4, 4, affine=False), nn.GroupNorm(1, 8)])
        self.same = nn.Conv2d(4, 4, (3, 2), padding="same", dilation=(1, 2))
        self.wider = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(4, 8, 1, stride=2)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.norms[0](self.stem(x)))
        x = torch.relu(x + self.norms[1](self.same(x)))
        small = nn.functional.max_pool2d(x, 2)
        x = x + self.same(small).repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = torch.relu(self.norms[2](self.wider(x)) + self.shortcut(x))
        return self.head(x.mean((2, 3)))


class Words(nn.Module):
    """Embedding, LSTM, a head at every position or at the last."""

    def __init__(self, *, outputs, every, layers=1, batch_first=True, bias=True, padding=None, hidden=6):
        super().__init__()
        self.every, self.batch_first = every, batch_first
        self.embedding = nn.Embedding(7, 5, padding_idx=padding)
        self.lstm = nn.LSTM(5, hidden, layers, batch_first=batch_first, bias=bias)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x):
        x = self.embedding(x)
        hidden, (final, cell) = self.lstm(x if self.batch_first else x.transpose(0, 1))
        if not self.every:
            return self.head(final[-1] + cell[-1])
        return self.head(hidden if self.batch_first else hidden.transpose(0, 1))


class Attends(nn.Module):
    """A transformer's block without its softmax: embeddings by token and by place, norms, products of positions."""

    def __init__(self, width=8, outputs=7):
        super().__init__()
        self.tokens, self.places = nn.Embedding(7, width), nn.Embedding(9, width)
        self.norm, self.last = nn.LayerNorm(width), nn.LayerNorm(width, bias=False)
        self.keys, self.values = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))
        self.head = nn.Linear(width, outputs, bias=False)

    def forward(self, x):
        places = torch.arange(x.shape[1]).expand(x.shape)
        h = self.tokens(x) + self.places(places)
        n = self.norm(h)
        weights = torch.softmax(self.keys(n) @ n.transpose(1, 2), 2)
        h = h + weights @ self.values(n)
        return self.head(self.last(h + self.mlp(h)))


class ChangedInPlace(nn.Module):
    """Changes what a layer has given, after the layer has taken note of it; one layer is called twice."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        hidden = self.one(torch.tanh(self.one(x)))
        hidden += 0.5 * x
        hidden *= 2.0
        return self.two(hidden)


class SequencesTwice(nn.Module):
    """Everything that reads sequences, at two places: the second reading starts where the first has ended."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 5, padding_idx=3)
        self.norm = nn.LayerNorm(5)
        self.lstm = nn.LSTM(5, 5, 2, batch_first=True)
        self.head = nn.Linear(5, 7)

    def forward(self, x):
        first, state = self.lstm(self.norm(self.embedding(x)))
        second, _ = self.lstm(self.norm(first + self.embedding(x.flip(1))), state)
        return self.head(second)


class ImagesTwice(nn.Module):
    """A kernel with its own stride, padding and dilation down and across; a norm at two places."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1))
        self.norm = nn.GroupNorm(2, 2)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        x = torch.tanh(self.norm(self.conv(x)))
        x = torch.tanh(self.norm(self.conv(x)))
        return self.head(x.mean((2, 3)))


@dataclass(frozen=True)
class Case:
    """A model and what it is for."""

    make: Callable[[], nn.Module]
    signature: Signature

    def data(
        self, count: int, dtype: torch.dtype = torch.float32, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Random inputs and targets from torch's global generator."""
        s = self.signature
        if s.vocabulary is None:
            x = scale * torch.randn(count, *s.inputs, dtype=dtype)
        else:
            x = torch.randint(0, s.vocabulary, (count, *s.inputs))
        if s.kind == "regression":
            return x, torch.rand(count, dtype=dtype) * 2.0 - 1.0
        shape = (count, *s.outputs[:-1])
        return x, torch.randint(0, s.classes, shape)


def _table(outputs, kind=None):
    kind = kind or ("binary" if outputs == 1 else "multiclass")
    classes = 0 if kind == "regression" else max(2, outputs)
    return Signature(kind=kind, inputs=(12,), outputs=(outputs,), classes=classes)


def _images(channels, side=8):
    return Signature(kind="multiclass", inputs=(channels, side, side), outputs=(3,), classes=3)


def _tokens(outputs=None):
    if outputs is None:
        return Signature(kind="next_token", inputs=(9,), outputs=(9, 7), classes=7, vocabulary=7)
    return Signature(kind="multiclass", inputs=(9,), outputs=(outputs,), classes=outputs, vocabulary=7)


def _shipped(spec, signature):
    return Case(lambda: build_model(spec, signature=signature, seed=5), signature)


CASES = {
    "logistic": Case(lambda: nn.Linear(12, 1), _table(1)),
    "linear without bias": Case(lambda: nn.Linear(12, 3, bias=False), _table(3)),
    "regression": Case(
        lambda: nn.Sequential(nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 1)), _table(1, "regression")
    ),
    "mlp": Case(lambda: nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3)), _table(3)),
    "in place": Case(
        lambda: nn.Sequential(nn.Linear(12, 16), nn.ReLU(inplace=True), nn.Linear(16, 3)), _table(3)
    ),
    "deep": Case(
        lambda: nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)),
        _table(1),
    ),
    "called twice": Case(CalledTwice, _table(3)),
    "ghost norm": Case(lambda: Positions(2, 3, 24), _table(3)),
    "instantiated norm": Case(lambda: Positions(6, 1), _table(1)),
    "residual": Case(Residual, _table(4)),
    "normalised mlp": Case(
        lambda: nn.Sequential(
            nn.LayerNorm(12),
            nn.Linear(12, 16),
            nn.LayerNorm(16),
            nn.GELU(),
            nn.GroupNorm(4, 16),
            nn.Linear(16, 3),
        ),
        _table(3),
    ),
    "images": Case(Views, _images(1)),
    "residual images": Case(ResidualImages, _images(2)),
    "lstm": Case(lambda: Words(outputs=7, every=True), _tokens()),
    "deep lstm": Case(lambda: Words(outputs=3, every=False, layers=2, batch_first=False), _tokens(3)),
    "lstm without bias": Case(lambda: Words(outputs=3, every=False, bias=False, padding=2), _tokens(3)),
    "wide lstm": Case(lambda: Words(outputs=7, every=True, hidden=40), _tokens()),
    "attention": Case(Attends, _tokens()),
    "bag of words": Case(
        lambda: nn.Sequential(
            nn.Embedding(7, 4, padding_idx=0), nn.AdaptiveAvgPool2d((1, 4)), nn.Flatten(), nn.Linear(4, 3)
        ),
        _tokens(3),
    ),
    "changed in place": Case(ChangedInPlace, _table(3)),
    "sequences twice": Case(SequencesTwice, _tokens()),
    "images twice": Case(ImagesTwice, _images(2, 6)),
    "shipped logistic": _shipped("logistic", _images(2, 3)),
    "shipped mlp": _shipped({"name": "mlp", "hidden": [9]}, _images(1, 4)),
    "shipped cnn": _shipped("cnn", _images(1, 14)),
    "shipped resnet": _shipped({"name": "resnet", "width": 4, "groups": 2}, _images(1, 6)),
    "shipped lstm": _shipped({"name": "lstm", "embedding": 3, "hidden": 8}, _tokens()),
}

# What stock Opacus cannot take: most layers called twice, an operation in place, a LayerNorm without bias, and a
# padding token, to whose vector it gives a gradient.
NOT_FOR_OPACUS = (
    "in place",
    "images",
    "attention",
    "lstm without bias",
    "bag of words",
    "changed in place",
    "sequences twice",
)
