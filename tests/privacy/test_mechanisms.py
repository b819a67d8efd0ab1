"""The Gaussian mechanism on a grid: exact sums, no overflow, noise of the right scale on every grid point."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_rng import scale_is

from fedsafe.privacy.clipping import clip_rows
from fedsafe.privacy.mechanisms import from_grid, gaussian_on_grid, grid_bits, to_grid
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(5)
BASE = StreamId(purpose="client noise", client=-1, round=1, digest=b"x")
CLIPS = [1e-6, 0.01, 0.5, 1.0, 1.5, 100.0, 4096.0, 1e6, 1e15, 1e20, 1e100, 1e300]

rows_of_floats = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.floats(-1e3, 1e3)
)


def stream(round: int = 1) -> Stream:
    return Stream(KEY, dataclasses.replace(BASE, round=round))


@given(rows_of_floats, st.integers(-5, 40))
def test_the_grid_never_lengthens_a_row_nor_moves_it_by_a_step(rows, bits):
    back = from_grid(to_grid(rows, bits), bits)
    assert (np.abs(back) <= np.abs(rows)).all()
    assert (np.abs(back - rows) < 2.0**-bits).all()
    assert not (np.sign(back) * np.sign(rows) < 0).any()
    for row, rounded in zip(rows, back, strict=True):
        assert sum(Fraction(v) ** 2 for v in rounded.tolist()) <= sum(Fraction(v) ** 2 for v in row.tolist())


@given(hnp.arrays(np.float64, (7, 3), elements=st.floats(-1.0, 1.0)), st.permutations(range(7)))
def test_sums_are_exact_and_blind_to_order(rows, order):
    bits = grid_bits(1.0, 7)
    grid = to_grid(rows, bits)
    running = np.zeros(3, np.int64)
    for i in order:
        running = running + grid[i]
    exact = [sum(int(v) for v in column) for column in grid.T]
    assert running.tolist() == exact


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("population", [1, 300, 10**6])
@pytest.mark.parametrize("noise", [0.3, 1.0, 50.0, 1e4])
def test_neither_the_sum_nor_its_noise_can_overflow(clip, population, noise):
    """Python's integers are the oracle: nothing wraps around, for any clip that a configuration allows."""
    bits = grid_bits(clip, population, noise)
    row = np.array([[clip, -clip]])
    largest = [int(v) * population for v in to_grid(row, bits)[0]]
    assert all(abs(v) < 2**62 for v in largest)
    assert abs(from_grid(np.array(largest), bits)[0]) <= clip * population
    # No draw is longer than 9.5 standard deviations.
    assert abs(largest[0]) + 9.5 * math.ldexp(noise * clip, bits) < 2**63
    released = gaussian_on_grid(np.array(largest, np.int64), noise * clip, bits, stream())
    draws = [int(v) for v in np.rint(stream().normal(2) * math.ldexp(noise * clip, bits))]
    assert released.tolist() == [a + b for a, b in zip(largest, draws, strict=True)]


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("noise", [0.3, 1.0, 200.0, 1e5])
def test_noise_reaches_odd_grid_points_so_that_no_bit_of_the_sum_stays_bare(clip, noise):
    """Beyond 2^53 a double holds even numbers alone: the parity of the sum would be released without noise."""
    bits = grid_bits(clip, 300, noise)
    released = gaussian_on_grid(np.zeros(4000, np.int64), noise * clip, bits, stream())
    assert np.abs(released).max() < 2**53
    large = released[np.abs(released) > np.median(np.abs(released))]
    assert 0.4 < np.mean(large % 2) < 0.6


@pytest.mark.parametrize("clip", [0.1, 1.0, 2.0, 1000.0, 1e12])
def test_the_grid_is_much_finer_than_the_noise(clip):
    assert 2.0 ** -grid_bits(clip, 1000, 1.0) < clip * 1e-9


def test_the_grid_is_that_of_forty_bits_for_ordinary_plans():
    assert grid_bits(1.0, 300, 1.2) == grid_bits(0.5, 300) == 40
    assert grid_bits(1.0, 10**6) == 38


@pytest.mark.parametrize("bits", [0, 20, 40])
def test_rounding_the_noise_is_rounding_the_noisy_value(bits):
    """round(x + noise) = x + round(noise) for x on the grid: post-processing of the Gaussian mechanism."""
    total = np.array([0, 1, -7, 123_456], np.int64)
    sigma = 3.7
    released = gaussian_on_grid(total, sigma, bits, stream())
    noise = [Fraction(float(v)) for v in stream().normal(4) * np.ldexp(sigma, bits)]
    assert released.tolist() == [round(int(x) + v) for x, v in zip(total, noise, strict=True)]


@pytest.mark.parametrize("factor", [2 / 3, 1.0, 1.5])
@pytest.mark.parametrize(("sigma", "bits"), [(2.5, 40), (2.5, 20), (1e6, 10), (1e-6, 40)])
def test_noise_has_its_scale_and_not_two_thirds_or_three_halves_of_it(sigma, bits, factor):
    released = gaussian_on_grid(np.full(3000, 10**6, np.int64), sigma * factor, bits, stream())
    noise = from_grid(released - 10**6, bits)
    assert scale_is(noise, sigma) is (factor == 1.0)


def test_the_same_stream_gives_the_same_noise_and_another_round_another():
    zero = np.zeros(100, np.int64)
    first = gaussian_on_grid(zero, 1.0, 40, stream(1))
    np.testing.assert_array_equal(first, gaussian_on_grid(zero, 1.0, 40, stream(1)))
    assert not (first == gaussian_on_grid(zero, 1.0, 40, stream(2))).any()


@given(
    hnp.arrays(np.float64, (1, 4), elements=st.floats(width=64)),
    hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6)),
    st.sampled_from([1e-3, 1.0, 77.0]),
)
def test_one_row_moves_the_sum_by_at_most_the_clip_whatever_it_holds(row, others, clip):
    bits = grid_bits(clip, 4)
    without = to_grid(clip_rows(others, clip), bits).sum(0)
    moved = to_grid(clip_rows(np.concatenate([others, row]), clip), bits).sum(0) - without
    squares = sum(Fraction(int(v), 2**bits) ** 2 for v in moved)
    assert squares <= Fraction(clip) ** 2
