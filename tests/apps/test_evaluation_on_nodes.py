"""Evaluation by clients that are Flower nodes: the scores of ``fedsafe run``, each charged and answered once."""

import json
import math
import sys
from collections import Counter

import pytest
from flower_nodes import Node, evaluated, fold, new_process, nodes, refusal, serve, toml

import fedsafe
from fedsafe.privacy.chain import read_events
from fedsafe.runs import Run, read_config

CLIENTS = 4


@pytest.fixture(scope="module")
def text() -> str:
    """With so little noise that a score is not at an end of its range, where two noises look alike."""
    return toml(
        **evaluated(
            federation__evaluation={"every": 2, "epsilon": 3.0},
            privacy__record__epsilon=3.0,
            privacy__client__epsilon=math.inf,
        )
    )


def lines(run: Run) -> list[dict]:
    """The rounds of a record, without the salted heads of the ledger."""
    read = [json.loads(line) for line in (run.path / "record.jsonl").read_text().splitlines()[1:-1]]
    return [{key: value for key, value in line.items() if key != "ledger"} for line in read]


def test_the_scores_over_nodes_are_those_of_the_inline_engine(tiny_toml, tmp_path):
    path = tiny_toml(**evaluated(federation__clients=CLIENTS, privacy__noise_key="seed"))
    serve(nodes(3, 1, 0, 2), config=str(path), out=str(tmp_path / "flower"))
    theirs, ours = Run(tmp_path / "flower"), fedsafe.run(read_config(path), out=tmp_path / "ours")
    assert lines(theirs) == lines(ours)
    assert ["federated_score" in line["metrics"] for line in lines(theirs)] == [False, True, False, True]
    assert theirs.start.plan == ours.start.plan
    events = read_events(theirs.path / "private" / "ledger.sqlite")
    assert [event.kind for event in events].count("evaluation") == 2


def test_every_node_is_asked_once_for_each_planned_evaluation(tiny_toml, tmp_path):
    asked = Counter()

    def see(messages):
        for message in messages:
            round = message.metadata.group_id
            asked[message.metadata.message_type, round, message.metadata.dst_node_id] += 1

    path = tiny_toml(**evaluated(federation__clients=2, federation__cohort__rate=1.0))
    serve(nodes(1, 0, see=see), config=str(path), out=str(tmp_path / "run"))
    assert {key: count for key, count in asked.items() if key[0] == "evaluate"} == {
        ("evaluate", round, node): 1 for round in ("2", "4") for node in (2, 3)
    }
    assert Run(tmp_path / "run").rounds()["federated_score"].notna().tolist() == [False, True, False, True]


def test_a_node_answers_each_planned_evaluation_once_and_no_other(text):
    node = Node(text)
    first = fold(node.ask(kind="evaluate", round=2))
    new_process()
    assert fold(node.ask(kind="evaluate", round=2)) == first, "a repetition is the same release"
    assert "already answered" in refusal(node.ask(kind="evaluate", round=2, shift=0.5))
    fold(node.ask(kind="evaluate", round=4, shift=0.5))
    for round in (1, 3, 6, 0):
        reply = node.ask(kind="evaluate", round=round)
        assert f"has no evaluate message in round {round}" in refusal(reply)


def test_training_and_evaluation_do_not_use_each_other_up(text):
    node = Node(text)
    replies = [node.ask(round=2), node.ask(kind="evaluate", round=2), node.ask(round=1, shift=0.5)]
    assert len({fold(reply) for reply in replies}) == 3


def test_a_run_without_a_planned_evaluation_has_none(text):
    assert "has no evaluate message in round 2" in refusal(Node(toml()).ask(kind="evaluate", round=2))


def test_the_noise_of_a_score_is_the_one_of_the_node(text):
    nodes = [Node(text), Node(text)]
    scores = [fold(node.ask(kind="evaluate", round=2)) for node in nodes]
    assert scores[0] != scores[1]
    assert all(0 < int.from_bytes(score[-8:], sys.byteorder) < 2**30 for score in scores)


@pytest.fixture(scope="module")
def claims(tmp_path_factory):
    """Of the same configuration over nodes and by ``fedsafe run``, each as one text for each unit."""
    folder = tmp_path_factory.mktemp("claims")
    (folder / "own.toml").write_text(toml(**evaluated()))
    serve(nodes(0, 1), config=str(folder / "own.toml"), out=str(folder / "flower"))
    ours = read_config(folder / "own.toml", ["engine.name=inline"])
    runs = {"flower": Run(folder / "flower"), "ours": fedsafe.run(ours, out=folder / "ours")}
    return {name: {c["unit"]: json.dumps(c) for c in run.claims} for name, run in runs.items()}


@pytest.mark.parametrize(
    ("unit", "phrase"),
    [
        ("record", "each client's keyed by 256 bits from its own operating system"),
        ("record", "each node keeps its Flower context, which remembers the rounds that it has answered"),
        ("record", "when each client replied, and how long it took"),
        ("client", "when each client replied, and how long it took"),
        ("client", "Flower's SuperLink and its database belong to the server"),
    ],
)
def test_what_is_different_over_nodes_is_in_their_claims_alone(claims, unit, phrase):
    assert phrase in claims["flower"][unit]
    assert phrase not in claims["ours"][unit]


def test_both_ways_charge_the_evaluations(claims):
    for by_unit in claims.values():
        assert all("2 evaluations with cohorts of their own" in claim for claim in by_unit.values())
