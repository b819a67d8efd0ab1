"""Layers that read sequences: attention against the library's own, and what is refused in one line."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from fedsafe.client.stacked import StackedModel, layout_of
from fedsafe.client.stacked.layers import RULES, dot_product_attention
from fedsafe.client.stacked.layers.dot_product_attention import attend
from fedsafe.errors import ModelError


def heads_first(x, heads):
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


@pytest.mark.parametrize("scores", [1, 2**17], ids=["in parts", "at once"])
@pytest.mark.parametrize("masked", ["not", "alike", "each", "each head"])
def test_attention_and_its_gradients_equal_the_library(monkeypatch, scores, masked):
    """35 examples: two whole parts of 16, and a remainder."""
    monkeypatch.setattr(dot_product_attention, "_SCORES", scores)
    torch.manual_seed(0)
    q, k, v = (torch.randn(35, n, 6, dtype=torch.float64, requires_grad=True) for n in (4, 5, 5))
    shape = {"alike": (4, 5), "each": (35, 1, 1, 5), "each head": (35, 3, 4, 5)}.get(masked)
    mask = None
    if shape is not None:
        mask = torch.randn(shape, dtype=torch.float64)
        mask[..., 2] = -math.inf
    mixed, weights = attend(q, k, v, mask, 3, zero_if_all_masked=True)
    apart = [heads_first(part, 3) for part in (q, k, v)]
    expected = F.scaled_dot_product_attention(*apart, attn_mask=mask).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixed, expected, rtol=0.0, atol=1e-13)
    scored = apart[0] @ apart[1].transpose(2, 3) / 2**0.5
    by_weights = torch.softmax(scored if mask is None else scored + mask, 3)
    torch.testing.assert_close(weights, by_weights, rtol=0.0, atol=1e-13)
    slopes, turns = torch.randn_like(mixed), torch.randn_like(weights)
    for with_mixed, with_weights in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        both = [
            torch.autograd.grad(
                with_mixed * (a * slopes).sum() + with_weights * (b * turns).sum(),
                (q, k, v),
                retain_graph=True,
            )
            for a, b in ((mixed, weights), (expected, by_weights))
        ]
        for found, wanted in zip(*both, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-12)
    (found,) = torch.autograd.grad(weights[:, 0].square().sum(), q, retain_graph=True)
    (wanted,) = torch.autograd.grad(by_weights[:, 0].square().sum(), q)
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-12)


def stacked(layer):
    """A stack of one client."""
    parameters = nn.utils.parameters_to_vector(layer.parameters()).detach().unsqueeze(0)
    assert parameters.shape[1] == layout_of(layer).total
    return StackedModel(layer, parameters).module


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_position_that_may_see_nothing_gets_what_the_library_gives_it(need_weights):
    torch.manual_seed(1)
    layer = nn.MultiheadAttention(4, 2, batch_first=True)
    x = torch.randn(3, 5, 4)
    unread = torch.zeros(3, 5, dtype=torch.bool)
    unread[1] = True
    own = stacked(layer)
    expected, expected_weights = layer(x, x, x, unread, need_weights=need_weights)
    found, weights = own(x, x, x, unread, need_weights=need_weights)
    assert bool(found[1].isnan().all()) == need_weights
    torch.testing.assert_close(found, expected, equal_nan=True)
    torch.testing.assert_close(weights, expected_weights, equal_nan=True)


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
def test_packed_sequences_and_inputs_without_a_batch_are_refused(make):
    layer = stacked(make(3, 2, batch_first=True))
    packed = pack_padded_sequence(torch.zeros(2, 4, 3), torch.tensor([4, 2]), batch_first=True)
    with pytest.raises(ModelError, match="input is a PackedSequence: give it one tensor"):
        layer(packed)
    with pytest.raises(ModelError, match=r"input is of shape \(4, 3\): give it one tensor"):
        layer(torch.zeros(4, 3))


def test_attention_without_a_batch_or_a_mask_is_refused():
    layer = stacked(nn.MultiheadAttention(4, 2, batch_first=True))
    x = torch.zeros(3, 5, 4)
    with pytest.raises(ModelError, match=r"query is of shape \(5, 4\): give it"):
        layer(x[0], x[0], x[0])
    with pytest.raises(ModelError, match="is_causal and no attn_mask: give it the mask"):
        layer(x, x, x, is_causal=True)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.LSTM(3, 4, proj_size=2), "proj_size = 2"),
        (nn.GRU(3, 4, num_layers=2, dropout=0.5), "dropout = 0.5"),
        (nn.MultiheadAttention(4, 2, dropout=0.1), "dropout = 0.1"),
        (nn.MultiheadAttention(4, 2, add_bias_kv=True), "add_bias_kv"),
        (nn.MultiheadAttention(4, 2, add_zero_attn=True), "add_zero_attn"),
        (nn.MultiheadAttention(4, 2, kdim=3), None),
        (nn.RNN(3, 4, nonlinearity="relu", bidirectional=True), None),
    ],
    ids=str,
)
def test_options_without_a_rule_are_named(layer, reason):
    assert RULES[type(layer)].unsupported(layer) == reason
