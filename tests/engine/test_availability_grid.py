"""A grid whose clients are not always there: what is delivered, what comes back, and what time it is."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from grid_clients import make_apps

from fedsafe.engine import Availability, AvailabilityGrid, InlineGrid
from fedsafe.engine.traces import Trace
from fedsafe.errors import EngineError
from fedsafe.federation import server_context

CLIENTS = 5


@dataclass(kw_only=True)
class Witness(InlineGrid):
    """Remembers which nodes it was asked to reach."""

    reached: list[list[int]] = field(default_factory=list)

    def exchange(self, messages, timeout):
        self.reached.append([message.metadata.dst_node_id for message in messages])
        return super().exchange(messages, timeout)


def trace(*intervals):
    owners, starts, ends = zip(*intervals, strict=True)
    return Trace(owners=np.array(owners), starts=np.array(starts, float), ends=np.array(ends, float))


# Clients 0 and 1 always, 2 from 10 s, 3 never, 4 until 10 s.
SCHEDULE = trace((0, 0, 1e9), (1, 0, 1e9), (2, 10, 1e9), (3, 0, 0), (4, 0, 10))
WORK = {"train": [1.0, 2.0, 3.0, 4.0, 5.0]}


def made(**changes) -> tuple[Witness, AvailabilityGrid]:
    options = {name: changes.pop(name) for name in ("times", "began") if name in changes}
    inner = Witness(clients=CLIENTS, apps=make_apps())
    values = {"clients": CLIENTS, "seed": 0, "schedule": SCHEDULE, "work": WORK, **changes}
    return inner, AvailabilityGrid(inner, Availability(**values), **options)


def messages(grid, clients=range(CLIENTS), group="1", kind="train") -> list[Message]:
    content = RecordDict({"arrays": ArrayRecord([np.zeros(3, np.float32)])})
    nodes = list(grid.get_node_ids())
    return [grid.create_message(content, kind, nodes[client], group) for client in clients]


def metrics(replies, name="partition") -> list:
    return [reply.content.metric_records["metrics"][name] for reply in replies]


def test_only_those_who_count_are_reached_and_everybody_is_listed():
    inner, grid = made()
    assert list(grid.get_node_ids()) == [2, 3, 4, 5, 6]
    assert metrics(grid.send_and_receive(messages(grid, clients=[4, 3, 2, 0]))) == [4, 0]
    assert inner.reached == [[6, 2]]


def test_a_late_client_is_not_computed_and_its_app_keeps_its_state():
    _, grid = made(schedule=trace(*[(client, 0, 1e9) for client in range(CLIENTS)]), deadline=4.0)
    assert metrics(grid.send_and_receive(messages(grid))) == [0, 1, 2, 3]
    assert metrics(grid.send_and_receive(messages(grid, group="2")), "count") == [2, 2, 2, 2]


def test_nobody_to_reach_is_no_reply_and_nothing_is_sent():
    inner, grid = made()
    assert list(grid.send_and_receive(messages(grid, clients=[3]))) == []
    assert list(grid.send_and_receive([])) == []
    assert inner.reached == []


def test_pushed_messages_that_are_not_delivered_have_numbers_that_nothing_answers():
    _, grid = made()
    numbers = list(grid.push_messages(messages(grid)))
    assert len(set(numbers)) == CLIENTS
    assert metrics(grid.pull_messages(numbers)) == [0, 1, 4]
    assert list(grid.pull_messages(numbers)) == []
    assert len({*numbers, *grid.push_messages(messages(grid, group="2"))}) == 2 * CLIENTS


def test_the_clock_moves_by_how_long_the_server_waits():
    _, grid = made()
    moments, counted = [], []
    for number in range(4):
        counted.append(metrics(grid.send_and_receive(messages(grid, group=str(number)))))
        moments.append(grid.now)
    # Client 4 is there for 5 s from 0 and from 5; then client 2 is, with its 3 s.
    assert counted == [[0, 1, 4], [0, 1, 4], [0, 1, 2], [0, 1, 2]]
    assert moments == [5.0, 10.0, 13.0, 16.0]


def test_a_clock_can_begin_where_another_stopped():
    _, grid = made(began=13.0)
    assert metrics(grid.send_and_receive(messages(grid, group="3"))) == [0, 1, 2]
    assert grid.now == 16.0


def test_with_times_fixed_before_nobody_who_is_asked_moves_the_clock():
    """The slow client 4 decides how long a round takes, and not when the next begins."""
    for clients in ([0, 1, 2, 4], [0, 1, 2]):
        _, grid = made(times=lambda kind, group: 8.0 * int(group))
        first = metrics(grid.send_and_receive(messages(grid, clients=clients, group="0")))
        assert first == [client for client in clients if client != 2]
        assert grid.now == 5.0, "the longest round"
        assert grid.take_realised().seconds == (5.0 if 4 in clients else 2.0)
        assert metrics(grid.send_and_receive(messages(grid, clients=clients, group="2"))) == [0, 1, 2]


def test_what_happened_is_told_once():
    _, grid = made()
    grid.send_and_receive(messages(grid))
    grid.send_and_receive(messages(grid, clients=[0, 1], kind="evaluate"))
    realised = grid.take_realised()
    assert (realised.asked, realised.missing, realised.seconds) == (7, 2, 5.0)
    assert grid.take_realised().asked == 0


def test_asking_the_same_again_is_another_chance():
    everybody = trace(*[(client, 0, 1e9) for client in range(CLIENTS)])
    _, grid = made(schedule=everybody, dropout=0.5)
    seen = {tuple(metrics(grid.send_and_receive(messages(grid)))) for _ in range(20)}
    assert len(seen) > 5
    _, other = made(schedule=everybody, dropout=0.5)
    _, third = made(schedule=everybody, dropout=0.5)
    for group in ("1", "2", "2", "1"):
        replies = [metrics(each.send_and_receive(messages(each, group=group))) for each in (other, third)]
        assert replies[0] == replies[1]


def test_a_model_for_others_is_refused():
    _, grid = made(clients=4, work={})
    with pytest.raises(EngineError, match="is for 4 clients, 5 nodes are registered"):
        grid.send_and_receive(messages(grid))
    _, grid = made()
    (stranger,) = messages(grid, clients=[0])
    stranger.metadata.dst_node_id = 77
    with pytest.raises(EngineError, match="node 77 was not registered"):
        grid.send_and_receive([stranger])


def test_a_stock_flower_strategy_averages_over_those_who_are_there():
    _, grid = made()
    outcome = {}
    app = ServerApp()

    @app.main()
    def main(grid, context):
        strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=CLIENTS)
        result = strategy.start(
            grid=grid, initial_arrays=ArrayRecord([np.zeros(3, np.float32)]), num_rounds=3
        )
        outcome["model"] = result.arrays.to_numpy_ndarrays()[0]

    app(grid, server_context())
    # Client k adds k + 1 with weight k + 1: (0, 1, 4) moves by 30 / 8, twice; (0, 1, 2) by 14 / 6.
    np.testing.assert_allclose(outcome["model"], 2 * 30 / 8 + 14 / 6, rtol=1e-6)
    assert grid.now == 13.0
