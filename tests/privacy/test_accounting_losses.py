"""Losses computed all at once are dp-accounting's, which computes them one by one."""

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as oracle
from dp_accounting.privacy_accountant import NeighboringRelation

from fedsafe.privacy.accounting import COARSE, SampledGaussian, account, epsilon
from fedsafe.privacy.accounting.losses import Pair, TooWideError, release_losses

RELATION = {
    "zero-out": NeighboringRelation.REPLACE_SPECIAL,
    "add/remove": NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace-one": NeighboringRelation.REPLACE_ONE,
}
GRID = [-0.5, -0.01, 0.0, 1e-3, 0.1, 0.5, 1.0, 2.0, 4.0]


def ours(group: int = 1, interval: float = 1e-3, **numbers):
    return release_losses(SampledGaussian(count=1, **numbers), interval, group, 2**20)


@pytest.mark.parametrize("adjacency", ["zero-out", "add/remove", "replace-one"])
@pytest.mark.parametrize(("rate", "noise"), [(0.01, 0.7), (0.3, 2.0), (0.9, 5.0), (1e-5, 0.5)])
def test_one_release_has_the_same_deltas(adjacency, rate, noise):
    theirs = oracle.from_gaussian_mechanism(
        noise,
        sampling_prob=rate,
        value_discretization_interval=1e-3,
        neighboring_relation=RELATION[adjacency],
    )
    mine = ours(rate=rate, noise=noise, adjacency=adjacency)
    for at in GRID:
        assert mine.get_delta_for_epsilon(at) == pytest.approx(
            theirs.get_delta_for_epsilon(at), rel=1e-7, abs=1e-15
        )


@pytest.mark.parametrize("adjacency", ["zero-out", "replace-one"])
@pytest.mark.parametrize("delta", [1e-3, 1e-6, 1e-9])
def test_composed_they_have_the_same_epsilon(adjacency, delta):
    theirs = oracle.from_gaussian_mechanism(
        1.5,
        sampling_prob=0.05,
        value_discretization_interval=COARSE,
        neighboring_relation=RELATION[adjacency],
    ).self_compose(200)
    mine = epsilon(SampledGaussian(rate=0.05, noise=1.5, count=200, adjacency=adjacency), delta, COARSE)
    assert mine == pytest.approx(theirs.get_epsilon_for_delta(delta), rel=3e-6, abs=1e-9)


@pytest.mark.parametrize(("size", "rate", "noise"), [(2, 0.1, 2.0), (3, 0.5, 3.0)])
def test_a_group_in_a_sample_is_a_mixture_of_gaussians(size, rate, noise):
    weights = [math.comb(size, k) * rate**k * (1 - rate) ** (size - k) for k in range(size + 1)]
    theirs = oracle.from_mixture_gaussian_mechanism(
        noise, list(range(size + 1)), weights, value_discretization_interval=1e-2
    )
    mine = ours(group=size, interval=1e-2, rate=rate, noise=noise)
    for at in GRID[2:]:
        assert mine.get_delta_for_epsilon(at) == pytest.approx(
            theirs.get_delta_for_epsilon(at), rel=1e-5, abs=1e-12
        )


@pytest.mark.parametrize("direction", ["remove", "add", "replace"])
def test_the_inverse_is_where_the_loss_is_that_much(direction):
    pair = Pair(noise=1.3, weights=(0.8, 0.2), direction=direction)
    x = np.linspace(-6.0, 6.0, 25)
    assert pair.inverse(pair.loss(x)) == pytest.approx(x, abs=1e-6)


def test_a_loss_that_never_is_reached_has_no_place():
    remove, add = (Pair(noise=1.0, weights=(0.8, 0.2), direction=d) for d in ("remove", "add"))
    assert remove.inverse(np.array([-1.0]))[0] == math.inf
    assert add.inverse(np.array([1.0]))[0] == -math.inf
    assert remove.deltas(np.array([-1.0]))[0] == pytest.approx(-math.expm1(-1.0))
    assert add.deltas(np.array([1.0]))[0] == 0.0


def test_losses_too_wide_to_hold_are_refused_before_memory_is_spent():
    with pytest.raises(TooWideError, match="points"):
        release_losses(SampledGaussian(rate=0.1, noise=0.01, count=1), 1e-4, 1, 2**20)


def test_a_mix_of_sampled_and_unsampled_releases_is_composed():
    """Without sampling, a Gaussian of noise 10 once costs little beside 200 sampled ones."""
    sampled = SampledGaussian(rate=0.05, noise=1.1, count=200)
    both = account([sampled, SampledGaussian(rate=1.0, noise=10.0, count=1)], 1e-5)
    # Computed with dp-accounting 0.6.0, PLD at interval 1e-4.
    assert 3.98487 - 1e-4 <= both.epsilon <= 3.98487 + 4e-3
