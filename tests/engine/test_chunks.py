"""Chunks cover a cohort once, none costs much more than its share, and slow workers get less."""

from itertools import pairwise

import numpy as np
import pytest

from fedsafe.engine.chunks import Pace, cut, cut_by_number


def items(parts):
    return sorted(item for part in parts for item in part.items)


@pytest.mark.parametrize("seconds", [None, 0.01, 5.0])
def test_every_message_is_in_one_chunk_and_none_costs_much_more_than_its_share(seconds):
    rng = np.random.default_rng(0)
    for _ in range(200):
        count, workers = int(rng.integers(1, 60)), int(rng.integers(1, 6))
        costs = rng.lognormal(3.0, rng.uniform(0.0, 1.5), count)
        parts = cut(costs.tolist(), [1.0 / workers] * workers, seconds)
        assert items(parts) == list(range(count))
        share = costs.sum() / workers
        for part in parts:
            assert part.cost == pytest.approx(costs[list(part.items)].sum())
            assert part.cost <= share + costs[list(part.items)].max() + 1e-9


def test_a_short_round_is_one_chunk_for_each_worker_and_a_long_one_ends_in_small_chunks():
    costs = [1.0] * 100
    assert [len(part.items) for part in cut(costs, [0.5, 0.5], 0.05)] == [50, 50]
    long = cut(costs, [0.5, 0.5], 5.0)
    assert [len(part.items) for part in long] == [35, 35, 10, 10, 5, 5]
    assert [part.worker for part in long] == [0, 1, None, None, None, None]


def test_a_chunk_holds_neighbours_in_cost_and_the_dearest_come_first():
    rng = np.random.default_rng(1)
    costs = rng.lognormal(0.0, 1.0, 40)
    parts = cut(costs.tolist(), [0.25] * 4, 5.0)
    for before, after in pairwise(parts):
        assert costs[list(before.items)].min() >= costs[list(after.items)].max()


def test_a_worker_that_is_slow_gets_less_and_one_accident_does_not_decide():
    pace = Pace(workers=2)
    assert pace.shares("train") == [0.5, 0.5]
    assert pace.seconds("train", 10.0) is None
    pace.add("train", 0, cost=10.0, seconds=1.0)
    pace.add("train", 1, cost=10.0, seconds=3.0)
    assert pace.shares("train") == pytest.approx([0.75, 0.25])
    assert pace.seconds("train", 10.0) == pytest.approx(1.0)
    assert pace.shares("evaluate") == [0.5, 0.5]
    parts = cut([1.0] * 100, pace.shares("train"), 0.1)
    assert [len(part.items) for part in parts] == [75, 25]
    pace.add("train", 1, cost=10.0, seconds=1000.0)
    assert pace.shares("train")[1] > 0.05
    pace.forget(1)
    assert pace.shares("train") == pytest.approx([0.5, 0.5])


def test_a_given_number_is_kept_and_clients_without_cost_are_still_sent():
    assert [len(part.items) for part in cut_by_number([1.0] * 10, 4)] == [4, 4, 2]
    assert [part.items for part in cut_by_number([1.0, 1.0, 5.0], 2)] == [(2,), (0, 1)]
    assert items(cut([0.0] * 5, [0.5, 0.5], None)) == list(range(5))
