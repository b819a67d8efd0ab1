"""What a node may say, what it remembers, and what it refuses."""

import logging
from unittest import mock

import pytest
from flower_nodes import Node, composed, evaluated, every_byte, fold, new_process, refusal, toml

from fedsafe.apps import client
from fedsafe.apps.memory import NodeMemory
from fedsafe.errors import EngineError, PlanViolation
from fedsafe.rng import key_from_seed


@pytest.fixture(scope="module")
def text() -> str:
    return toml()


def key_of(node: Node) -> bytes:
    (record,) = node.context.state.config_records.values()
    return bytes.fromhex(record["key"])


def test_a_node_joins_by_saying_which_client_it_is_and_which_plan_it_came_to(text):
    node = Node(text, partition=1)
    said = node.join().content.config_records["joined"]
    assert (said["client"], said["plan"]) == (1, node.plan.hash)
    memory = NodeMemory(node.context)
    assert memory.plan == node.plan


@pytest.mark.parametrize("partition", [None, 2, -1, "0"])
def test_a_node_that_is_no_client_of_the_run_says_so(text, partition):
    node = Node(text, partition=partition)
    assert "partition-id" in refusal(node.join())
    assert "K is a number from 0 to 1" in refusal(node.ask())


def test_each_node_has_a_key_of_its_own_from_the_operating_system(text):
    nodes = [Node(text), Node(text), Node(text, partition=1)]
    releases = [fold(node.ask()) for node in nodes]
    assert len({key_of(node) for node in nodes}) == 3
    assert len(set(releases)) == 3
    assert all(len(key_of(node)) == 32 for node in nodes)


def test_the_key_is_in_no_reply(text):
    node = Node(text)
    replies = [node.join(), node.ask(), node.ask(round=2), node.ask(shift=1.0), node.ask(plan="0" * 64)]
    key, said = key_of(node), b"".join(map(every_byte, replies))
    assert key not in said
    assert key.hex().encode() not in said


def test_only_a_reproducible_run_takes_the_key_from_the_seed():
    node = Node(toml(privacy__noise_key="seed", seed=5))
    node.join()
    assert key_of(node) == key_from_seed(5)


def test_the_same_message_again_is_the_same_release_even_in_a_new_process(text):
    node = Node(text)
    first = fold(node.ask())
    new_process()
    assert fold(node.ask()) == first
    assert fold(node.ask(round=2)) != first


def test_a_second_message_for_a_round_with_another_model_is_refused(text):
    node = Node(text)
    first = fold(node.ask())
    new_process()
    assert "PlanViolation: round 1 was already answered with other inputs" in refusal(node.ask(shift=1e-3))
    assert fold(node.ask()) == first


def test_what_was_written_down_counts_even_if_training_failed(text):
    node = Node(text)
    with mock.patch.object(client, "_runtime", side_effect=ZeroDivisionError):
        refusal(node.ask())
    assert "already answered" in refusal(node.ask(shift=1.0))


def test_a_message_under_another_plan_is_refused_and_does_not_use_the_round_up(text):
    node = Node(text)
    assert "the server follows plan 000000000000" in refusal(node.ask(plan="0" * 64, shift=1.0))
    fold(node.ask())


@pytest.mark.parametrize("round", [0, 3, -1])
def test_a_round_outside_of_the_plan_is_refused(text, round):
    assert f"has no train message in round {round}" in refusal(Node(text).ask(round=round))


def test_a_node_counts_its_own_participations(text):
    node = Node(toml(privacy__record__max_participations=1))
    first = fold(node.ask(round=2))
    assert "this node has used the 1 rounds" in refusal(node.ask(round=1))
    assert fold(node.ask(round=2)) == first, "a repetition is no further participation"


def test_the_next_run_in_one_context_starts_with_a_new_key_and_an_empty_memory(text):
    first = Node(text)
    released = fold(first.ask())
    again = Node(text, run=8)
    again.context.state = first.context.state
    assert fold(again.ask(shift=1.0)) != released
    keys = {record["key"] for record in again.context.state.config_records.values()}
    assert len(keys) == 2
    assert fold(first.ask()) == released


SECRET = "cannot use 4711 of record 17"


@pytest.mark.parametrize("error", [ValueError, EngineError, PlanViolation])
@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("query.join", "compose"),
        ("query.join", "calibrate"),
        ("train", "compose"),
        ("train", "client_runtime"),
        ("evaluate", "client_runtime"),
    ],
)
def test_what_an_exception_says_about_records_stays_in_the_log_of_the_node(kind, error, place, caplog):
    """``str`` of an exception may quote a record, and no budget was charged for it; a user's code may raise ours."""
    node = Node(toml(**evaluated()))
    new_process()
    log = logging.getLogger("flwr")
    log.addHandler(caplog.handler)
    with mock.patch.object(client, place, side_effect=error(SECRET)):
        reply = node.join() if kind == "query.join" else node.ask(kind=kind, round=2)
    log.removeHandler(caplog.handler)
    assert refusal(reply) == f"{error.__name__}, which the log of the node explains"
    assert "4711" in caplog.text


@pytest.mark.parametrize(
    ("kind", "failing", "said"),
    [
        ("train", "fedsafe.client.StackedTrainer.train", "training failed"),
        ("evaluate", "fedsafe.federation.client_app.score_of_client", "evaluation failed"),
    ],
)
def test_a_client_that_fails_says_no_more_than_that(kind, failing, said):
    node = Node(toml(**evaluated()))
    node.ask(kind=kind, round=4)  # what is made for all messages is made
    with mock.patch(failing, side_effect=ValueError(SECRET)):
        reply = node.ask(kind=kind, round=2)
    assert reply.content["error"]["text"] == said
    assert dict(reply.content["info"]) == {"clients": 0, "failures": 1, "cpu-seconds": 0.0}
    assert b"4711" not in every_byte(reply)


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_node_measures_nothing_that_it_would_have_to_tell(kind):
    """Processor time is a function of records: how many fell into a batch."""
    reply = Node(toml(**evaluated())).ask(kind=kind, round=2)
    assert set(reply.content) == {"fold", "info", "error"}
    assert dict(reply.content.metric_records["info"]) == {"clients": 1, "failures": 0, "cpu-seconds": 0.0}
    assert dict(reply.content.config_records["error"]) == {"text": ""}


def test_a_node_trusts_its_own_configuration_more_than_the_server(text, tmp_path):
    own = tmp_path / "agreed.toml"
    own.write_text(toml(privacy__record__epsilon=0.05))
    node = Node(text, node_config={"config": str(own)})
    said = node.join().content.config_records["joined"]
    assert said["plan"] == composed(own.read_text())[1].hash != node.plan.hash
    assert "this client agreed to" in refusal(node.ask())
