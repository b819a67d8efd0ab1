"""Convolutions: sums without norms, two ways to write patches, sizes that are asked for."""

import math

import pytest
import torch
from stacked_models import CASES
from torch import nn

from fedsafe.client.objectives import build_objective
from fedsafe.client.stacked import StackedModel, clipped_sum, layout_of
from fedsafe.client.stacked.engine import plain_sum
from fedsafe.client.stacked.layers.conv_window import Window
from fedsafe.client.stacked.layers.conv_written import ByPatch, ByPlace

IMAGES = ["images twice", "convolutions over time", "volumes", "depthwise", "there and back", "shipped cnn"]


@pytest.mark.parametrize("clients", [1, 2])
@pytest.mark.parametrize("name", IMAGES)
def test_sums_without_norms_are_those_of_an_infinite_clip(name, clients):
    torch.manual_seed(2)
    case = CASES[name]
    module, objective = case.make().double(), build_objective(None, case.signature.kind)
    batch = case.data(clients * 16, torch.float64)
    mask = torch.rand(clients, 16) < 0.7
    model = StackedModel(module, 0.5 * torch.randn(clients, layout_of(module).total, dtype=torch.float64))
    expected, _ = clipped_sum(model, objective, batch, mask, math.inf)
    torch.testing.assert_close(plain_sum(model, objective, batch, mask), expected, rtol=1e-9, atol=1e-11)
    mask[:] = False
    assert not plain_sum(model, objective, batch, mask).any()


@pytest.mark.parametrize(
    ("size", "stride", "padding", "lengths"),
    [
        ((4,), (2,), (3,), (9,)),
        ((3, 2), (1, 2), (1, 0), (6, 7)),
        ((2, 3, 4), (2, 1, 2), (0, 2, 1), (4, 3, 9)),
    ],
)
def test_patches_place_by_place_give_the_gradients_of_patch_by_patch(size, stride, padding, lengths):
    """The last values of some images are under no place of the kernel."""
    window = Window(size=size, stride=stride, dilation=(1,) * len(size))
    shape = {"window": window, "padding": padding, "lengths": lengths, "channels": 2, "bias": True}
    torch.manual_seed(3)
    images = torch.randn(5, 2, *lengths, dtype=torch.float64)
    rows = torch.randn(5, math.prod(window.places(lengths, padding)), 3, dtype=torch.float64)
    found, expected = (
        way.arranged([way.gradients(images, rows)]) for way in (ByPlace(**shape), ByPatch(**shape, groups=1))
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_what_is_between_the_places_of_one_example_is_not_in_another():
    """A run that would go on into the next example would meet what is not a number there."""
    window = Window(size=(4, 4), stride=(2, 2), dilation=(1, 1))
    way = ByPlace(window=window, padding=(1, 1), lengths=(8, 8), channels=1, bias=True)
    images = torch.randn(3, 1, 8, 8)
    rows = torch.randn(3, 16, 2)
    before = way.gradients(images, rows)
    images[1] = math.nan
    after = way.gradients(images, rows)
    assert torch.equal(after[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("wanted", [(6, 7), (9, 7), (7, 9)])
def test_a_size_that_no_padding_gives_is_refused_like_the_library_does(wanted):
    layer = nn.ConvTranspose2d(1, 1, 3, stride=2)
    x = torch.randn(2, 1, 3, 3)
    layer(x, output_size=(8, 7))
    model = StackedModel(layer, torch.randn(1, layout_of(layer).total))
    assert model.module(x, output_size=(8, 7)).shape == (2, 1, 8, 7)
    with pytest.raises(ValueError, match="size"):
        layer(x, output_size=wanted)
    with pytest.raises(ValueError, match="output_size"):
        model.module(x, output_size=wanted)
