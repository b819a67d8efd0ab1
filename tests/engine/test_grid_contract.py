"""Every grid of ours runs any Flower app, and the app cannot tell which grid it runs on."""

import copy
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from grid_clients import make_apps

from fedsafe.engine import ClientApps, InlineGrid, LocalGrid
from fedsafe.engine.grid import RUN_ID, SERVER_NODE
from fedsafe.federation import server_context

CLIENTS = 5


@pytest.fixture(scope="module", params=["inline", "inline in twos", "ray"])
def grid(request: pytest.FixtureRequest) -> Iterator[LocalGrid]:
    if request.param != "ray":
        yield InlineGrid(clients=CLIENTS, apps=make_apps(), chunk=2 if "twos" in request.param else None)
        return
    request.getfixturevalue("ray_of_two")
    from fedsafe.engine.ray_grid import RayGrid

    grid = RayGrid(clients=CLIENTS, make_apps=make_apps, workers=2)
    grid.wait_until_ready()
    yield grid
    grid.close()


def messages(grid: LocalGrid, clients=range(CLIENTS), **config) -> list[Message]:
    """One message for each client; all share one content, as Flower's own strategies do it."""
    arrays = ArrayRecord([np.zeros(3, np.float32)])
    content = RecordDict({"arrays": arrays, "config": ConfigRecord(config)})
    nodes = list(grid.get_node_ids())
    return [grid.create_message(content, "train", nodes[client], "1") for client in clients]


def metrics(replies, name: str) -> list:
    return [reply.content.metric_records["metrics"][name] for reply in replies]


def pulled(grid, ids) -> list[Message]:
    """The replies to these messages, as soon as all are there."""
    found, end = [], time.monotonic() + 30.0
    while len(found) < len(ids):
        assert time.monotonic() < end
        found += grid.pull_messages(ids)
        time.sleep(0.002)
    return sorted(found, key=lambda reply: int(reply.metadata.reply_to_message_id))


def test_nodes_are_distinct_and_none_is_the_server(grid):
    nodes = list(grid.get_node_ids())
    assert len(set(nodes)) == CLIENTS
    assert TaskIdentity.node_id not in nodes


def test_each_message_reaches_its_node_and_each_reply_names_its_message(grid):
    sent = messages(grid, clients=[3, 0, 4])
    replies = list(grid.send_and_receive(sent))
    by_id = {message.metadata.message_id: message for message in sent}
    assert len(by_id) == 3
    assert metrics(replies, "partition") == [3, 0, 4], "replies come in the order of the messages"
    for reply in replies:
        message = by_id[reply.metadata.reply_to_message_id]
        assert reply.content.metric_records["metrics"]["node"] == message.metadata.dst_node_id
        assert reply.metadata.src_node_id == message.metadata.dst_node_id
        assert reply.content.metric_records["metrics"]["nodes"] == CLIENTS


def test_message_ids_never_repeat(grid):
    sent = [*messages(grid), *messages(grid)]
    grid.push_messages(sent[:CLIENTS])
    list(grid.send_and_receive(sent[CLIENTS:]))
    assert len({message.metadata.message_id for message in sent}) == 2 * CLIENTS


def test_what_an_app_keeps_in_its_context_is_there_in_the_next_round(grid):
    first = metrics(grid.send_and_receive(messages(grid)), "count")
    assert metrics(grid.send_and_receive(messages(grid)), "count") == [count + 1 for count in first]
    assert metrics(grid.send_and_receive(messages(grid, clients=[2])), "count") == [first[2] + 2]
    assert metrics(grid.send_and_receive(messages(grid, clients=[1])), "count") == [first[1] + 2]


def test_a_client_that_fails_is_an_error_reply_and_the_others_arrive(grid):
    before = metrics(grid.send_and_receive(messages(grid)), "count")
    replies = list(grid.send_and_receive(messages(grid, fail=2)))
    assert [reply.has_error() for reply in replies] == [False, False, True, False, False]
    assert "client 2 was told to fail" in replies[2].error.reason
    after = metrics(grid.send_and_receive(messages(grid)), "count")
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 2, 1, 2, 2]


def test_pushed_messages_are_pulled_once_each(grid):
    ids = list(grid.push_messages(messages(grid)))
    assert metrics(pulled(grid, ids[:2]), "partition") == [0, 1]
    assert metrics(pulled(grid, ids[2:]), "partition") == [2, 3, 4]
    assert list(grid.pull_messages(ids)) == []


def test_messages_to_one_node_are_run_one_after_the_other(grid):
    before = metrics(grid.send_and_receive(messages(grid, clients=[3])), "count")[0]
    ids = [*grid.push_messages(messages(grid, clients=[3, 3, 1])), *grid.push_messages(messages(grid, [3]))]
    counts = metrics(pulled(grid, ids), "count")
    assert [counts[0], counts[1], counts[3]] == [before + 1, before + 2, before + 3]


def test_a_message_whose_time_is_over_is_an_error_reply(grid):
    late = messages(grid, clients=[1])[0]
    late.metadata.__dict__["_created_at"] = time.time() - 10.0
    late.metadata.__dict__["_ttl"] = 5.0
    sent = [*messages(grid, clients=[0]), late]
    replies = list(grid.send_and_receive(sent))
    assert [reply.has_error() for reply in replies] == [False, True]
    assert "its ttl is 5 s" in replies[1].error.reason


def test_a_message_to_nobody_is_passed_over(grid):
    message = grid.create_message(RecordDict({}), "train", 987654, "1")
    assert list(grid.push_messages([message])) == []
    assert metrics(grid.send_and_receive([message, *messages(grid, clients=[0])]), "partition") == [0]


def test_many_threads_may_send(grid):
    """As Flower's older strategies do: one thread and one message for each client."""
    with ThreadPoolExecutor(5) as pool:
        answers = list(
            pool.map(
                lambda client: list(grid.send_and_receive(messages(grid, clients=[client]))), range(CLIENTS)
            )
        )
    assert [metrics(replies, "partition") for replies in answers] == [[client] for client in range(CLIENTS)]


def test_the_tally_counts_messages_replies_and_errors(grid):
    before = replace(grid.tally)
    list(grid.send_and_receive(messages(grid, fail=2)))
    pulled(grid, list(grid.push_messages(messages(grid, clients=[1]))))
    after = grid.tally
    assert (after.messages - before.messages, after.replies - before.replies) == (CLIENTS + 1, CLIENTS + 1)
    assert after.errors - before.errors == 1


def test_nobody_to_ask_is_no_reply(grid):
    assert list(grid.send_and_receive([])) == []
    assert list(grid.push_messages([])) == []
    assert list(grid.pull_messages([])) == []


def test_a_client_that_changes_its_message_changes_nobody_elses(grid):
    sent = messages(grid, meddled=0)
    assert metrics(grid.send_and_receive(sent), "seen") == [0] * CLIENTS
    assert [message.content.config_records["config"]["meddled"] for message in sent] == [0] * CLIENTS


def test_a_stock_flower_strategy_runs_unmodified(grid):
    outcome = {}
    app = ServerApp()

    @app.main()
    def main(grid, context):
        strategy = FedAvg(fraction_train=1.0, fraction_evaluate=1.0, min_available_nodes=CLIENTS)
        initial = ArrayRecord([np.zeros(3, np.float32)])
        result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=3)
        outcome["model"] = result.arrays.to_numpy_ndarrays()[0]
        outcome["means"] = [m["mean"] for m in result.evaluate_metrics_clientapp.values()]

    app(grid, server_context())
    # Client k adds k with weight k: the mean moves by sum(k^2) / sum(k) = 55 / 15 in each round.
    np.testing.assert_allclose(outcome["model"], 3 * 55 / 15, rtol=1e-6)
    np.testing.assert_allclose(outcome["means"], [55 / 15, 110 / 15, 11.0], rtol=1e-6)


def test_the_private_parts_of_flower_that_grids_touch_still_work():
    """Fails on an upgrade of Flower that renames what ``engine/grid.py`` sets."""
    grid = InlineGrid(clients=1, apps=make_apps())
    assert (TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id) == (RUN_ID, RUN_ID, SERVER_NODE)
    message = messages(grid, clients=[0])[0]
    assert message.metadata.src_node_id == TaskIdentity.node_id
    assert message.metadata.run_id == grid.run.run_id
    assert "_message_id" in message.metadata.__dict__
    assert message.metadata.message_id == ""
    (identity,) = grid.push_messages([message])
    assert message.metadata.message_id == identity != ""
    (reply,) = grid.pull_messages([identity])
    assert reply.metadata.reply_to_message_id == identity


def test_what_an_app_receives_is_its_own_down_to_arrays_and_lists():
    """The quick copy is as good as a deep one, for every kind of record."""
    array = Array(np.arange(3.0))
    content = RecordDict(
        {
            "arrays": ArrayRecord({"w": array}),
            "config": ConfigRecord({"list": [1, 2], "bytes": b"x"}),
            "metrics": MetricRecord({"values": [1.0, 2.0], "n": 3}),
        }
    )
    kept = copy.deepcopy(content)

    def meddle(message, context):
        assert message.content == kept
        message.content["arrays"]["w"].data = b"changed"
        message.content["arrays"]["v"] = Array(np.zeros(1))
        message.content["config"]["list"].append(3)
        message.content["metrics"]["values"][0] = 9.0
        del message.content["metrics"]["n"]
        context.state["left"] = ConfigRecord({"over": True})
        raise ValueError("and then it fails")

    grid = InlineGrid(clients=1, apps=ClientApps(one=meddle))
    (reply,) = grid.send_and_receive([grid.create_message(content, "train", 2, "1")])
    assert reply.error.reason == "ValueError: and then it fails"
    assert content == kept
    assert len(grid._contexts[2].state) == 0, "what a client that failed had begun to keep is forgotten"
