"""What single precision does to a clipped sum: no record, however made, moves it by more than the clip."""

import math

import pytest
import torch
from stacked_models import CASES
from torch import nn

from fedsafe.client import build_objective
from fedsafe.client.stacked import StackedModel, clipped_sum, engine, layout_of, measure


class Outer(nn.Module):
    """One weight matrix, whose gradient is the sum over positions of a product of two halves of the input."""

    def __init__(self, width):
        super().__init__()
        self.width = width
        self.layer = nn.Linear(width, width, bias=False)

    def forward(self, x):
        return (self.layer(x[..., : self.width]) * x[..., self.width :]).flatten(1).sum(1)


def outputs(model, batch):
    return model(batch[0])


def sums_of(x, mask, clip, *, clients=1):
    width = x.shape[-1] // 2
    model = StackedModel(Outer(width), torch.zeros(clients, width * width))
    return clipped_sum(model, outputs, (x, torch.zeros(len(x))), mask, clip)


def square(width, side, height):
    """``(2, 2 * width)``: a record whose gradient has this height in all columns of so many rows."""
    record = torch.zeros(2, 2 * width)
    record[0, :width] = record[0, width : width + side] = height**0.5
    return record


def cancelling(width):
    """For each entry of the weight, a record that passes through it at a huge size and leaves nothing."""
    records = torch.zeros(width, width, 2, 2 * width)
    for row in range(width):
        for column in range(width):
            records[row, column, :, column] = 8192.0
            records[row, column, :, width + row] = torch.tensor([8192.0, -8192.0])
    return records.flatten(0, 1)


@pytest.mark.parametrize("clients", [1, 2])
def test_terms_that_cancel_do_not_round_what_others_have_summed(clients):
    """Together with the toggled record, the others are just past the middle between two multiples of a unit of 2^20."""
    width = 64
    entries = width * width
    height = 0.99 / entries**0.5
    rest = 2.0**-4 - height / 2
    count = int(rest * entries**0.5 / 0.9) + 1
    records = [square(width, width, height), *[square(width, width, rest / count)] * count]
    x = torch.cat([torch.stack(records), cancelling(width)])
    mask = torch.ones(1, len(x), dtype=torch.bool)
    both = []
    for toggled in (True, False):
        mask[0, 0] = toggled
        sums, norms = sums_of(x.repeat(clients, 1, 1), mask.repeat(clients, 1), 1.0, clients=clients)
        both.append(sums[0].double())
    assert float(norms[0, 0]) == pytest.approx(0.99)
    assert float((both[0] - both[1]).norm()) <= 1.0


@pytest.mark.parametrize("name", CASES)
def test_the_bound_on_what_cancels_leaves_ordinary_examples_their_bits(name, monkeypatch):
    torch.manual_seed(0)
    case = CASES[name]
    module, objective = case.make(), build_objective(None, case.signature.kind)
    x, y = case.data(16, torch.float32, 1.0)
    parameters = 0.5 * torch.randn(2, layout_of(module).total)
    mask = torch.ones(2, 8, dtype=torch.bool)
    shape = measure(module, objective, (x, y))
    found = []
    for most in (engine._CANCELLING, math.inf):
        monkeypatch.setattr(engine, "_CANCELLING", most)
        model = shape.stack(module, parameters)
        found.append(clipped_sum(model, objective, (x, y), mask, 0.3)[0])
    assert torch.equal(*found)


@pytest.mark.parametrize("width", [2**14 + 64, 10**6])
def test_small_values_beside_large_ones_are_measured_in_wide_rows(width):
    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(width)

        def forward(self, x):
            return (self.norm(x[:, :width]) * x[:, width:]).sum(1)

    signs = torch.ones(width)
    signs[1::2] = -1.0
    slopes = torch.full((width,), (0.49 * 2.0**-23) ** 0.5)
    slopes[:8] = 1.0
    x = torch.cat([signs, 16.0 * slopes]).unsqueeze(0)
    model = StackedModel(Normalised(), torch.ones(1, 2 * width))
    sums, norms = clipped_sum(model, outputs, (x, torch.zeros(1)), torch.ones(1, 1, dtype=torch.bool), 1.0)
    expected = 16.0 * math.sqrt(2.0) * float(slopes.double().norm())
    assert float(norms) == pytest.approx(expected, rel=1e-5)
    assert float(sums.double().norm()) <= 1.0


@pytest.mark.parametrize("positions", [1, 2])
@pytest.mark.parametrize("clients", [1, 2])
def test_long_inputs_do_not_magnify_a_denormal_gradient(positions, clients):
    """Half of the smallest number rounds to zero or to the whole of it, which huge inputs make a clip of difference."""
    x = torch.randn(clients, 3, positions, 32, generator=torch.Generator().manual_seed(1))
    ordinary = sums_of(x.flatten(0, 1), torch.ones(clients, 3, dtype=torch.bool), 1.0, clients=clients)[0]
    x[0] = 0.0
    x[0, 0, 0, :16], x[0, 0, 0, 16] = 2.85e38, 1e-45
    length = float(sums_of(x[:1, :1].flatten(0, 1), torch.ones(1, 1, dtype=torch.bool), 1.0)[1])
    assert 0.0 < length < 1e-5
    mask = torch.ones(clients, 3, dtype=torch.bool)
    for fraction in (0.3, 0.501, 0.7, 0.99):
        sums, _ = sums_of(x.flatten(0, 1), mask, fraction * length, clients=clients)
        assert float(sums[0].double().norm()) <= fraction * length
    sums, _ = sums_of(x.flatten(0, 1), mask, 1.0, clients=clients)
    assert torch.equal(sums[1:], ordinary[1:])


@pytest.mark.parametrize(("inputs", "slope"), [(1e-25, 1e30), (1e25, 1e-20), (1e-30, 1e35), (1e16, 1e18)])
def test_what_is_tiny_on_one_side_and_huge_on_the_other_is_measured(inputs, slope):
    """Single precision loses the square of either; the gradient is their product."""

    def steep(model, batch):
        return model(batch[0])[:, 0] * slope

    x = torch.full((16, 3), inputs)
    x[0] = 0.0
    model = StackedModel(nn.Linear(3, 1, bias=False), torch.zeros(2, 3))
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[:, 2:] = False
    sums, norms = clipped_sum(model, steep, (x, torch.zeros(16)), mask, 1.0)
    assert float(norms[0, 1]) == pytest.approx(inputs * slope * 3.0**0.5, rel=1e-5)
    assert 0.99 < float(sums[0].double().norm()) <= 1.0


@pytest.mark.parametrize("width", [2**12, 2**14])
def test_small_values_beside_large_ones_on_both_sides_of_a_product_are_measured(width):
    """What is lost of the inputs' norm and of the gradients' adds up, and both must fit the margin."""
    small = (0.49 * 2.0**-23) ** 0.5
    row = torch.full((width,), small)
    row[0] = 1.0

    def steep(model, batch):
        return (model(batch[0]) * row).sum(1) * 8.0

    model = StackedModel(nn.Linear(width, width, bias=False), torch.zeros(1, width * width))
    mask = torch.ones(1, 1, dtype=torch.bool)
    sums, norms = clipped_sum(model, steep, (row.unsqueeze(0), torch.zeros(1)), mask, 1.0)
    assert float(norms) == pytest.approx(8.0 * float(row.double().norm()) ** 2, rel=2.0**-11)
    assert 1.0 - 2.0**-9 < float(torch.linalg.vector_norm(sums, dtype=torch.float64)) <= 1.0
