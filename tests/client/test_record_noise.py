"""Noise on a public grid: exact sums, the right law, nothing of a record in the last bits, no packing changes it."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats
from training_problems import TRAINERS, compare_packings, make_jobs, make_problem

from fedsafe.client import LocalTraining
from fedsafe.client.record_noise import (
    _WholeBlock,
    noised_on_grid,
    record_grid_bits,
    require_exact,
    sensitivity_on_grid,
    to_record_grid,
    whole_normal_rows,
)
from fedsafe.errors import ConfigError
from fedsafe.rng import Stream, StreamId, normal_rows


def streams(count, purpose="record noise"):
    return [
        Stream(bytes(32), StreamId(purpose=purpose, client=client, round=1, digest=b""))
        for client in range(count)
    ]


def way(**changes):
    return LocalTraining(
        **{"learning_rate": 1.0, "steps": 1, "rate": 0.5, "clip": 1.0, "noise": 1.0, "grid_bits": 20}
        | changes
    )


class TestDraws:
    @pytest.mark.parametrize("count", [1, 2, 9, 8191, 8192, 8193, 20_000])
    def test_a_row_depends_on_its_own_stream_alone(self, count):
        deviations = [3.0, 2.0**30, 17.5, 2.0**40, 0.25]
        together = whole_normal_rows(streams(5), count, deviations)
        alone = [
            whole_normal_rows([one], count, [scale])[0]
            for one, scale in zip(streams(5), deviations, strict=True)
        ]
        np.testing.assert_array_equal(together, np.stack(alone))
        assert len({row.tobytes() for row in together}) == 5

    def test_they_are_those_of_box_and_muller_one_by_one(self):
        count, scale = 201, 2.0**40
        words = streams(1)[0].words(202)
        expected = []
        for radius, angle in zip(words[:101].tolist(), words[101:].tolist(), strict=True):
            length = scale * math.sqrt(-2.0 * math.log(((radius >> 1) + 0.5) / 2**63))
            turn = 2.0 * math.pi * (angle >> 11) / 2**53
            expected.append((length * math.cos(turn), length * math.sin(turn)))
        cosines, sines = (list(part) for part in zip(*expected, strict=True))
        found = whole_normal_rows(streams(1), count, [scale])[0]
        # Half a unit of rounding, and some units of 2^-53 of the longest draw.
        np.testing.assert_allclose(found, [*cosines, *sines][:count], rtol=0.0, atol=0.51 + 2**-9)

    def test_turns_are_right_at_every_place_of_the_table_and_between(self):
        rng = np.random.default_rng(0)
        places = np.arange(2**12, dtype=np.uint64) << np.uint64(52)
        for rest in (0, 1, 2**51, 2**52 - 1, rng.integers(0, 2**52, 2**12)):
            words = (places + np.asarray(rest, np.uint64))[None]
            cosine, sine, spare = (np.empty(words.shape) for _ in range(3))
            _WholeBlock._turns(words, np.empty(words.shape, np.int64), cosine, sine, spare)
            angles = (words >> np.uint64(11)).astype(float) * 2.0 * np.pi / 2**53
            np.testing.assert_allclose(cosine, np.cos(angles), rtol=0.0, atol=2.0**-50)
            np.testing.assert_allclose(sine, np.sin(angles), rtol=0.0, atol=2.0**-50)

    @pytest.mark.parametrize("deviation", [0.4, 1.7, 6.0])
    def test_whole_numbers_have_the_law_of_a_rounded_normal(self, deviation):
        """The right law passes; half as much again, and rounding toward zero, fail."""
        draws = whole_normal_rows(streams(4), 50_000, [deviation] * 4).ravel()
        edges = np.arange(-math.ceil(3.0 * deviation) - 0.5, 3.0 * deviation + 1.0)

        def fits(found, law):
            counts = np.histogram(found, [-np.inf, *edges, np.inf])[0]
            expected = len(found) * np.diff([0.0, *law.cdf(edges), 1.0])
            return stats.chisquare(counts, expected).pvalue > 1e-6

        assert fits(draws, stats.norm(scale=deviation))
        assert not fits(draws, stats.norm(scale=1.5 * deviation))
        assert not fits(draws, stats.norm(scale=deviation / 1.5))
        exact = deviation * np.random.default_rng(0).standard_normal(len(draws))
        assert not fits(np.trunc(exact), stats.norm(scale=deviation))

    def test_the_tail_and_the_last_bits_are_there(self):
        draws = whole_normal_rows(streams(64), 2**15, [2.0**30] * 64).ravel() / 2.0**30
        assert stats.kstest(draws, "norm").pvalue > 1e-6
        for at in (3.0, 4.0, 4.8):
            expected = 2.0 * len(draws) * stats.norm.sf(at)
            assert abs((np.abs(draws) > at).sum() - expected) < 6.0 * math.sqrt(expected) + 3.0
        whole = whole_normal_rows(streams(8), 2**13, [2.0**30] * 8).ravel().astype(np.int64)
        for bit in range(20):
            ones = int(((whole >> bit) & 1).sum())
            assert abs(ones - len(whole) / 2) < 5.0 * math.sqrt(len(whole)) / 2

    def test_the_smallest_and_the_largest_words_are_finite(self, monkeypatch):
        for word in (0, 2**64 - 1):
            monkeypatch.setattr(
                "fedsafe.client.record_noise.words_of",
                lambda streams, count, word=word: np.full((len(streams), count), word, np.uint64),
            )
            found = whole_normal_rows(streams(1), 4, [2.0**20])[0] / 2.0**20
            assert np.isfinite(found).all()
            assert np.abs(found).max() == pytest.approx(9.42 if word == 0 else 0.0, abs=0.01)


class TestGrid:
    def test_rounding_is_toward_zero_and_exact(self):
        values = torch.tensor([[0.99, -0.99, 0.25, -0.25, 3.0, 1e-30, -1e-30, 0.0]])
        assert to_record_grid(values, [0]).tolist() == [[0, 0, 0, 0, 3, 0, 0, 0]]
        assert to_record_grid(values, [2]).tolist() == [[3, -3, 1, -1, 12, 0, 0, 0]]
        assert to_record_grid(values, [-1]).tolist() == [[0, 0, 0, 0, 1, 0, 0, 0]]

    def test_rounded_sums_are_as_far_apart_as_is_accounted_and_farther_than_the_clip(self):
        """Neighbours on both sides of every line of the grid: rounding costs, and not more than is charged."""
        count, bits = 4096, 4
        unit = 2.0**-bits
        rng = np.random.default_rng(3)
        worst = 0.0
        for trial in range(50):
            step = rng.standard_normal(count) if trial else np.ones(count)
            step /= np.linalg.norm(step)
            first = rng.integers(-50, 50, count) * unit - 0.5 * step * (trial % 2) + (step < 0) * 1e-9
            second = first + step
            apart = to_record_grid(torch.from_numpy(np.stack([first, second])), [bits]).double() * unit
            distance = float((apart[0] - apart[1]).norm())
            assert distance <= sensitivity_on_grid(1.0, count, bits)
            worst = max(worst, distance)
        assert worst > 2.0

    @pytest.mark.parametrize(("clip", "parameters"), [(1.0, 1), (1.5, 26_010), (1e-3, 10**7), (1e4, 79)])
    def test_the_grid_of_a_plan_costs_a_65536th_of_the_noise_at_most(self, clip, parameters):
        bits = record_grid_bits(clip, parameters)
        assert sensitivity_on_grid(clip, parameters, bits) <= clip * (1.0 + 2.0**-16)
        assert sensitivity_on_grid(clip, parameters, bits - 1) > clip * (1.0 + 2.0**-16)
        require_exact(way(clip=clip, grid_bits=bits, noise=1e4), 10**6, parameters)

    @pytest.mark.parametrize(
        "changes", [{"grid_bits": 50}, {"noise": 1e12, "grid_bits": 20}, {"clip": math.inf}, {"clip": 1e15}]
    )
    @pytest.mark.parametrize("trainer", TRAINERS)
    def test_a_grid_on_which_nothing_is_exact_is_refused_before_training(self, trainer, changes):
        build, training, parts, start = make_problem("relu", **{"grid_bits": 20, **changes})
        with pytest.raises(ConfigError, match="grid_bits = ") as caught:
            build(trainer, training=training).train(start, make_jobs(parts, [0]))
        assert "\n" not in str(caught.value)

    def test_the_last_bits_tell_sums_apart_in_single_precision_and_not_on_the_grid(self):
        """Mironov's observation: near zero, a sum of one leaves multiples of 2^-24 alone."""
        count = 2**16

        def fine(outputs):
            near = outputs[np.abs(outputs) < 2.0**-6]
            assert len(near) > 100
            return float((np.mod(near * 2.0**24, 1.0) != 0.0).mean())

        noise = normal_rows(streams(1), count)[0]
        assert fine((np.float32(0.0) + noise).astype(float)) > 0.5
        assert fine((np.float32(1.0) + noise).astype(float)) == 0.0
        for value in (0.0, 1.0):
            sums = to_record_grid(torch.full((1, count), value), [20])
            released = noised_on_grid(sums, [way()], streams(1))[0].numpy()
            assert fine(released) == 0.0
            assert (np.mod(released * 2.0**20, 1.0) == 0.0).all()


def in_units(trainer, *, bits, name="relu", noise=1.3, rate=0.25, count=8, **changes):
    """What one step released, in units of a grid that single precision holds: the learning rate is the divisor."""
    sizes = (64,) * count
    build, training, parts, start = make_problem(
        name,
        sizes=sizes,
        steps=1,
        rate=rate,
        noise=noise,
        learning_rate=max(1.0, 64 * rate),
        grid_bits=bits,
        **changes,
    )
    made = build(trainer, training=training)
    released = -made.train(np.zeros_like(start), make_jobs(parts, range(count))).astype(float)
    return released * 2.0**bits


class TestTrainers:
    @pytest.mark.parametrize("trainer", TRAINERS)
    def test_what_is_released_lies_on_the_grid(self, trainer):
        released = in_units(trainer, bits=10, name="softmax")
        np.testing.assert_array_equal(released, np.rint(released))
        assert (np.mod(released, 2.0) == 1.0).mean() > 0.4
        without = in_units(trainer, bits=10, name="softmax", noise=0.0)  # nothing to protect is not rounded
        assert (without != np.rint(without)).mean() > 0.9

    @pytest.mark.parametrize("trainer", TRAINERS)
    @pytest.mark.parametrize("bits", [12, -1, 2])
    def test_the_noise_has_the_scale_of_what_is_accounted_on_a_coarse_grid_too(self, trainer, bits):
        noise = in_units(trainer, bits=bits, rate=1e-9, count=60, clip=0.8)
        deviation = 1.3 * sensitivity_on_grid(0.8, noise.shape[1], bits) * 2.0**bits

        def fits(scale):
            # Rounding to whole numbers adds a twelfth of a unit's square to the variance.
            low, high = stats.chi2.ppf([5e-7, 1.0 - 5e-7], noise.size)
            return low <= float(np.square(noise).sum() / (scale**2 + 1.0 / 12.0)) <= high

        assert fits(deviation)
        assert not fits(deviation * 2.0 / 3.0)
        assert not fits(deviation * 3.0 / 2.0)
        if bits == 12:
            assert stats.kstest(noise.ravel() / deviation, "norm").pvalue > 1e-6
        else:
            assert not fits(1.3 * 0.8 * 2.0**bits)
        assert np.abs(np.corrcoef(noise) - np.eye(60)).max() < 0.6

    def test_every_trainer_draws_the_same_noise(self):
        noise = [in_units(trainer, bits=10, rate=1e-9) for trainer in TRAINERS]
        for other in noise[1:]:
            np.testing.assert_array_equal(noise[0], other)

    @pytest.mark.parametrize("trainer", TRAINERS)
    @pytest.mark.parametrize("name", ["logistic", "gelu"])
    def test_no_packing_changes_a_bit(self, trainer, name):
        rng = np.random.default_rng(5)
        sizes = tuple(np.maximum(1, rng.lognormal(np.log(60), 0.8, 20).astype(int)).tolist())
        settings = {"rate": 0.1, "steps": 3, "proximal": 0.2, "grid_bits": 24}
        build, training, parts, start = make_problem(name, sizes=sizes, **settings)
        compare_packings(
            build(trainer, training=training), parts, start, 4 if trainer == "stacked" else 1, rng
        )

    @pytest.mark.parametrize("settings", [{}, {"proximal": 0.3}], ids=str)
    def test_trainers_agree_up_to_rounding(self, settings):
        build, training, parts, start = make_problem("tanh", grid_bits=26, **settings)
        found = [build(t, training=training).train(start, make_jobs(parts, range(8))) for t in TRAINERS]
        for other in found[1:]:
            np.testing.assert_allclose(found[0], other, rtol=2e-5, atol=5e-6)

    def test_clients_of_one_call_may_have_grids_of_their_own_or_none(self):
        build, training, parts, start = make_problem("relu", sizes=(40,) * 6)
        made = build("stacked", training=training)
        grids = [None, 12, 20, None, 12, 8]
        ways = [dataclasses.replace(training, grid_bits=bits) for bits in grids]
        together = made.train(start, make_jobs(parts, range(6), trainings=dict(enumerate(ways))))
        alone = [
            made.train(start, make_jobs(parts, [c], trainings=dict(enumerate(ways))))[0] for c in range(6)
        ]
        np.testing.assert_array_equal(together, np.stack(alone))
        without = made.train(start, make_jobs(parts, range(6)))
        assert [bool((a == b).all()) for a, b in zip(together, without, strict=True)] == [
            bits is None for bits in grids
        ]

    @pytest.mark.parametrize("trainer", TRAINERS)
    @pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30, 0.0])
    def test_a_bad_record_leaves_every_other_client_bit_identical(self, trainer, bad):
        build, training, parts, start = make_problem("relu", rate=0.9, grid_bits=20)
        before = build(trainer, training=training).train(start, make_jobs(parts, range(8)))
        x = build.keywords["x"].clone()
        x[parts[3][0]] = bad
        build.keywords["x"] = x
        after = build(trainer, training=training).train(start, make_jobs(parts, range(8)))
        np.testing.assert_array_equal(np.delete(after, 3, 0), np.delete(before, 3, 0))
        assert np.isfinite(after).all()

    def test_an_example_that_is_written_out_is_rounded_by_itself(self):
        """Many tiny gradients vanish one by one, where their sum would not: nothing grows."""
        build, training, parts, start = make_problem(
            "logistic", sizes=(200,), rate=1.0, steps=1, clip=1e-3, noise=1e-9, grid_bits=9
        )
        for trainer, stays in (("vmap", True), ("stacked", False)):
            trained = build(trainer, training=training).train(start, make_jobs(parts, [0]))
            assert bool((trained == start).all()) is stays

    def test_a_large_batch_in_parts_is_on_the_grid_too(self, monkeypatch):
        from fedsafe.client.stacked import packing

        whole = in_units("stacked", bits=10, name="softmax", rate=1.0)
        monkeypatch.setattr(packing, "_SHARED_VALUES", 1)
        monkeypatch.setattr(packing, "_PART_VALUES", 1)
        parts = in_units("stacked", bits=10, name="softmax", rate=1.0)
        np.testing.assert_array_equal(parts, np.rint(parts))
        assert np.abs(parts - whole).max() <= 1.0
