"""The rules: which layers can be stacked, and by what."""

from collections.abc import Mapping

from torch import nn

from fedsafe.client.stacked.layers.attention import StackedMultiheadAttention
from fedsafe.client.stacked.layers.base import (
    Call,
    Contribution,
    Slots,
    StackedLayer,
    Tap,
    Tapped,
    Taps,
    UnreadableParameter,
)
from fedsafe.client.stacked.layers.conv import StackedConv
from fedsafe.client.stacked.layers.conv_transpose import StackedConvTranspose
from fedsafe.client.stacked.layers.embedding import StackedEmbedding
from fedsafe.client.stacked.layers.gru import StackedGRU
from fedsafe.client.stacked.layers.linear import StackedLinear
from fedsafe.client.stacked.layers.lstm import StackedLSTM
from fedsafe.client.stacked.layers.norm import StackedGroupNorm, StackedLayerNorm, StackedRMSNorm
from fedsafe.client.stacked.layers.rnn import StackedRNN

__all__ = [
    "RULES",
    "Call",
    "Contribution",
    "Slots",
    "StackedLayer",
    "Tap",
    "Tapped",
    "Taps",
    "UnreadableParameter",
]

# Layer type -> how to stack it. A subclass may change `forward`, so only the exact type matches.
RULES: Mapping[type[nn.Module], type[StackedLayer]] = {
    nn.Linear: StackedLinear,
    nn.Conv1d: StackedConv,
    nn.Conv2d: StackedConv,
    nn.Conv3d: StackedConv,
    nn.ConvTranspose1d: StackedConvTranspose,
    nn.ConvTranspose2d: StackedConvTranspose,
    nn.ConvTranspose3d: StackedConvTranspose,
    nn.Embedding: StackedEmbedding,
    nn.LayerNorm: StackedLayerNorm,
    nn.GroupNorm: StackedGroupNorm,
    nn.RMSNorm: StackedRMSNorm,
    nn.LSTM: StackedLSTM,
    nn.GRU: StackedGRU,
    nn.RNN: StackedRNN,
    nn.MultiheadAttention: StackedMultiheadAttention,
}
