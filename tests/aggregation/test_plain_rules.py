"""Rules without a guarantee equal their textbook definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedsafe.aggregation import FedAvg, Median, RowRule, TrimmedMean, Updates
from fedsafe.rng import Stream, StreamId, key_from_seed

rows_of_clients = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 8), st.integers(1, 5)), elements=st.floats(-1e6, 1e6)
)


def unused() -> Stream:
    return Stream(key_from_seed(0), StreamId(purpose="client noise", client=-1, round=1, digest=b""))


def finished(rule: RowRule, rows: np.ndarray, examples: np.ndarray) -> np.ndarray:
    updates = Updates(clients=np.arange(len(rows)), rows=rows, examples=examples)
    return rule.finish(rule.add(rule.zero(rows.shape[1]), updates), unused())


@given(rows_of_clients, st.data())
def test_fedavg_is_the_mean_weighted_by_examples(rows, data):
    examples = data.draw(hnp.arrays(np.float64, len(rows), elements=st.integers(1, 10_000).map(float)))
    expected = np.average(rows, axis=0, weights=examples)
    np.testing.assert_allclose(finished(FedAvg(), rows, examples), expected, rtol=1e-12, atol=1e-9)


def test_fedavg_of_equal_updates_is_that_update_whatever_the_weights():
    rows = np.tile([0.25, -3.0], (5, 1))
    np.testing.assert_array_equal(finished(FedAvg(), rows, np.array([1.0, 2, 4, 8, 16])), [0.25, -3.0])


def test_fedavg_lets_a_client_with_half_the_data_move_half_the_mean():
    """Which is why it carries no client-level claim."""
    rows, examples = np.zeros((10, 1)), np.array([900.0] + [100.0] * 9)
    rows[0] = 1.0
    assert finished(FedAvg(), rows, examples) == pytest.approx(0.5)


@given(rows_of_clients, st.data())
def test_fedavg_has_the_same_bits_in_any_order_and_packing(rows, data):
    order = data.draw(st.permutations(range(len(rows))))
    cut = data.draw(st.integers(0, len(rows)))
    rule, examples = FedAvg(), 1.0 + np.arange(len(rows))
    packed = rule.zero(rows.shape[1])
    for some in (order[:cut], order[cut:]):
        updates = Updates(clients=np.array(some, int), rows=rows[some], examples=examples[some])
        packed = rule.merge(rule.add(rule.zero(rows.shape[1]), updates), packed)
    assert rule.finish(packed, unused()).tobytes() == finished(rule, rows, examples).tobytes()


def test_fedavg_keeps_no_row():
    """More rows than are summed at once, of every size; the fold is as large as for one."""
    rows = np.random.default_rng(0).normal(size=(5000, 3)) * [1e-6, 1.0, 1e6]
    rule, examples = FedAvg(), np.full(5000, 7.0)
    fold = rule.add(rule.zero(3), Updates(clients=np.arange(5000), rows=rows, examples=examples))
    assert {name: array.size for name, array in fold.arrays.items()} == {
        "whole": 3,
        "fraction": 3,
        "examples": 1,
    }
    np.testing.assert_allclose(rule.finish(fold, unused()), rows.mean(axis=0), rtol=1e-10, atol=1e-13)


def test_fedavg_cuts_what_is_beyond_its_range_and_loses_nothing_else():
    rows = np.array([[1e300, 0.5], [-1e30, 0.25]])
    np.testing.assert_array_equal(finished(FedAvg(), rows[:1], np.ones(1)), [2.0**40, 0.5])
    np.testing.assert_array_equal(finished(FedAvg(), rows, np.ones(2)), [0.0, 0.375])


@given(rows_of_clients)
def test_the_median_is_numpys(rows):
    np.testing.assert_array_equal(finished(Median(), rows, np.ones(len(rows))), np.median(rows, axis=0))


def test_the_median_withstands_a_minority_of_any_size_of_update():
    rows = np.concatenate([np.random.default_rng(0).normal(size=(5, 3)), np.full((4, 3), 1e30)])
    assert (np.abs(finished(Median(), rows, np.ones(9))) < 5).all()


@pytest.mark.parametrize("rule", [FedAvg(), Median()], ids=["fedavg", "median"])
def test_without_replies_the_model_stays(rule):
    np.testing.assert_array_equal(rule.finish(rule.zero(3), unused()), np.zeros(3))


@pytest.mark.parametrize("rule", [FedAvg(), Median()], ids=["fedavg", "median"])
def test_neither_adds_noise(rule):
    rows = np.random.default_rng(1).normal(size=(4, 3))
    first = finished(rule, rows, np.ones(4))
    other = Stream(key_from_seed(1), StreamId(purpose="client noise", client=-1, round=2, digest=b"x"))
    updates = Updates(clients=np.arange(4), rows=rows, examples=np.ones(4))
    np.testing.assert_array_equal(rule.finish(rule.add(rule.zero(3), updates), other), first)


def test_the_trimmed_mean_by_hand():
    """Of five replies a share of 0.2 leaves out one at each end of each coordinate, whoever sent it."""
    rows = np.array([[1.0, 50.0], [2.0, 40.0], [4.0, 30.0], [9.0, 20.0], [100.0, -1e30]])
    np.testing.assert_array_equal(finished(TrimmedMean(share=0.2), rows, np.ones(5)), [5.0, 30.0])
    # 0.39 of five is one, 0.4 is two.
    np.testing.assert_array_equal(finished(TrimmedMean(share=0.39), rows, np.ones(5)), [5.0, 30.0])
    np.testing.assert_array_equal(finished(TrimmedMean(share=0.4), rows, np.ones(5)), [4.0, 30.0])


@given(rows_of_clients)
def test_trimming_nothing_is_the_unweighted_mean(rows):
    mean = finished(TrimmedMean(share=0.0), rows, 1.0 + np.arange(len(rows)))
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-12, atol=1e-9)


@given(st.integers(1, 60), st.sampled_from([0.1, 0.2, 0.29, 0.3, 0.45, 0.499]))
def test_the_trimmed_mean_withstands_its_share_of_attackers(clients, share):
    attackers = int(round(share * 1000) * clients // 1000)
    rows = np.random.default_rng(clients).uniform(-1, 1, (clients, 3))
    for value in (1e30, -1e30):
        rows[:attackers] = value
        assert (np.abs(finished(TrimmedMean(share=share), rows, np.ones(clients))) <= 1).all()


def test_one_attacker_more_than_its_share_moves_the_trimmed_mean():
    rows = np.zeros((10, 1))
    rows[:2] = 1e30
    assert finished(TrimmedMean(share=0.1), rows, np.ones(10)) > 1e20
