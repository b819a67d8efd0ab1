"""From an update to whole numbers modulo a power of two: bounds for any input, and nothing lost on average."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.linalg import hadamard
from test_rng import scale_is

from fedsafe.errors import CalibrationError, ConfigError
from fedsafe.privacy.clipping import clip_rows
from fedsafe.privacy.mechanisms import (
    DistributedMechanism,
    discrete_gaussian,
    finest_bits,
    overflow_probability,
    rotate,
    rotate_back,
    rotated_length,
    round_at_random,
    rounded_norm,
    rounded_sum,
    wrap,
)
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(16)
BASE = StreamId(purpose="client draws", client=0, round=1, digest=b"x")
any_values = hnp.arrays(np.float64, st.integers(1, 9), elements=st.floats(width=64))


def stream(client: int = 0) -> Stream:
    return Stream(KEY, dataclasses.replace(BASE, client=client))


def mechanism(**changes: object) -> DistributedMechanism:
    usual = {"clip": 1.5, "noise": 1.0, "bits": 8, "modulus": 32, "minimum": 10, "corrupt": 1}
    return DistributedMechanism(**{**usual, **changes})


class TestRounding:
    @given(any_values, st.integers(-2, 12))
    def test_the_norm_stays_within_the_bound_for_any_update(self, values, bits):
        clipped = clip_rows(values[None], 1.5)[0]
        bound = rounded_norm(math.ldexp(1.5, bits), len(values))
        whole = round_at_random(np.ldexp(clipped, bits), bound, stream())
        assert sum(int(v) ** 2 for v in whole) <= Fraction(bound) ** 2
        assert sum(abs(int(v)) for v in whole) <= rounded_sum(bound, len(values)) * (1 + 1e-12)
        assert (np.abs(whole - np.ldexp(clipped, bits)) < 1.0).all()

    def test_the_bound_is_the_published_one(self):
        """Kairouz et al. (2021), proposition 22, by hand, where each of its two parts is the smaller."""
        assert rounded_norm(3.0, 4) == pytest.approx(min(5.0, math.sqrt(9 + 1 + 4)))
        assert rounded_norm(0.1, 1) == pytest.approx(min(1.1, math.sqrt(0.01 + 0.25 + 0.6)))
        assert rounded_norm(10.0, 1) == pytest.approx(min(11.0, math.sqrt(100 + 0.25 + 10.5)))

    def test_the_mean_is_kept(self):
        values = np.array([0.25, -0.75, 3.0, -2.5])
        rounded = [round_at_random(values, 99.0, stream(client)) for client in range(4000)]
        np.testing.assert_allclose(np.mean(rounded, axis=0), values, atol=5 * 0.5 / math.sqrt(4000))

    def test_a_bound_that_no_rounding_meets_leaves_the_values_cut_toward_zero(self):
        values = np.array([1.7, -1.7])
        assert round_at_random(values, 1.5, stream()).tolist() == [1, -1]


class TestRotation:
    @pytest.mark.parametrize(("parameters", "length"), [(1, 1), (2, 2), (3, 4), (8, 8), (9, 16)])
    def test_it_is_undone_and_keeps_norms(self, parameters, length):
        values = np.random.default_rng(parameters).normal(size=parameters)
        turned = rotate(values)
        assert len(turned) == rotated_length(parameters) == length
        assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(values))
        np.testing.assert_allclose(rotate_back(turned, parameters), values, atol=1e-12)

    def test_it_is_hadamards_matrix_after_signs(self):
        images = np.array([rotate(row) for row in np.eye(16)]).T
        signs = np.sign(images[0])
        np.testing.assert_allclose(images, hadamard(16) / 4.0 * signs, atol=1e-12)
        assert 0 < (signs > 0).sum() < 16

    def test_it_flattens_a_spike(self):
        spike = np.zeros(1024)
        spike[17] = 1.0
        np.testing.assert_allclose(np.abs(rotate(spike)), 1 / 32, atol=1e-12)


class TestModulus:
    @given(st.lists(st.integers(-(2**61), 2**61 - 1), max_size=5), st.integers(2, 62))
    def test_it_is_that_of_pythons_integers(self, values, bits):
        half = 2 ** (bits - 1)
        expected = [(v + half) % 2**bits - half for v in values]
        assert wrap(np.array(values, np.int64), bits).tolist() == expected

    @given(st.lists(st.integers(-(2**61), 2**61 - 1), max_size=6), st.integers(2, 62))
    def test_a_sum_that_is_wrapped_at_each_step_is_the_wrapped_sum(self, values, bits):
        running = np.zeros(1, np.int64)
        for value in values:
            running = wrap(running + wrap(np.array([value]), bits), bits)
        half = 2 ** (bits - 1)
        assert running.tolist() == [(sum(values) + half) % 2**bits - half]

    @pytest.mark.parametrize("modulus", [16, 24, 32, 48])
    @pytest.mark.parametrize("clip", [1e-3, 1.5, 300.0])
    @pytest.mark.parametrize("noise", [0.5, 20.0])
    def test_the_finest_grid_leaves_no_room_for_a_wrap_and_half_of_it_would(self, modulus, clip, noise):
        clients, honest = 40, 20
        bits = finest_bits(modulus, clip=clip, clients=clients, noise=noise, honest=honest)

        def chance(bits: int, heavy: bool) -> float:
            unit = math.ldexp(clip, bits)
            return overflow_probability(
                modulus,
                bound=1.01 * unit,
                clients=clients,
                share=1.01 * noise * unit / math.sqrt(honest),
                values=10**6,
                heavy=heavy,
            )

        assert chance(bits, heavy=False) < 1e-14
        assert chance(bits, heavy=True) < 1e-12
        assert chance(bits + 2, heavy=False) > chance(bits, heavy=False)

    def test_the_probability_bounds_what_happens(self):
        share, clients, modulus = 3, 4, 5
        sums = sum(discrete_gaussian(stream(client), 20_000, share) for client in range(clients))
        happened = np.mean((sums < -(2 ** (modulus - 1))) | (sums >= 2 ** (modulus - 1)))
        for heavy in (False, True):
            bound = overflow_probability(
                modulus, bound=0.0, clients=clients, share=share, values=1, heavy=heavy
            )
            assert 0.001 < happened < bound < 1.0
        assert overflow_probability(5, bound=4.0, clients=4, share=0.1, values=1, heavy=False) == 1.0


class TestShares:
    def test_the_honest_survivors_add_the_planned_noise_and_less_would_be_seen(self):
        """The share is for the survivors less the corrupt: calibrated for all of the cohort it would be too small."""
        for law in ("discrete gaussian", "skellam"):
            does = mechanism(law=law, noise=1.3, minimum=12, corrupt=3)
            total = sum(does.sent(np.zeros(4096), stream(client)) for client in range(9))
            planned = 1.3 * does.bound(4096)
            assert scale_is(total, math.sqrt(9) * does.share(4096))
            assert planned <= math.sqrt(9) * does.share(4096) <= 1.01 * planned
            assert not scale_is(total, planned * 2 / 3)
            assert not scale_is(total, planned * 3 / 2)

    def test_without_noise_it_is_the_rounded_update(self):
        does = mechanism(noise=0.0, rotated=False, bits=20)
        row = np.array([0.5, -0.25, 1.0])
        np.testing.assert_array_equal(does.sent(row, stream()), np.ldexp(row, 20).astype(np.int64))

    @pytest.mark.parametrize("law", ["discrete gaussian", "skellam"])
    @pytest.mark.parametrize(
        ("clip", "noise", "modulus"), [(1e-3, 0.5, 32), (1.5, 3.0, 20), (500.0, 40.0, 62)]
    )
    def test_the_finest_grid_is_one_that_can_be_drawn_on(self, law, clip, noise, modulus):
        does = mechanism(law=law, clip=clip, noise=noise, modulus=modulus).on_finest_grid(100)
        assert does.share(1000) >= 2
        assert np.isfinite(does.sent(np.zeros(1000), stream())).all()

    def test_a_grid_too_coarse_for_the_noise_is_refused(self):
        with pytest.raises(CalibrationError, match="raise modulus = 8"):
            mechanism(modulus=8).on_finest_grid(100).share(10)

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"corrupt": 10}, "leaves no honest one"),
            ({"minimum": 0, "corrupt": 0}, "leaves no honest one"),
            ({"modulus": 63}, "2 to 62 bits"),
            ({"law": "laplace"}, "'discrete gaussian' or 'skellam'"),
        ],
    )
    def test_what_leaves_no_noise_is_refused(self, changes, why):
        with pytest.raises(ConfigError, match=why):
            mechanism(**changes)
