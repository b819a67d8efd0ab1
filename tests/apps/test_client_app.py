"""What a node may say, what it remembers, and what it refuses."""

import logging
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from flower_nodes import Node, composed, fold, refusal, toml

from fedsafe.apps import client
from fedsafe.apps.memory import NodeMemory
from fedsafe.rng import key_from_seed
from fedsafe.runs.compose import client_runtime


@pytest.fixture(scope="module")
def text() -> str:
    return toml()


def key_of(node: Node) -> bytes:
    (record,) = node.context.state.config_records.values()
    return bytes.fromhex(record["key"])


def new_process() -> None:
    """What a new process has not: everything but the context."""
    client._parts.cache_clear()
    client._runtime.cache_clear()


def test_a_node_joins_by_saying_which_client_it_is_and_which_plan_it_came_to(text):
    node = Node(text, partition=1)
    said = node.join().content.config_records["joined"]
    assert (said["client"], said["plan"]) == (1, node.plan.hash)
    memory = NodeMemory(node.context, bytes)
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
    key = key_of(node)
    said = b"".join(repr(vars(reply)).encode() + repr(reply.metadata).encode() for reply in replies)
    said += b"".join(
        value if isinstance(value, bytes) else str(value).encode()
        for reply in replies
        if reply.has_content()
        for record in reply.content.values()
        for value in record.values()
    )
    said += b"".join(fold(reply) for reply in replies[1:3])
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
    assert "that the plan allows" in refusal(Node(text).ask(round=round))


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


@pytest.mark.parametrize("kind", ["train", "query.join"])
def test_what_an_exception_says_about_records_stays_in_the_log_of_the_node(text, kind, caplog):
    """``str`` of an exception may quote a record, and no budget was charged for it."""
    node = Node(text)
    secret = ValueError("cannot use 4711 of record 17")
    with (
        mock.patch.object(client, "calibrate", side_effect=secret),
        caplog.at_level(logging.ERROR, logger="flwr"),
    ):
        logging.getLogger("flwr").addHandler(caplog.handler)
        reply = node.join() if kind == "query.join" else node.ask()
        logging.getLogger("flwr").removeHandler(caplog.handler)
    assert refusal(reply) == "ValueError, which the log of the node explains"
    assert "4711" in caplog.text


def test_a_node_trusts_its_own_configuration_more_than_the_server(text, tmp_path):
    own = tmp_path / "agreed.toml"
    own.write_text(toml(privacy__record__epsilon=0.05))
    node = Node(text, node_config={"config": str(own)})
    said = node.join().content.config_records["joined"]
    assert said["plan"] == composed(own.read_text())[1].hash != node.plan.hash
    assert "this client agreed to" in refusal(node.ask())


class Judged:
    """Every record counts half."""

    def at(self, parameters):
        return lambda rows: (np.zeros(len(rows)), np.full(len(rows), 0.5))


def test_an_evaluation_is_answered_where_it_is_planned_and_once(text, monkeypatch):
    assert "that the plan allows" in refusal(Node(text).ask(kind="evaluate"))
    more = {
        "federation__client_validation": 0.3,
        "federation__evaluation": {"every": 2, "epsilon": 0.05},
        "rounds": 4,
    }
    node = Node(toml(**more))

    def evaluating(parts, plan, key):
        runtime = client_runtime(parts, plan, key)
        return replace(
            runtime,
            measure=Judged(),
            validation=parts.federated.validation,
            score_noise=plan.evaluation.noise_record,
        )

    monkeypatch.setattr(client, "client_runtime", evaluating)
    new_process()
    assert "that the plan allows" in refusal(node.ask(kind="evaluate", round=1))
    score = fold(node.ask(kind="evaluate", round=2))
    assert fold(node.ask(kind="evaluate", round=2)) == score
    assert "already answered" in refusal(node.ask(kind="evaluate", round=2, shift=0.5))
    fold(node.ask(round=2))  # training has a memory of its own
    new_process()


def test_the_correction_of_a_client_is_part_of_what_may_not_change(text):
    """A release depends on it: the same model with another correction must not meet the same noise."""
    from fedsafe.federation.messages import instruction_content, pack_parameters, with_correction

    values = {"server__aggregator": "scaffold", "privacy__client__epsilon": float("inf")}
    node = Node(toml(**values))

    def ask(correction: float):
        content = instruction_content(
            pack_parameters(node.parts.initial, node.parts.layout), round=1, plan=node.plan.hash
        )
        shape = node.parts.layout.total
        content = with_correction(content, np.full(shape, correction, np.float32))
        return client.app(node.message(content, "train"), node.context)

    first = fold(ask(0.5))
    assert fold(ask(0.5)) == first
    assert "already answered with other inputs" in refusal(ask(0.25))
