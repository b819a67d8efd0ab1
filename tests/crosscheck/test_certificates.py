"""Certified shares beside those of convex-adversarial (Wong and Kolter 2018), which relaxes in the dual."""

import importlib
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fedsafe.models.bounds import InputRegion, interval_margins, relaxed_margins, trace

SIDE = 12


@pytest.fixture(scope="module")
def peer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("convex_adversarial")
        except ImportError:
            pytest.skip("convex-adversarial is not installed: run make crosscheck")


def bright_quarters(n, seed):
    """Noise, with one of four quarters brighter: the class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    x = 0.5 * rng.random((n, 1, SIDE, SIDE))
    for image, label in zip(x, y, strict=True):
        down, across = divmod(int(label), 2)
        image[0, 6 * down : 6 * down + 6, 6 * across : 6 * across + 6] += 0.2
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def trained(model):
    x, y = bright_quarters(600, 0)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


MODELS = {
    "perceptron": lambda flatten: nn.Sequential(
        flatten, nn.Linear(SIDE * SIDE, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4)
    ),
    "convolutions": lambda flatten: nn.Sequential(
        nn.Conv2d(1, 4, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 4, stride=2, padding=1), nn.ReLU(),
        flatten, nn.Linear(54, 12), nn.ReLU(), nn.Linear(12, 4),
    ),
}  # fmt: skip


def dual_margins(peer, model, x, y, radius, **options):
    """``(n,)`` lower bounds on the margin by the dual network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bounds = peer.RobustBounds(model, radius, **options)
        with torch.no_grad():
            worst = bounds(x, y)  # upper bounds on other less true logit, and 0 for the true one
    own = functional.one_hot(y, worst.shape[1]).bool()
    return -worst.masked_fill(own, -torch.inf).amax(dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", MODELS)
def test_certified_share_is_that_of_convex_adversarial_within_a_point_or_better(peer, name, norm):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = trained(MODELS[name](nn.Flatten()))
    x, y = bright_quarters(400, 1)
    network = trace(model, (1, SIDE, SIDE)).to(torch.float64)
    kind = "l1" if norm == "linf" else "l2"  # named after the dual norm, and the norm itself
    shares = []
    for radius in (0.01, 0.02, 0.03, 0.05) if norm == "linf" else (0.1, 0.2, 0.4, 0.8):
        theirs = dual_margins(peer, model, x, y, radius, norm_type=kind)
        # No bounds of the input, as there.
        region = InputRegion.around(x.double(), radius, norm)
        ours, loose = relaxed_margins(network, region, y), interval_margins(network, region, y).detach()
        share, other = float((ours > 0).float().mean()), float((theirs > 0).float().mean())
        shares.append(other)
        assert share >= other - 0.01
        assert share <= other + 0.05  # a relaxation, not another network
        assert float((loose > 0).float().mean()) <= share
    assert max(shares) > 0.5
    assert min(shares) < 0.9


@pytest.mark.parametrize("name", MODELS)
def test_parallel_lines_alone_are_the_dual_network_of_convex_adversarial(peer, name):
    """With one slope for both lines of a ReLU the two relaxations are the same linear program's same dual point."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = trained(MODELS[name](nn.Flatten()))
    x, y = bright_quarters(60, 1)
    network = trace(model, (1, SIDE, SIDE)).to(torch.float64)
    for radius in (0.005, 0.02):
        theirs = dual_margins(peer, model.double(), x.double(), y, radius)
        region = InputRegion.around(x.double(), radius)
        ours = relaxed_margins(network, region, y, slopes=("parallel",))
        assert float((ours - theirs).abs().max()) < 1e-6
        model.float()
