"""The rules: which layers can be stacked, and by what."""

from collections.abc import Mapping

from torch import nn

from fedsafe.client.stacked.layers.base import Call, Contribution, Slots, StackedLayer, Tap, Tapped
from fedsafe.client.stacked.layers.conv import StackedConv2d
from fedsafe.client.stacked.layers.embedding import StackedEmbedding
from fedsafe.client.stacked.layers.linear import StackedLinear
from fedsafe.client.stacked.layers.lstm import StackedLSTM
from fedsafe.client.stacked.layers.norm import StackedGroupNorm, StackedLayerNorm

__all__ = ["RULES", "Call", "Contribution", "Slots", "StackedLayer", "Tap", "Tapped"]

# Layer type -> how to stack it. A subclass may change `forward`, so only the exact type matches.
RULES: Mapping[type[nn.Module], type[StackedLayer]] = {
    nn.Linear: StackedLinear,
    nn.Conv2d: StackedConv2d,
    nn.Embedding: StackedEmbedding,
    nn.LayerNorm: StackedLayerNorm,
    nn.GroupNorm: StackedGroupNorm,
    nn.LSTM: StackedLSTM,
}
