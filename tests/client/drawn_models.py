"""Random architectures from the rules: layers with random options, residual and branching, tied, frozen and exposed."""

import random

import torch
from torch import nn

FORMS = ("table", "signal", "image", "volume", "sequence", "tokens")
ACTIVATIONS = (torch.tanh, torch.sigmoid, nn.functional.gelu, nn.functional.softplus, torch.sin)


class Drawn(nn.Module):
    """A model of one form of input, drawn from a seed; ``inputs`` is the shape of an example."""

    def __init__(self, form, seed, outputs=3):
        super().__init__()
        draw = random.Random(seed)
        self.form = form
        self.tokens = 6 if form == "tokens" else None
        self.positions = None
        self.embed = None
        width = draw.randint(2, 5)
        if form == "tokens":
            self.inputs = (draw.randint(3, 6),)
            self.embed = nn.Embedding(6, width, padding_idx=draw.choice([None, 0]))
            if draw.random() < 0.4:
                self.positions = nn.Parameter(torch.randn(self.inputs[0], width))
            shape = (*self.inputs, width)
        else:
            spatial = {"table": 0, "signal": 1, "image": 2, "volume": 3, "sequence": 1}[form]
            side = {0: 0, 1: 9, 2: 7, 3: 5}[spatial]
            sizes = [side + draw.randint(0, 1) for _ in range(spatial)]
            shape = (sizes[0], width) if form == "sequence" else (width, *sizes)
            self.inputs = shape
        self.blocks = nn.ModuleList()
        for _ in range(draw.randint(1, 3)):
            self.blocks.append(Block(form, shape, draw))
            shape = self.blocks[-1].out
        self.head = nn.Linear(width if form == "table" and len(shape) == 0 else _flat(shape), outputs)
        self._tie(draw)
        self._freeze(draw)

    def _tie(self, draw):
        """Let two layers of a kind and shape share a weight."""
        if draw.random() < 0.4:
            named = {}
            for layer in self.modules():
                weight = getattr(layer, "weight", None)
                if isinstance(weight, nn.Parameter):
                    named.setdefault((type(layer), tuple(weight.shape)), []).append(layer)
            alike = [layers for layers in named.values() if len(layers) > 1]
            if alike:
                first, second, *_ = draw.choice(alike)
                second.weight = first.weight

    def _freeze(self, draw):
        if draw.random() < 0.4:
            parameters = list(self.parameters())
            for parameter in draw.sample(parameters, draw.randint(1, max(1, len(parameters) // 3))):
                parameter.requires_grad_(False)
        for parameter in self.head.parameters():
            parameter.requires_grad_(True)

    def forward(self, x):
        if self.embed is not None:
            x = self.embed(x)
            x = x if self.positions is None else x + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(x.flatten(1))


def _flat(shape):
    total = 1
    for size in shape:
        total *= size
    return total


class Block(nn.Module):
    """One drawn layer, an activation, and around them nothing, a residual or a second branch."""

    def __init__(self, form, shape, draw):
        super().__init__()
        kinds = SEQUENCES if form in ("sequence", "tokens") else (TABLES if form == "table" else SPATIAL)
        self.kind = draw.choice(kinds)
        self.layer = self.kind(shape, draw)
        self.act = draw.choice(ACTIVATIONS)
        with torch.no_grad():
            self.out = tuple(self.layer(torch.zeros(2, *shape)).shape[1:])
        self.joins = self.out == tuple(shape) and draw.random() < 0.6
        self.twice = self.joins and draw.random() < 0.4
        self.gain = nn.Parameter(torch.randn(())) if draw.random() < 0.2 else None

    def forward(self, x):
        y = self.act(self.layer(x))
        if self.twice:
            y = self.act(self.layer(y))
        y = y if self.gain is None else y * self.gain
        return x + y if self.joins else y


class Recurrent(nn.Module):
    """A recurrent layer with random options; only its outputs are used, or its last state too."""

    def __init__(self, kind, shape, draw):
        super().__init__()
        self.first = draw.random() < 0.6
        options = {"bias": draw.random() < 0.7, "bidirectional": draw.random() < 0.4}
        self.inner = kind(shape[1], draw.randint(2, 4), draw.randint(1, 2), batch_first=self.first, **options)
        self.state = draw.random() < 0.4

    def forward(self, x):
        y, state = self.inner(x if self.first else x.transpose(0, 1))
        y = y if self.first else y.transpose(0, 1)
        state = state[1] if isinstance(state, tuple) else state
        return y + state[-1].mean(1)[:, None, None] if self.state else y


class Attends(nn.Module):
    def __init__(self, shape, draw):
        super().__init__()
        heads = draw.choice([n for n in (1, 2, 3) if shape[1] % n == 0])
        self.first = draw.random() < 0.7
        self.inner = nn.MultiheadAttention(shape[1], heads, bias=draw.random() < 0.7, batch_first=self.first)
        self.weights = draw.random() < 0.5

    def forward(self, x):
        x = x if self.first else x.transpose(0, 1)
        y, _ = self.inner(x, x, x, need_weights=self.weights)
        return y if self.first else y.transpose(0, 1)


class Norm(nn.Module):
    """A group or layer norm with channels where they are."""

    def __init__(self, shape, draw):
        super().__init__()
        groups = draw.choice([n for n in (1, 2, 3, 4) if shape[0] % n == 0])
        if _flat(shape) // groups > 1 and (len(shape) > 1 or draw.random() < 0.5):
            self.inner = nn.GroupNorm(groups, shape[0])
        else:
            self.inner = draw.choice(
                [nn.LayerNorm(shape), nn.LayerNorm(shape, bias=False), nn.RMSNorm(shape)]
            )

    def forward(self, x):
        return self.inner(x)


def _linear(shape, draw):
    return nn.Linear(shape[-1], draw.choice([shape[-1], draw.randint(1, 6)]), bias=draw.random() < 0.7)


def _last_norm(shape, draw):
    width = shape[-1]
    return draw.choice(
        [nn.LayerNorm(width), nn.LayerNorm(shape), nn.LayerNorm(width, bias=False), nn.RMSNorm(width)]
    )


def _convolution(shape, draw):
    channels, dimensions = shape[0], len(shape) - 1
    kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    groups = draw.choice([n for n in (1, 1, 2, 3, channels) if channels % n == 0])
    kernel = tuple(draw.randint(1, 3) for _ in range(dimensions))
    options = {"groups": groups, "bias": draw.random() < 0.7}
    if draw.random() < 0.2:
        # Even kernels would be padded more on one side, of which torch warns.
        kernel = tuple(size - 1 if size == 2 else size for size in kernel)
        options["padding"] = "same"
    else:
        options["stride"] = tuple(draw.randint(1, 2) for _ in range(dimensions))
        options["padding"] = tuple(draw.randint(0, 1) for _ in range(dimensions))
        options["dilation"] = tuple(draw.randint(1, 2) if size < 3 else 1 for size in kernel)
        options["padding_mode"] = draw.choice(["zeros", "zeros", "reflect", "replicate", "circular"])
        if dimensions == 3 and options["padding_mode"] == "reflect":
            options["padding_mode"] = "zeros"
    outputs = groups * draw.randint(1, 2)
    return kind(channels, draw.choice([outputs, channels]), kernel, **options)


def _transposed(shape, draw):
    channels, dimensions = shape[0], len(shape) - 1
    kind = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dimensions]
    groups = draw.choice([n for n in (1, 1, 2, channels) if channels % n == 0])
    stride = tuple(draw.randint(1, 2) for _ in range(dimensions))
    return kind(
        channels,
        groups * draw.randint(1, 2),
        tuple(draw.randint(1, 3) for _ in range(dimensions)),
        stride=stride,
        padding=tuple(draw.randint(0, 1) for _ in range(dimensions)),
        output_padding=tuple(draw.randint(0, step - 1) for step in stride),
        groups=groups,
        bias=draw.random() < 0.7,
    )


def _recurrent(kind):
    return lambda shape, draw: Recurrent(kind, shape, draw)


TABLES = (_linear, _linear, Norm)
SPATIAL = (_convolution, _convolution, _transposed, Norm)
SEQUENCES = (
    _linear,
    _last_norm,
    _recurrent(nn.LSTM),
    _recurrent(nn.GRU),
    _recurrent(nn.RNN),
    Attends,
)
