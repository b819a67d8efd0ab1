"""Batches of a fixed size: exactly uniform over sets of records, and the same in every trainer and packing."""

import itertools

import numpy as np
import pytest
from scipy import stats
from training_problems import TRAINERS, compare_packings, make_jobs, make_problem

from fedsafe.client.fixed_batches import fixed_batches
from fedsafe.errors import ConfigError
from fedsafe.rng import Stream, StreamId


def stream():
    return Stream(bytes(32), StreamId(purpose="batches", client=0, round=1, digest=b""))


def test_every_set_of_records_is_as_likely():
    """All 20 sets of three of six records: the right law passes, one that prefers neighbours fails."""
    steps = 20_000
    batches = fixed_batches(stream(), 6, 3, steps)
    sets = {chosen: number for number, chosen in enumerate(itertools.combinations(range(6), 3))}

    def p_value(found):
        counts = np.bincount([sets[tuple(sorted(row))] for row in found.tolist()], minlength=20)
        return stats.chisquare(counts).pvalue

    assert p_value(batches) > 1e-6
    starts = np.random.default_rng(0).integers(0, 6, (steps // 4, 1))
    runs = np.sort((starts + np.arange(3)) % 6)
    assert p_value(np.concatenate([batches[: 3 * steps // 4], runs])) < 1e-6


def test_steps_are_independent():
    batches = fixed_batches(stream(), 10, 5, 20_000)
    there = np.zeros((len(batches), 10), bool)
    np.put_along_axis(there, batches, True, 1)
    again = (there[1:, 0] & there[:-1, 0]).mean()
    assert abs(again - 0.25) < 5.0 * np.sqrt(0.25 * 0.75 / len(batches))


def test_a_batch_has_each_record_once_and_in_order():
    batches = fixed_batches(stream(), 37, 12, 50)
    assert batches.shape == (50, 12)
    assert (np.diff(batches, axis=1) > 0).all()
    assert batches.min() >= 0
    assert batches.max() < 37
    np.testing.assert_array_equal(fixed_batches(stream(), 4, 4, 2), [[0, 1, 2, 3]] * 2)


def test_a_tie_at_the_border_is_drawn_again():
    draws = iter([[5, 1, 5, 9], [5, 1, 1, 9]])

    class Ties:
        def words(self, count):
            return np.array(next(draws), np.uint64)

    np.testing.assert_array_equal(fixed_batches(Ties(), 4, 2, 1), [[1, 2]])


@pytest.mark.parametrize("size", [0, 6])
def test_a_batch_that_a_client_cannot_fill_is_refused(size):
    with pytest.raises(ConfigError, match=f"batch_size = {size} for a client of 5 records"):
        fixed_batches(stream(), 5, size, 1)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_client_of_too_few_records_is_refused(trainer):
    build, training, parts, start = make_problem("relu", sizes=(5, 40), batch_size=8)
    with pytest.raises(ConfigError, match="batch_size = 8 for a client of 5 records"):
        build(trainer, training=training).train(start, make_jobs(parts, range(2)))


@pytest.mark.parametrize("grid_bits", [None, 22])
def test_trainers_agree_and_no_packing_changes_a_bit(grid_bits):
    rng = np.random.default_rng(2)
    sizes = tuple(rng.integers(20, 120, 12).tolist())
    build, training, parts, start = make_problem(
        "tanh", sizes=sizes, steps=3, batch_size=20, rate=0.01, grid_bits=grid_bits
    )
    made = {trainer: build(trainer, training=training) for trainer in TRAINERS}
    compare_packings(made["stacked"], parts, start, 4, rng)
    found = [one.train(start, make_jobs(parts, range(12))) for one in made.values()]
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, rtol=2e-5, atol=5e-6)


def test_the_batches_are_those_of_the_job_and_the_divisor_their_size():
    """Every batch is all records: one step without noise is the gradient's mean, whatever the rate says."""
    build, training, parts, start = make_problem(
        "logistic", sizes=(30, 30), steps=1, noise=0.0, rate=0.1, batch_size=30, clip=1e6
    )
    _, whole, _, _ = make_problem("logistic", sizes=(30, 30), steps=1, noise=0.0, rate=1.0, clip=1e6)
    assert training.divisor(400) == 30.0
    for trainer in TRAINERS:
        found, expected = (
            build(trainer, training=way).train(start, make_jobs(parts, [0, 1])) for way in (training, whole)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    batches = make_jobs(parts, [1])[0].sample(training)
    assert [sorted(batch.tolist()) for batch in batches] == [parts[1].tolist()]


def test_clients_of_one_call_may_be_sampled_either_way():
    build, training, parts, start = make_problem("relu", sizes=(40,) * 5, batch_size=12)
    _, poisson, _, _ = make_problem("relu", sizes=(40,) * 5)
    _, other, _, _ = make_problem("relu", sizes=(40,) * 5, batch_size=16, steps=2)
    ways = dict(enumerate([training, poisson, other, training, poisson]))
    made = build("stacked", training=training)
    together = made.train(start, make_jobs(parts, range(5), trainings=ways))
    alone = [made.train(start, make_jobs(parts, [client], trainings=ways))[0] for client in range(5)]
    np.testing.assert_array_equal(together, np.stack(alone))
