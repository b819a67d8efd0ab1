"""Flower's nodes have numbers that mean nothing; FedSafe's clients are who they say they are, and all of them."""

import time
from unittest import mock

import pytest
from flower_nodes import FlowerNodes, composed, nodes, toml
from flwr.app import ConfigRecord, Message, RecordDict
from tiny_federation import play

import fedsafe
from fedsafe.apps.code import code_digest
from fedsafe.apps.joining import JOINED
from fedsafe.apps.nodes import EXPERIMENT, NodeGrid, collect, connect, wait_until_connected
from fedsafe.engine import ClientApps
from fedsafe.errors import EngineError
from fedsafe.federation.messages import instruction_content, pack_parameters


@pytest.fixture(scope="module")
def run():
    return composed(toml())


def join(grid, run, wait: float = 30.0):
    parts, plan = run
    return connect(grid, parts, run="0" * 32, wait_for_nodes=0.01, wait_for_replies=wait)(plan)


def messages(run, clients) -> list[Message]:
    parts, plan = run
    content = instruction_content(pack_parameters(parts.initial, parts.layout), round=1, plan=plan.hash)
    return [Message(content, dst_node_id=2 + k, message_type="train", group_id="1") for k in clients]


@pytest.mark.parametrize("partitions", [(0, 1), (1, 0)])
def test_a_message_for_a_client_reaches_the_node_that_has_its_records(run, partitions):
    sent = []
    grid = join(nodes(*partitions, see=sent.append), run)
    assert list(grid.get_node_ids()) == [2, 3]
    asked = messages(run, (0, 1))
    replies = list(grid.send_and_receive(asked))
    assert [message.metadata.dst_node_id - 2 for message in sent[-1]] == [partitions.index(k) for k in (0, 1)]
    assert [reply.metadata.reply_to_message_id for reply in replies] == [
        message.metadata.message_id for message in asked
    ]
    assert all(reply.has_content() for reply in replies)


def test_replies_are_in_the_order_of_the_messages_whatever_the_order_of_arrival(run):
    class Backwards(FlowerNodes):
        def pull_messages(self, message_ids):
            return list(super().pull_messages(message_ids))[::-1]

    grid = join(Backwards(clients=2, partitions=(0, 1)), run)
    asked = messages(run, (1, 0))
    numbers = [reply.metadata.reply_to_message_id for reply in grid.send_and_receive(asked)]
    assert numbers == [message.metadata.message_id for message in asked]


def test_every_message_carries_the_experiment(run):
    sent = []
    grid = join(nodes(0, 1, see=sent.append), run)
    grid.send_and_receive(messages(run, (0, 1)))
    texts = [m.content.config_records[EXPERIMENT]["config"] for exchange in sent for m in exchange]
    assert texts == [run[0].config.to_toml()] * 4


def test_a_round_runs_over_joined_nodes_as_over_any_grid(run, tmp_path):
    parts, plan = run
    outcomes = play(parts, plan, join(nodes(1, 0), run), tmp_path / "ledger")
    assert [outcome.failures for outcome in outcomes] == [0, 0]


def test_nobody_to_ask_is_no_reply(run):
    sent = []
    grid = join(nodes(0, 1, see=sent.append), run)
    assert list(grid.send_and_receive([])) == []
    assert len(sent) == 1


@pytest.mark.parametrize(
    ("partitions", "why", "places"),
    [
        ((0, 0), "nodes 2 and 3 both say that they are client 0, and the first keeps the place", [2, None]),
        (
            (0, 5),
            "node 3 is left out: it could not join: EngineError: the node's partition-id is 5",
            [2, None],
        ),
        (
            (None, 0),
            "node 2 is left out: it could not join: EngineError: the node's partition-id is None",
            [3, None],
        ),
    ],
)
def test_a_node_that_is_no_client_is_left_out_and_the_log_says_why(run, caplog, partitions, why, places):
    sent = []
    with caplog.at_level("WARNING"):
        grid = join(nodes(*partitions, see=sent.append), run)
    assert why in " ".join(record.getMessage() for record in caplog.records)
    list(grid.send_and_receive(messages(run, (0, 1))))
    assert [message.metadata.dst_node_id for message in sent[-1]] == [node for node in places if node]


def test_too_few_nodes_are_an_error_that_says_what_to_do(run):
    with pytest.raises(EngineError, match=r"has 2 clients, and 1 nodes are connected after 0\.01 s: start 2"):
        join(nodes(0), run)


def test_too_many_nodes_are_not_waited_for():
    began = time.monotonic()
    with pytest.raises(EngineError, match="has 2 clients, and 3 nodes are connected: start 2 SuperNodes"):
        wait_until_connected(nodes(0, 1, 2), 2, 20.0)
    assert time.monotonic() - began < 10.0


def test_a_node_that_agreed_to_another_plan_is_asked_for_nothing(run, tmp_path, caplog):
    (tmp_path / "own.toml").write_text(toml(privacy__record__epsilon=0.05))
    sent, told = [], []
    inner = nodes(0, 1, own={1: {"config": str(tmp_path / "own.toml")}}, see=sent.append)
    joined = connect(
        inner, run[0], run="0" * 32, wait_for_nodes=0.01, wait_for_replies=30.0, tell=told.append
    )
    with caplog.at_level("WARNING"):
        outcomes = play(*run, joined(run[1]), tmp_path / "ledger")
    assert "client 1 comes to plan" in caplog.text
    assert (told[0].kind, told[0].replied, told[0].refused) == ("join", 1, {"other_plan": 1})
    assert [outcome.failures for outcome in outcomes] == [1, 1]
    assert [[m.metadata.dst_node_id for m in exchange] for exchange in sent] == [[2, 3], [2], [2]]


@pytest.mark.parametrize(
    "said",
    [
        {"client": "0"},
        {"client": -1},
        {"client": 2},
        {"client": 1.0},
        {"client": [1]},
        {"plan": 3},
        {"fedsafe": 1.5},
        {"code": [1]},
        {"client": None},
        {},
    ],
)
def test_a_node_that_claims_what_cannot_be_ends_nobody_elses_run(run, tmp_path, said):
    class Claims(FlowerNodes):
        def exchange(self, messages, timeout):
            replies = super().exchange(messages, timeout)
            for reply in replies:
                if reply.has_content() and JOINED in reply.content and reply.metadata.src_node_id == 3:
                    honest = dict(reply.content.config_records[JOINED])
                    claim = {k: v for k, v in {**honest, **said}.items() if v is not None}
                    reply.content = RecordDict({JOINED: ConfigRecord(claim)} if said else {})
            return replies

    outcomes = play(*run, join(Claims(clients=2, partitions=(0, 1)), run), tmp_path / "ledger")
    assert [outcome.failures for outcome in outcomes] == [1, 1]


def test_another_version_of_fedsafe_at_a_node_is_refused(run):
    grid = nodes(0, 1)
    joined = connect(grid, run[0], run="0" * 32, wait_for_nodes=0.01, wait_for_replies=1.0)
    with (
        mock.patch.object(fedsafe, "__version__", "0.0.0"),
        pytest.raises(EngineError, match=r"every node refuses: client 0 runs fedsafe .*, the server 0\.0\.0"),
    ):
        joined(run[1])


def test_other_code_of_the_same_version_at_a_node_is_refused(run):
    grid = nodes(0, 1)
    joined = connect(grid, run[0], run="0" * 32, wait_for_nodes=0.01, wait_for_replies=1.0)
    with (
        mock.patch("fedsafe.apps.joining.code_digest", return_value="another"),
        pytest.raises(EngineError, match="client 0 runs other code than the server, though both are fedsafe"),
    ):
        joined(run[1])


def test_code_is_told_apart_by_names_and_lines(tmp_path):
    def digest(**files: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in files.items():
            path = folder / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        (folder / "notes.txt").write_text(str(folder))
        return code_digest(folder)

    first = digest(a="x = 1\n", b__c="y = 2\n")
    assert digest(b__c="y = 2\r\n", a="x = 1\r\n") == first, "line endings of a system are no difference"
    others = [digest(a="x = 2\n", b__c="y = 2\n"), digest(a="x = 1\n", b__d="y = 2\n"), digest(a="x = 1\n")]
    assert len({first, *others}) == 4


def test_a_node_that_never_answers_is_left_out(run, caplog):
    class Deaf(FlowerNodes):
        def pull_messages(self, message_ids):
            return [r for r in super().pull_messages(message_ids) if r.metadata.src_node_id != 3]

    sent = []
    grid = join(Deaf(clients=2, partitions=(0, 1), see=sent.append), run, wait=0.05)
    assert "node 3 is left out: it did not say whether it joins" in caplog.text
    list(grid.send_and_receive(messages(run, (0, 1))))
    assert [message.metadata.dst_node_id for message in sent[-1]] == [2]


def test_a_round_goes_on_without_a_client_that_is_late(run):
    class Slow(FlowerNodes):
        late = True

        def pull_messages(self, message_ids):
            arrived = super().pull_messages(message_ids)
            return [r for r in arrived if not (self.late and r.metadata.src_node_id == 3)]

    inner = Slow(clients=2, partitions=(0, 1))
    grid = NodeGrid(inner, [2, 3], connect_record(run), 0.05)
    asked = messages(run, (0, 1))
    began = time.monotonic()
    (reply,) = grid.send_and_receive(asked, timeout=20.0)
    assert time.monotonic() - began < 10.0
    assert reply.metadata.reply_to_message_id == asked[0].metadata.message_id


def connect_record(run):
    sent = []
    connect(nodes(0, 1, see=sent.append), run[0], run="0" * 32, wait_for_nodes=0.01, wait_for_replies=1.0)
    return sent[0][0].content.config_records[EXPERIMENT]


def test_the_server_waits_for_nodes_that_connect_later():
    class Growing(FlowerNodes):
        asked = 0

        def get_node_ids(self):
            self.asked += 1
            return list(super().get_node_ids())[: self.asked]

    grid = Growing(clients=3, partitions=(0, 1, 2), apps=ClientApps(one=lambda message, context: message))
    assert wait_until_connected(grid, 3, 5.0) == [2, 3, 4]


def test_collecting_ends_when_everything_is_there_or_the_time_is_over():
    grid = nodes(0, 1)
    assert collect(grid, [], 60.0) == {}
    assert collect(grid, ["unknown"], 0.0) == {}
