"""RayGrid ships a model once a round, cuts fair chunks, and fails with a sentence."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from grid_clients import make_apps

from fedsafe.engine import dispatch, ray_grid
from fedsafe.engine.ray_grid import RayGrid
from fedsafe.errors import EngineError

LARGE = 500_000


@pytest.fixture(scope="module")
def grid(ray_of_two):
    grid = RayGrid(clients=8, make_apps=make_apps, workers=2)
    grid.wait_until_ready()
    yield grid
    grid.close()


def test_an_app_that_cannot_be_made_is_a_sentence_and_not_a_trace(ray_of_two):
    """First, while no other grid holds the processors."""

    def broken():
        raise FileNotFoundError("no such data")

    failing = RayGrid(clients=1, make_apps=broken, workers=1)
    try:
        with pytest.raises(EngineError, match=r"^a worker could not start: .*no such data") as caught:
            failing.wait_until_ready()
        assert "\n" not in str(caught.value)
    finally:
        failing.close()


@pytest.mark.parametrize("share_content", [True, False])
def test_a_model_that_messages_share_is_put_once_and_no_chunk_carries_it(grid, monkeypatch, share_content):
    arrays = ArrayRecord([np.ones(LARGE, np.float32)])
    config = ConfigRecord({"round": 1})
    shared = RecordDict({"arrays": arrays, "config": config})

    def content():
        return shared if share_content else RecordDict({"arrays": arrays, "config": config})

    sent = [grid.create_message(content(), "train", node, "1") for node in grid.get_node_ids()]
    put, chunks = [], []
    real_put, real_packed = ray_grid.ray.put, dispatch.packed

    def counting_put(value):
        put.append(value)
        return real_put(value)

    def measuring(value, tokens):
        chunks.append(real_packed(value, tokens))
        return chunks[-1]

    monkeypatch.setattr(ray_grid.ray, "put", counting_put)
    monkeypatch.setattr(dispatch, "packed", measuring)
    replies = list(grid.send_and_receive(sent))
    assert len(put) == 1
    assert list(put[0].values()) == [arrays]
    assert len(chunks) > 1
    assert sum(map(len, chunks)) < 4 * LARGE / 100
    assert len(replies) == 8
    for reply in replies:
        partition = reply.content.metric_records["metrics"]["partition"]
        assert reply.content.array_records["arrays"].to_numpy_ndarrays()[0][-1] == 2.0 + partition


def test_more_workers_than_the_running_ray_has_processors_are_refused_at_once(ray_of_two):
    with pytest.raises(EngineError, match=r"engine.workers = 64.* has 2 processors"):
        RayGrid(clients=1, make_apps=make_apps, workers=64)


def sent(grid, clients=None, **config):
    content = RecordDict({"arrays": ArrayRecord([np.zeros(2, np.float32)]), "config": ConfigRecord(config)})
    nodes = list(grid.get_node_ids())
    return [
        grid.create_message(content, "train", nodes[client], "1")
        for client in (range(len(nodes)) if clients is None else clients)
    ]


def values(replies, name):
    return [reply.content.metric_records["metrics"][name] for reply in replies]


def test_pushing_does_not_wait_and_replies_can_be_pulled_as_they_finish(grid, monkeypatch, tmp_path):
    """The slow client waits for the test, so that no clock decides who is first."""
    monkeypatch.setattr(grid, "chunk", 1)
    gate = tmp_path / "gate"
    slow = list(grid.push_messages(sent(grid, clients=[0], gate=str(gate))))
    fast = list(grid.push_messages(sent(grid, clients=[1])))
    found = []
    while not found:
        found = list(grid.pull_messages([*slow, *fast]))
    assert values(found, "partition") == [1]
    gate.touch()
    while len(found) < 2:
        found += grid.pull_messages(slow)
    assert values(found, "partition") == [1, 0]


def test_what_arrives_after_the_timeout_is_dropped(grid, tmp_path):
    before = values(grid.send_and_receive(sent(grid, clients=[0])), "count")[0]
    gate = tmp_path / "gate"
    assert list(grid.send_and_receive(sent(grid, clients=[0], gate=str(gate)), timeout=0.05)) == []
    gate.touch()
    replies = list(grid.send_and_receive(sent(grid, clients=[0])))
    assert values(replies, "count") == [before + 2], (
        "the late one kept its state, and nobody heard of its reply"
    )


def test_a_worker_that_is_killed_in_a_round_is_replaced_and_nothing_is_counted_twice(grid, tmp_path):
    first = values(grid.send_and_receive(sent(grid)), "count")
    mark = str(tmp_path / "killed")
    replies = list(grid.send_and_receive(sent(grid, kill=3, mark=mark)))
    assert Path(mark).exists()
    assert values(replies, "partition") == list(range(8))
    assert values(replies, "count") == [count + 1 for count in first], (
        "contexts are those before the lost chunk"
    )
    assert values(grid.send_and_receive(sent(grid)), "count") == [count + 2 for count in first]


def test_a_client_that_kills_every_worker_is_answered_for_and_the_others_answer(grid):
    replies = list(grid.send_and_receive(sent(grid, kill=2)))
    failed = [reply for reply in replies if reply.has_error()]
    assert values([reply for reply in replies if not reply.has_error()], "partition") == [0, 1, 3, 4, 5, 6, 7]
    assert [reply.error.reason.split(":")[0] for reply in failed] == [
        "3 workers were lost to the client on node 4, the last"
    ]
    assert "\n" not in failed[0].error.reason
    assert values(grid.send_and_receive(sent(grid)), "partition") == list(range(8))
