"""Small models of every kind that the stacked engine has rules for, and data that fits them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from shared_models import (
    FrozenImages,
    LearnedState,
    PartlyFrozen,
    ReadsItsEmbedding,
    ReadsTheWeight,
    Scales,
    TiedImages,
    TiedLanguageModel,
    TiedTables,
    VisionTransformer,
    WeightUsedTwice,
)
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


class Reads(nn.Module):
    """A recurrent network over embedded tokens, read twice: the second reading starts where the first has ended."""

    def __init__(self, kind, *, twice=False, hidden=6, batch_first=True, **options):
        super().__init__()
        self.twice, self.batch_first = twice, batch_first
        self.embedding = nn.Embedding(7, 5)
        self.reader = kind(5, hidden, batch_first=batch_first, **options)
        self.head = nn.Linear(hidden * (2 if options.get("bidirectional") else 1), 7)

    def forward(self, x):
        x = self.embedding(x)
        x = x if self.batch_first else x.transpose(0, 1)
        hidden, state = self.reader(x)
        if self.twice:
            again, state = self.reader(x.flip(1), state)
            hidden = hidden + again
        last = state[0] + state[1] if isinstance(state, tuple) else state
        hidden = hidden + last[-1, :, :1].unsqueeze(1 if self.batch_first else 0)
        return self.head(hidden if self.batch_first else hidden.transpose(0, 1))


class Attention(nn.Module):
    """``nn.MultiheadAttention`` in every way of calling it."""

    def __init__(self, mode, **options):
        super().__init__()
        self.mode, self.batch_first = mode, options.get("batch_first", False)
        self.tokens, self.places = nn.Embedding(7, 8), nn.Embedding(9, 8)
        self.narrow, self.wide = nn.Linear(8, options.get("kdim", 8)), nn.Linear(8, options.get("vdim", 8))
        self.attention = nn.MultiheadAttention(8, 2, **options)
        self.head = nn.Linear(8, 7)

    def forward(self, x):
        h = self.tokens(x) + self.places(torch.arange(x.shape[1]).expand(x.shape))
        later = torch.ones(9, 9, dtype=torch.bool).triu(1)
        unread = (x == 2) & (torch.arange(9) > 0)
        turned = h if self.batch_first else h.transpose(0, 1)
        if self.mode == "self":
            mixed, _ = self.attention(
                turned, turned, turned, attn_mask=later, need_weights=False, is_causal=True
            )
        elif self.mode == "weights":
            mixed, weights = self.attention(turned, turned, turned, unread, attn_mask=later)
            mixed = (
                mixed
                + (weights.square().sum(2) if self.batch_first else weights.square().sum(2).T)[..., None]
            )
        elif self.mode == "cross":
            slopes = torch.arange(9.0, dtype=h.dtype).sub(torch.arange(9).unsqueeze(1)).abs()
            slopes = slopes.mul(-0.1).expand(len(x) * 2, 9, 9)
            mixed, weights = self.attention(
                turned,
                self.narrow(turned.roll(1, 2)),
                self.wide(turned),
                attn_mask=slopes,
                average_attn_weights=False,
            )
            mixed = mixed * weights[..., 0].sum(1).view(len(x), 9, 1)
        else:
            memory = self.narrow(turned[:, :4])
            mixed, _ = self.attention(turned, turned, turned, unread, need_weights=False)
            mixed, _ = self.attention(mixed, memory, memory, need_weights=False)
        return self.head(mixed if self.batch_first else mixed.transpose(0, 1))


class Transformer(nn.Module):
    """Encoder and decoder layers as torch ships them."""

    def __init__(self, *, norm_first, decodes=False):
        super().__init__()
        self.tokens = nn.Embedding(7, 8)
        options = {"dropout": 0.0, "batch_first": True, "norm_first": norm_first}
        layer = nn.TransformerEncoderLayer(8, 2, 12, activation="gelu" if norm_first else "relu", **options)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(8), enable_nested_tensor=not norm_first)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 12, **options), 1)
        self.decodes = decodes
        if not decodes:
            del self.decoder
        self.head = nn.Linear(8, 7)

    def forward(self, x):
        h = self.tokens(x)
        mask = nn.Transformer.generate_square_subsequent_mask(9, dtype=h.dtype)
        if self.decodes:
            unread = (x == 2) & (torch.arange(9) > 0)
            memory = self.encoder(h, src_key_padding_mask=unread)
            return self.head(self.decoder(h.flip(1), memory, mask, memory_key_padding_mask=unread))
        return self.head(self.encoder(h, mask, is_causal=True))


class OwnTransformer(nn.Module):
    """A block as people write it: one projection for queries, keys and values, RMS norms, a gated layer."""

    def __init__(self, width=8):
        super().__init__()
        self.tokens = nn.Embedding(7, width)
        self.one, self.two = nn.RMSNorm(width), nn.RMSNorm(width, eps=1e-5)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.gate, self.up, self.down = nn.Linear(width, 12), nn.Linear(width, 12), nn.Linear(12, width)
        self.head = nn.Linear(width, 7)

    def forward(self, x):
        h = self.tokens(x)
        q, k, v = (part.unflatten(2, (2, -1)).transpose(1, 2) for part in self.qkv(self.one(h)).chunk(3, 2))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        n = self.two(h)
        return self.head(h + self.down(nn.functional.silu(self.gate(n)) * self.up(n)))


class Sequential1d(nn.Module):
    """Convolutions over time: groups, dilation, a border that is mirrored, and one that is transposed."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv1d(2, 4, 4, stride=2, padding=3)
        self.mirrored = nn.Conv1d(
            4, 6, 3, padding=2, dilation=2, groups=2, padding_mode="reflect", bias=False
        )
        self.back = nn.ConvTranspose1d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.tanh(self.mirrored(torch.tanh(self.wide(x))))
        return self.head(torch.tanh(self.back(x)).mean(2))


class Volumes(nn.Module):
    """Convolutions of three dimensions, forth and back."""

    def __init__(self):
        super().__init__()
        self.forth = nn.Conv3d(2, 4, (1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 1), groups=2)
        self.round = nn.Conv3d(4, 2, 3, padding=(1, 2, 1), dilation=(1, 2, 1), padding_mode="circular")
        self.back = nn.ConvTranspose3d(2, 2, 2, stride=(2, 1, 1), bias=False)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        x = torch.tanh(self.round(torch.tanh(self.forth(x))))
        return self.head(torch.tanh(self.back(x)).mean((2, 3, 4)))


class Depthwise(nn.Module):
    """Each channel by its own kernels, then all channels place by place; borders of every kind."""

    def __init__(self):
        super().__init__()
        self.each = nn.Conv2d(2, 4, 3, groups=2, padding=1, padding_mode="replicate")
        self.all = nn.Conv2d(4, 6, 1)
        self.twice = nn.Conv2d(6, 6, (3, 2), groups=6, padding="same", padding_mode="circular", bias=False)
        self.pairs = nn.Conv2d(6, 3, 3, stride=2, groups=3, padding=1, dilation=2)
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        x = torch.tanh(self.all(torch.tanh(self.each(x))))
        x = torch.tanh(self.twice(torch.relu(self.twice(x))))
        return self.head(self.pairs(x).flatten(2).sum(2))


class ThereAndBack(nn.Module):
    """Transposed convolutions with every option, one called twice and one with a size asked for."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, groups=2, dilation=(1, 2))
        self.wide = nn.ConvTranspose2d(4, 2, (2, 4), stride=(1, 3), padding=(0, 1), output_padding=(0, 2))
        self.point = nn.ConvTranspose2d(2, 5, 1, bias=False)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = torch.tanh(self.up(torch.tanh(self.down(x)), output_size=(8, 10)))
        x = torch.tanh(self.up(torch.nn.functional.avg_pool2d(x, 2)))
        return self.head(self.point(torch.tanh(self.wide(x))).mean((2, 3)))


class SharedAttention(nn.Module):
    """Two attention layers with one packed projection, whose bias one of them does not train; a GRU frozen in part."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(7, 8)
        self.one, self.two = (nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
        self.two.in_proj_weight = self.one.in_proj_weight
        self.one.in_proj_bias.requires_grad_(False)
        self.reader = nn.GRU(8, 8, batch_first=True)
        self.reader.weight_ih_l0.requires_grad_(False)
        self.reader.bias_hh_l0.requires_grad_(False)
        self.head = nn.Linear(8, 7)

    def forward(self, x):
        h = self.tokens(x)
        h = h + self.one(h, h, h, need_weights=False)[0]
        return self.head(self.reader(h + self.two(h, h.flip(1), h, need_weights=False)[0])[0])


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


def _pairs(*inputs, outputs=1):
    kind = "binary" if outputs == 1 else "multiclass"
    return Signature(kind=kind, inputs=(2, *inputs), outputs=(outputs,), classes=max(2, outputs))


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
    "convolutions over time": Case(
        Sequential1d, Signature(kind="multiclass", inputs=(2, 13), outputs=(3,), classes=3)
    ),
    "volumes": Case(Volumes, Signature(kind="multiclass", inputs=(2, 4, 5, 6), outputs=(3,), classes=3)),
    "depthwise": Case(Depthwise, _images(2, 6)),
    "there and back": Case(ThereAndBack, _images(1)),
    "bidirectional lstm": Case(
        lambda: Reads(nn.LSTM, bidirectional=True, num_layers=2, twice=True), _tokens()
    ),
    "gru": Case(lambda: Reads(nn.GRU), _tokens()),
    "deep gru": Case(
        lambda: Reads(nn.GRU, num_layers=2, bidirectional=True, batch_first=False, bias=False), _tokens()
    ),
    "wide gru": Case(lambda: Reads(nn.GRU, hidden=40), _tokens()),
    "gru twice": Case(lambda: Reads(nn.GRU, twice=True, num_layers=2), _tokens()),
    "rnn": Case(lambda: Reads(nn.RNN, twice=True, bidirectional=True), _tokens()),
    "deep relu rnn": Case(
        lambda: Reads(nn.RNN, nonlinearity="relu", num_layers=2, batch_first=False, bias=False), _tokens()
    ),
    "self attention": Case(lambda: Attention("self"), _tokens()),
    "attention weights": Case(lambda: Attention("weights", batch_first=True, bias=False), _tokens()),
    "cross attention": Case(lambda: Attention("cross", batch_first=True, kdim=5, vdim=6), _tokens()),
    "attention twice": Case(lambda: Attention("twice", batch_first=True), _tokens()),
    "transformer": Case(lambda: Transformer(norm_first=False), _tokens()),
    "encoder and decoder": Case(lambda: Transformer(norm_first=True, decodes=True), _tokens()),
    "own transformer": Case(OwnTransformer, _tokens()),
    "shared attention": Case(SharedAttention, _tokens()),
    "tied language model": Case(TiedLanguageModel, _tokens()),
    "tied with positions": Case(lambda: TiedLanguageModel(positions=True), _tokens()),
    "reads its embedding": Case(ReadsItsEmbedding, _tokens()),
    "tied tables": Case(TiedTables, _table(3)),
    "tied images": Case(TiedImages, _images(2)),
    "partly frozen": Case(PartlyFrozen, _table(3)),
    "frozen images": Case(FrozenImages, _images(1)),
    "scales": Case(Scales, _table(3)),
    "vision transformer": Case(VisionTransformer, _images(1)),
    "learned state": Case(LearnedState, _tokens(3)),
    "reads the weight": Case(ReadsTheWeight, _table(3)),
    "weight used twice": Case(WeightUsedTwice, _table(3)),
    "shipped logistic": _shipped("logistic", _images(2, 3)),
    "shipped mlp": _shipped({"name": "mlp", "hidden": [9]}, _images(1, 4)),
    "shipped cnn": _shipped("cnn", _images(1, 14)),
    "shipped resnet": _shipped({"name": "resnet", "width": 4, "groups": 2}, _images(1, 6)),
    "shipped lstm": _shipped({"name": "lstm", "embedding": 3, "hidden": 8}, _tokens()),
    "pairs": _shipped("reward", _pairs(6)),
    "pairs with ties": _shipped({"name": "reward", "heads": 3}, _pairs(6, outputs=3)),
    "trajectories": _shipped(
        {"name": "reward", "hidden": [5], "heads": 2, "activation": "tanh"}, _pairs(4, 5)
    ),
    "trajectories with ties": _shipped({"name": "reward", "heads": 2}, _pairs(4, 5, outputs=3)),
}

# What stock Opacus cannot take, or gives in another order: parameters that are tied, frozen or exposed, most layers
# called twice, an operation in place, a LayerNorm without bias, and a padding token, to whose vector it gives a
# gradient.
NOT_FOR_OPACUS = (
    # Borders of something else than zeros, and transposed convolutions.
    "convolutions over time",
    "volumes",
    "depthwise",
    "there and back",
    "in place",
    "images",
    "attention",
    "lstm without bias",
    "bag of words",
    "changed in place",
    "sequences twice",
    "bidirectional lstm",
    "gru",
    "deep gru",
    "wide gru",
    "gru twice",
    "rnn",
    "deep relu rnn",
    "self attention",
    "attention weights",
    "cross attention",
    "attention twice",
    "transformer",
    "encoder and decoder",
    "shared attention",
    "tied language model",
    "tied with positions",
    "reads its embedding",
    "tied tables",
    "tied images",
    "partly frozen",
    "frozen images",
    "scales",
    "vision transformer",
    "learned state",
    "reads the weight",
    "weight used twice",
)
