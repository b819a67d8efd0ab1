"""RayGrid ships a model once a round, cuts fair chunks, and fails with a sentence."""

from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from grid_clients import make_apps

from fedsafe.engine import ray_grid
from fedsafe.engine.ray_grid import RayGrid
from fedsafe.errors import EngineError

LARGE = 500_000


@pytest.fixture(scope="module")
def grid(ray_of_two):
    grid = RayGrid(clients=8, make_apps=make_apps, workers=2)
    grid.wait_until_ready()
    yield grid
    grid.close()


def cut(costs, workers, chunk=None):
    """The clients of each chunk that RayGrid would send."""
    sent = [SimpleNamespace(metadata=SimpleNamespace(dst_node_id=node)) for node in range(len(costs))]
    grid = SimpleNamespace(chunk=chunk, cost=lambda node: costs[node], _actors=[None] * workers)
    return [[message.metadata.dst_node_id for message in part] for part in RayGrid._cut(grid, sent)]


@pytest.mark.parametrize("share_content", [True, False])
def test_a_model_that_messages_share_is_put_once_and_no_chunk_carries_it(grid, monkeypatch, share_content):
    arrays = ArrayRecord([np.ones(LARGE, np.float32)])
    config = ConfigRecord({"round": 1})
    shared = RecordDict({"arrays": arrays, "config": config})

    def content():
        return shared if share_content else RecordDict({"arrays": arrays, "config": config})

    sent = [grid.create_message(content(), "train", node, "1") for node in grid.get_node_ids()]
    put, chunks = [], []
    real_put, real_pickle = ray_grid.ray.put, ray_grid._pickle

    def counting_put(value):
        put.append(value)
        return real_put(value)

    def measuring_pickle(value, tokens):
        chunks.append(real_pickle(value, tokens))
        return chunks[-1]

    monkeypatch.setattr(ray_grid.ray, "put", counting_put)
    monkeypatch.setattr(ray_grid, "_pickle", measuring_pickle)
    replies = list(grid.send_and_receive(sent))
    assert len(put) == 1
    assert list(put[0].values()) == [arrays]
    assert len(chunks) > 1
    assert sum(map(len, chunks)) < 4 * LARGE / 100
    assert len(replies) == 8
    for reply in replies:
        partition = reply.content.metric_records["metrics"]["partition"]
        assert reply.content.array_records["arrays"].to_numpy_ndarrays()[0][-1] == 2.0 + partition


def test_chunks_cover_every_message_once_and_none_costs_much_more_than_its_share():
    rng = np.random.default_rng(0)
    for _ in range(200):
        count, workers = int(rng.integers(1, 60)), int(rng.integers(1, 6))
        costs = rng.lognormal(3.0, rng.uniform(0.0, 1.5), count)
        chunks = cut(costs, workers)
        assert sorted(node for part in chunks for node in part) == list(range(count))
        assert len(chunks) <= workers
        share = costs.sum() / workers
        for part in chunks:
            assert costs[part].sum() <= share + costs[part].max() + 1e-9


def test_a_given_chunk_size_is_kept_and_clients_without_cost_are_still_sent():
    assert [len(part) for part in cut(np.ones(10), 2, chunk=4)] == [4, 4, 2]
    assert sorted(node for part in cut(np.zeros(5), 2) for node in part) == list(range(5))


def test_an_app_that_cannot_be_made_is_a_sentence_and_not_a_trace(ray_of_two, grid):
    """One worker, as the other grid keeps its two: it must fail at once, not wait for a processor."""
    kept = grid._actors.pop()
    ray_grid.ray.kill(kept)

    def broken():
        raise FileNotFoundError("no such data")

    failing = RayGrid(clients=1, make_apps=broken, workers=1)
    try:
        with pytest.raises(EngineError, match=r"^a worker could not start: .*no such data") as caught:
            failing.wait_until_ready()
        assert "\n" not in str(caught.value)
    finally:
        failing.close()


def test_more_workers_than_the_running_ray_has_processors_are_refused_at_once(ray_of_two):
    with pytest.raises(EngineError, match=r"engine.workers = 64.* has 2 processors"):
        RayGrid(clients=1, make_apps=make_apps, workers=64)


def test_a_worker_that_dies_in_a_round_is_a_sentence_that_says_to_resume(grid):
    sent = [
        grid.create_message(RecordDict({"arrays": ArrayRecord([np.ones(1)])}), "train", node, "1")
        for node in grid.get_node_ids()
    ]
    for actor in grid._actors:
        ray_grid.ray.kill(actor)
    with pytest.raises(EngineError, match="resume the run to repeat the round") as caught:
        grid.send_and_receive(sent)
    assert "\n" not in str(caught.value)
