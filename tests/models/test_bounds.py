"""Bounds on margins are sound, tight where the truth is known, and the same however they are computed."""

import numpy as np
import pytest
import torch
from bounded_models import IMAGE, MODELS, seeded
from torch import nn

from fedsafe.errors import ModelError
from fedsafe.models.bounds import (
    InputRegion,
    ibp_margin,
    interval_margins,
    intervals,
    relaxation,
    relaxed_margins,
    trace,
)


def margins(model, x, y):
    outputs = model(x)
    if outputs.shape[1] == 1:
        return outputs[:, 0] * (2 * y - 1)
    own = outputs.gather(1, y[:, None])[:, 0]
    return own - outputs.scatter(1, y[:, None], -torch.inf).amax(dim=1)


def inputs(n=6, shape=IMAGE, seed=0):
    return torch.tensor(np.random.default_rng(seed).random((n, *shape)))


def worst_found(model, region, y, norm):
    """The smallest margin on random points of a region, and where gradients lead."""
    rng, worst = torch.Generator().manual_seed(1), margins(model, region.clean, y).detach()
    for start in range(12):
        x = region.low + torch.rand(region.clean.shape, generator=rng, dtype=torch.float64) * (
            region.high - region.low
        )
        for _ in range(12 if start < 6 else 1):
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(margins(model, x, y).sum(), x)
            move = (
                slope.sign() * 0.5
                if norm == "linf"
                else slope / slope.flatten(1).norm(dim=1).clamp(min=1e-9).view(-1, 1, 1, 1)
            )
            x = (x - region.radius * move).detach()
            if norm == "l2":
                change = x - region.clean
                size = change.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
                x = region.clean + change * (region.radius / size).clamp(max=1.0)
            x = torch.minimum(torch.maximum(x, region.low), region.high)
            worst = torch.minimum(worst, margins(model, x, y).detach())
    return worst


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", MODELS)
def test_no_point_of_a_region_has_a_smaller_margin_than_the_bounds_say(name, norm):
    model = seeded(MODELS[name]).double()
    network, x = trace(model, IMAGE), inputs()
    y = model(x).argmax(dim=1) if name != "one logit" else (model(x)[:, 0] > 0).long()
    radius = 0.03 if norm == "linf" else 0.2
    region = InputRegion.around(x, radius, norm, low=0.0, high=1.0)
    found = worst_found(model, region, y, norm)
    with torch.no_grad():
        loose = interval_margins(network, region, y)
        quick = relaxed_margins(network, region, y, refine=False)
        tight = relaxed_margins(network, region, y)
    assert bool(
        (loose <= quick + 1e-12).all() and (quick <= tight + 1e-9).all() and (tight <= found + 1e-9).all()
    )
    assert float((tight - loose).min()) >= 0
    assert float((tight - loose).max()) > 1e-3
    # The bounds are no empty promise: at a hundredth of the radius they are as good as the truth.
    small = InputRegion.around(x, radius / 100, norm, low=0.0, high=1.0)
    with torch.no_grad():
        near = relaxed_margins(network, small, y)
    clean = margins(model, x, y).detach()
    assert (
        float((clean - near).max()) <= 1.5 * float((clean - worst_found(model, small, y, norm)).max()) + 1e-4
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_steps_of_a_model_are_the_model_and_radius_zero_is_the_clean_margin(name):
    model = seeded(MODELS[name]).double()
    network, x = trace(model, IMAGE), inputs()
    y = torch.zeros(len(x), dtype=torch.int64)
    assert torch.allclose(network.values(x)[-1], model(x))
    region = InputRegion.around(x, 0.0)
    for found in (interval_margins(network, region, y), relaxed_margins(network, region, y)):
        assert torch.allclose(found, margins(model, x, y), atol=1e-9)


def test_windows_of_an_image_give_the_bounds_of_the_whole(monkeypatch):
    for name in ("max pooling", "padded max pooling", "average pooling", "max before relu"):
        model = seeded(MODELS[name]).double()
        network, x = trace(model, IMAGE), inputs()
        y = torch.zeros(len(x), dtype=torch.int64)
        for norm in ("linf", "l2"):
            region = InputRegion.around(x, 0.05, norm, low=0.0, high=1.0)
            with torch.no_grad():
                quick = relaxed_margins(network, region, y)
                with monkeypatch.context() as patch:
                    patch.setattr(relaxation, "path", lambda *_: [])
                    slow = relaxed_margins(network, region, y)
            assert torch.allclose(quick, slow, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_bounds_of_an_affine_network_are_the_exact_minimum(norm):
    """Of a linear function over ball and box: at a corner, or by convex duality, checked against a fine search."""
    model = seeded(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 3))
    ).double()
    network, x = trace(model, IMAGE), inputs()
    y = model(x).argmax(dim=1)
    region = InputRegion.around(x, 0.4, norm, low=0.0, high=1.0)
    exact = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for other in range(3):
        point = x.clone().requires_grad_()
        outputs = model(point)
        (slope,) = torch.autograd.grad((outputs.gather(1, y[:, None])[:, 0] - outputs[:, other]).sum(), point)
        value = (outputs.gather(1, y[:, None])[:, 0] - outputs[:, other]).detach()
        down, up = (region.low - x).flatten(1), (region.high - x).flatten(1)
        least = _least(slope.flatten(1), down, up, 0.4 if norm == "l2" else None)
        exact = torch.where(y == other, exact, torch.minimum(exact, value + least))
    for found in (interval_margins(network, region, y), relaxed_margins(network, region, y)):
        assert torch.allclose(found.detach(), exact, atol=1e-6)


def _least(slope, down, up, radius):
    """The minimum of ``slope . d``, by trying every number of entries that lie at an end of the box."""
    boxed = torch.where(slope > 0, down, up)
    if radius is None:
        return (slope * boxed).sum(dim=1)
    found = []
    for row, low, high, corner in zip(slope, down, up, boxed, strict=True):
        # Along the multiplier the change grows from nothing to the corner: bisect for the one of the right length.
        small, large = 1e-9, 1e9
        for _ in range(200):
            middle = (small * large) ** 0.5
            change = torch.minimum(torch.maximum(-row * middle, low), high)
            small, large = (middle, large) if change.norm() < radius else (small, middle)
        change = torch.minimum(torch.maximum(-row * small, low), high)
        found.append(row @ (corner if corner.norm() <= radius else change))
    return torch.stack(found)


def test_small_networks_are_bounded_below_their_true_minimum_which_is_at_a_breakpoint():
    """One input, two hidden units: the margin is piecewise linear, so its minimum is at a kink or an end."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        a, b, c = rng.normal(size=2), rng.normal(size=2), rng.normal(size=2)
        model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor(a)[:, None])
            model[0].bias.copy_(torch.tensor(b))
            model[2].weight.copy_(torch.tensor(c)[None])
        x, radius = torch.tensor([[0.2]], dtype=torch.float64), 0.7
        ends = [x.item() - radius, x.item() + radius]
        points = [*ends, *(p for p in (-b / a) if ends[0] < p < ends[1])]
        with torch.no_grad():
            exact = min(float(model(torch.tensor([[p]], dtype=torch.float64))) for p in points)
            network, region = trace(model, (1,)), InputRegion.around(x, radius)
            found = float(relaxed_margins(network, region, torch.ones(1, dtype=torch.int64))[0])
        assert found <= exact + 1e-9


def test_the_margin_is_elided():
    """Two logits that move together: their difference is certain, though neither is."""
    model = seeded(lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))).double()
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[5.0, 4.0, 3.0], [5.0, 4.0, 3.0]]))
        model[2].bias.copy_(torch.tensor([0.1, 0.0]))
    network, x = trace(model, (2,)), torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    region, y = InputRegion.around(x, 5.0), torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        low, high = intervals(network, region)[-1]
        loose = interval_margins(network, region, y)
    assert float(low[0, 0] - high[0, 1]) < -10
    assert float(loose) == pytest.approx(0.1)
    assert float(relaxed_margins(network, region, y)) == pytest.approx(0.1)


def test_what_may_not_move_is_held_fast_and_bounds_of_the_input_are_kept():
    model = nn.Linear(3, 1).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0, 4.0]]))
        model.bias.zero_()
    network, x = trace(model, (3,)), torch.tensor([[0.5, 0.1, 0.5]], dtype=torch.float64)
    free = torch.tensor([True, True, False])
    region = InputRegion.around(x, 0.3, low=0.0, high=1.0, free=free)
    with torch.no_grad():
        found = interval_margins(network, region, torch.ones(1, dtype=torch.int64))
    assert float(found) == pytest.approx(0.5 - 0.3 + 2 * (0.1 - 0.1) + 4 * 0.5)


def test_interval_margins_are_differentiable_and_following_them_raises_them():
    model = seeded(MODELS["max pooling"]).double()
    x, y = inputs(8), torch.arange(8) % 3
    before = ibp_margin(model, x, y, 0.02).mean()
    slopes = torch.autograd.grad(before, list(model.parameters()))
    steepness = float(sum((slope**2).sum() for slope in slopes))
    with torch.no_grad():
        for parameter, slope in zip(model.parameters(), slopes, strict=True):
            parameter += 1e-5 * slope
        after = ibp_margin(model, x, y, 0.02).mean()
    assert float(after - before.detach()) == pytest.approx(1e-5 * steepness, rel=0.01)


def test_a_step_without_bounds_is_named():
    class Own(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :2] if x.sum() > 0 else x

    class Product(nn.Module):
        def forward(self, x):
            return x * x

    class Hidden(nn.Module):
        """Whatever it is given, it answers what it has seen last."""

        def __init__(self):
            super().__init__()
            self.inner = nn.ReLU(inplace=True)

        def forward(self, x):
            return x + self.inner(x)

    for model, message in (
        (nn.Sequential(nn.Flatten(), nn.LayerNorm(100)), r"the layer 1 \(LayerNorm\) has no bounds"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4)), "GroupNorm"),
        (nn.Sequential(nn.Flatten(), Product()), "two values that depend on the input"),
        (Own(), "cannot be followed"),
        (Hidden(), "not give what its steps give"),
        (nn.Sequential(nn.AvgPool2d(3, ceil_mode=True), nn.Flatten()), "unequal weight"),
    ):
        with pytest.raises(ModelError, match=message):
            trace(model.eval(), IMAGE)
