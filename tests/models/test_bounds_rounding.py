"""What rounding does is inside the bounds: the model's own in single precision, and that of the bounds in double."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from bounded_models import IMAGE, MODELS, seeded
from torch import nn

from fedsafe.models.bounds import (
    InputRegion,
    Rounding,
    interval_margins,
    intervals,
    relaxed_margins,
    trace,
)
from fedsafe.models.bounds.rounding import gamma


def perceptron(layers):
    """A network of `(weight, bias)`, with ReLUs between."""
    parts = []
    for weight, bias in layers:
        part = nn.Linear(*reversed(weight.shape))
        with torch.no_grad():
            part.weight.copy_(torch.tensor(weight))
            part.bias.copy_(torch.tensor(bias))
        parts += [part, nn.ReLU()]
    return nn.Sequential(*parts[:-1]).eval()


def random_layers(rng, sizes, spread):
    """Single precision weights whose sizes differ by powers of 2, so that sums cancel."""
    layers = []
    for before, after in itertools.pairwise(sizes):
        weight = rng.normal(size=(after, before)) * 2.0 ** rng.integers(-spread, spread + 1, (after, before))
        bias = rng.normal(size=after) * 2.0 ** rng.integers(-spread, spread + 1, after)
        layers.append((weight.astype(np.float32), bias.astype(np.float32)))
    return layers


def exact(layers, x):
    """The outputs by rational arithmetic."""
    values = [Fraction(float(v)) for v in x]
    for number, (weight, bias) in enumerate(layers):
        values = [
            sum((Fraction(float(w)) * v for w, v in zip(row, values, strict=True)), Fraction(float(b)))
            for row, b in zip(weight, bias, strict=True)
        ]
        if number < len(layers) - 1:
            values = [max(v, Fraction(0)) for v in values]
    return values


def in_single_precision(layers, x, rng):
    """The outputs by single precision, each sum in an order of its own."""
    values = x.astype(np.float32)
    for number, (weight, bias) in enumerate(layers):
        found = []
        for row, b in zip(weight, bias, strict=True):
            terms = [*(row * values), b]
            total = np.float32(0.0)
            for place in rng.permutation(len(terms)):
                total = np.float32(total + terms[place])
            found.append(total)
        values = np.array(found, np.float32)
        if number < len(layers) - 1:
            values = np.maximum(values, 0)
    return values


def bounds_of(model, x, y, radius, dtype, norm="linf"):
    """Both bounds of one input, with and without room for rounding."""
    network = trace(model, (len(x),)).to(torch.float64)
    region = InputRegion.around(torch.tensor(x, dtype=torch.float64)[None], radius, norm)
    rounding = None if dtype is None else Rounding(network, dtype)
    with torch.no_grad():
        return region, [
            float(found(network, region, torch.tensor([y]), rounding=rounding)[0])
            for found in (interval_margins, relaxed_margins)
        ]


def test_gamma_is_highams():
    assert gamma(10, 2.0**-24) == float(Fraction(10, 2**24) / (1 - Fraction(10, 2**24)))
    assert gamma(0, 0.1) == 0
    assert gamma(2**24, 2.0**-24) == float("inf")


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("name", MODELS)
def test_what_a_model_computes_in_single_precision_lies_in_its_intervals(name, rows):
    """Whatever library computes it: each output of each step, beside the enclosure of a region that is a point."""
    model = seeded(MODELS[name])
    x = torch.tensor(np.random.default_rng(rows).normal(size=(rows, *IMAGE)) * 30, dtype=torch.float32)
    network = trace(model, IMAGE).to(torch.float64)
    region = InputRegion.around(x.double(), 0.0)
    with torch.no_grad():
        low, high = intervals(network, region, Rounding(network))[-1]
        found = model(x).double()
        assert bool(((low <= found) & (found <= high)).all())
        # Room for double precision alone is far too little: the test can fail.
        low, high = intervals(network, region, Rounding(network, torch.float64))[-1]
    assert not bool(((low <= found) & (found <= high)).all())


def test_bounds_of_linear_models_never_exceed_the_minimum_by_rational_arithmetic():
    """Of a linear model both bounds are the minimum, so that every digit that they round up would show."""
    rng, above = np.random.default_rng(0), 0
    for trial in range(60):
        layers = random_layers(rng, (5, 1), 12)
        x, y = rng.normal(size=5), int(rng.integers(2))
        model = perceptron(layers)
        for dtype in (torch.float64, None):
            region, found = bounds_of(model, x, y, 0.37, dtype, "linf")
            sign = 2 * y - 1
            (weight, bias) = layers[0]
            least = Fraction(float(bias[0])) * sign
            for w, low, high in zip(weight[0], region.low[0], region.high[0], strict=True):
                slope = Fraction(float(w)) * sign
                least += min(slope * Fraction(float(low)), slope * Fraction(float(high)))
            if dtype is None:
                above += sum(Fraction(value) > least for value in found)
            else:
                for value in found:
                    assert Fraction(value) <= least
                    assert float(least) - value < 1e-9 * max(1.0, float(np.abs(weight).sum())), trial
    assert above > 5  # without room for rounding, they do exceed it


def test_no_corner_has_a_smaller_margin_by_rational_arithmetic_than_the_bounds_say():
    rng = np.random.default_rng(1)
    for _ in range(25):
        layers = random_layers(rng, (3, 5, 4, 2), 6)
        x, y = rng.normal(size=3), int(rng.integers(2))
        region, found = bounds_of(perceptron(layers), x, y, 0.05, torch.float64)
        ends = np.stack([region.low[0].numpy(), region.high[0].numpy()])
        for corner in itertools.product((0, 1), repeat=3):
            outputs = exact(layers, ends[list(corner), range(3)])
            assert max(Fraction(value) for value in found) <= outputs[y] - outputs[1 - y]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_order_of_summation_in_single_precision_gives_a_smaller_margin(norm):
    """Tiny regions and large sums: rounding is most of what moves the margin."""
    rng, tight = np.random.default_rng(2), []
    for _ in range(30):
        layers = random_layers(rng, (4, 6, 2), 10)
        x, y = rng.normal(size=4).astype(np.float32), int(rng.integers(2))
        _, found = bounds_of(perceptron(layers), x, y, 1e-7, torch.float32, norm)
        _, without = bounds_of(perceptron(layers), x, y, 1e-7, None, norm)
        for _ in range(20):
            outputs = in_single_precision(layers, x, rng).astype(np.float64)
            margin = outputs[y] - outputs[1 - y]
            assert max(found) <= margin
            tight.append(margin < max(without))
    assert np.mean(tight) > 0.04  # single precision does break the bounds of exact arithmetic


def rounding_trap():
    """In exact arithmetic 0.5 for every input; in single precision -0.5 for every positive one.

    ``relu(2^32 x) + 1`` loses the 1 (the idea is Zombori et al.'s, 2021, and Jia and Rinard's, 2021).
    """
    one = np.ones((1, 1))
    return perceptron(
        [
            (2.0**32 * one, np.zeros(1)),
            (np.ones((2, 1)), np.array([1.0, 0.0])),
            (np.array([[1.0, -1.0]]), np.array([-0.5])),
        ]
    )


def test_a_network_built_to_exploit_rounding_is_not_certified():
    model, x = rounding_trap(), np.array([-0.05])
    with torch.no_grad():
        assert float(model(torch.tensor([[-0.05]]))) > 0
        assert float(model(torch.tensor([[0.04]]))) < 0
    _, fooled = bounds_of(model, x, 1, 0.1, None)
    assert fooled[1] == pytest.approx(0.5)
    _, found = bounds_of(model, x, 1, 0.1, torch.float32)
    assert max(found) < 0
    # Where nothing is lost it is: the input stays negative.
    _, found = bounds_of(model, x, 1, 0.01, torch.float32)
    assert max(found) > 0.49


@pytest.mark.parametrize("size", [1e39, 1e25])
def test_numbers_that_overflow_single_precision_prove_nothing(size):
    layers = [(np.full((1, 1), min(size, 1e38)), np.zeros(1)), (np.full((1, 1), size / 1e30), np.ones(1))]
    model = perceptron(layers)
    _, found = bounds_of(model, np.array([50.0]), 1, 0.1, torch.float32)
    assert all(value > 0 for value in found) == (size < 1e38)


def test_the_room_for_rounding_is_small_beside_what_the_bounds_are_for():
    """A radius of 0.01 costs these networks far more than all that may be rounded off."""
    for name in ("perceptron", "max pooling", "residual", "tanh"):
        model = seeded(MODELS[name])
        network = trace(model, IMAGE).to(torch.float64)
        x = torch.tensor(np.random.default_rng(0).random((4, *IMAGE)))
        y, rounding = torch.zeros(4, dtype=torch.int64), Rounding(network)
        region = InputRegion.around(x, 0.01)
        with torch.no_grad():
            for found in (interval_margins, relaxed_margins):
                without, lost = found(network, region, y), found(network, region, y, rounding=rounding)
                clean = interval_margins(network, InputRegion.around(x, 0.0), y)
                assert bool((lost < without).all())
                assert float((without - lost).sum()) < 0.05 * float((clean - without).sum())
