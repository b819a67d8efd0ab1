"""A server, or somebody in its place, that asks a node for more or for something else than was agreed."""

import math

import numpy as np
import pytest
from flower_nodes import FlowerNodes, Node, evaluated, fold, new_process, refusal, serve, toml
from flwr.app import RecordDict

from fedsafe.aggregation import RULES, RowRule
from fedsafe.apps.memory import NodeMemory
from fedsafe.errors import ConfigError
from fedsafe.privacy.chain import read_events
from fedsafe.runs import Run


@pytest.fixture(scope="module")
def text() -> str:
    return toml()


def ruled_by(name: str) -> str:
    """An experiment with an aggregator that has no claim at the client level, and at the record level none either."""
    none = {"privacy__client__epsilon": math.inf, "privacy__record__epsilon": math.inf}
    return toml(server__aggregator=name, **none)


class Steady(RowRule):
    """A rule of a user's own that remembers nothing, and corrects every client alike."""

    name = "steady"

    @classmethod
    def from_plan(cls, plan):
        return cls()

    def combine(self, updates):
        return updates.rows.sum(axis=0)

    def correction(self, client, parameters):
        return np.ones(parameters, np.float32)


class Plain(Steady):
    """The same without corrections."""

    def correction(self, client, parameters):
        return None


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_round_that_is_sent_twice_with_other_parameters_is_answered_once(kind):
    node = Node(toml(**evaluated()))
    first = fold(node.ask(kind=kind, round=2))
    for shift in (1e-3, -0.5, math.nan):
        new_process()
        assert "round 2 was already answered with other inputs" in refusal(
            node.ask(kind=kind, round=2, shift=shift)
        )
    assert fold(node.ask(kind=kind, round=2)) == first


NOISY = {
    "noisy_mean": "noisy_mean",
    "capped_mean": {"name": "capped_mean", "cap": 20},
    "adaptive_clip": "adaptive_clip",
    "local_gaussian": "local_gaussian",
    "banded_mean": {"name": "banded_mean", "bands": 2},
    "chosen_noise": "chosen_noise",
}


def noised_by(rule: str) -> str:
    """An experiment with a rule that adds noise at the client level."""
    return toml(server__aggregator=NOISY[rule], privacy__client__epsilon=8.0)


@pytest.mark.parametrize(
    "rule",
    sorted(name for name in set(RULES) - {"scaffold", "distributed_mean"} if not RULES[name].needs_groups),
)
def test_a_correction_that_the_plan_does_not_have_is_refused(rule):
    node = Node(noised_by(rule) if rule in NOISY else ruled_by(rule))
    told = {"clip": 1.0} if rule == "adaptive_clip" else None
    assert "train message carries a correction" in refusal(node.ask(correction=0.5, announced=told))
    fold(node.ask(shift=0.5, announced=told))  # the refusal has not used the round up


def test_noise_that_clients_add_together_is_not_for_nodes():
    """Between nodes nothing hides what each of them sends."""
    text = toml(server__aggregator={"name": "distributed_mean", "minimum": 2}, privacy__client__epsilon=8.0)
    with pytest.raises(ConfigError, match="needs secure aggregation"):
        Node(text)


def test_what_a_rule_announces_is_part_of_what_may_not_change():
    """Another clip is another release, even of the same model."""
    node = Node(noised_by("adaptive_clip"))
    first = fold(node.ask(announced={"clip": 1.0}))
    assert fold(node.ask(announced={"clip": 1.0})) == first
    assert "already answered with other inputs" in refusal(node.ask(announced={"clip": 0.5}))


@pytest.mark.parametrize(
    ("rule", "announced"),
    [
        ("adaptive_clip", None),
        ("adaptive_clip", {"clip": 1.0, "more": 2.0}),
        ("noisy_mean", {"clip": 9.0}),
    ],
)
def test_an_announcement_that_the_plan_does_not_have_is_refused(rule, announced):
    node = Node(noised_by(rule))
    assert node.ask(announced=announced).has_error()


def test_a_node_keeps_its_own_distance_between_rounds():
    node = Node(noised_by("banded_mean"))
    fold(node.ask(round=1))
    assert "takes part at most once in 2 rounds" in refusal(node.ask(round=2))


@pytest.mark.parametrize(("rule", "accepted"), [("Steady", True), ("Plain", False)])
def test_a_rule_of_ones_own_is_asked_whether_it_corrects(rule, accepted):
    node = Node(ruled_by(f"test_servers_that_deviate:{rule}"))
    assert node.ask(correction=0.5).has_error() is not accepted


def test_the_correction_of_a_client_is_part_of_what_may_not_change():
    """A release depends on it: the same model with another correction must not meet the same noise."""
    node = Node(ruled_by("scaffold"))
    first = fold(node.ask(correction=0.5))
    assert fold(node.ask(correction=0.5)) == first
    for other in (0.25, None):
        assert "already answered with other inputs" in refusal(node.ask(correction=other))


def test_an_evaluation_has_no_correction():
    values = evaluated(server__aggregator="scaffold", privacy__client__epsilon=math.inf)
    node = Node(toml(**values))
    assert "evaluate message carries a correction" in refusal(
        node.ask(kind="evaluate", round=2, correction=0.5)
    )


def test_the_same_round_of_another_experiment_is_refused(text):
    """The plan's hash and the model are those agreed: only the step size has changed, and with it the update."""
    node = Node(text)
    first = fold(node.ask())
    node.text = toml(client__optimizer__lr=0.05)
    for round in (1, 2):
        new_process()
        assert "agreed to another experiment" in refusal(node.ask(round=round))
    node.text = text
    assert fold(node.ask()) == first


def test_a_key_that_the_server_knows_cannot_be_slipped_in_later(text):
    """How the key is made is not in the plan: it changes no release of an honest client."""
    node = Node(text)
    node.join()
    key = NodeMemory(node.context).key
    node.text = toml(privacy__noise_key="seed")
    new_process()
    assert "agreed to another experiment" in refusal(node.join())
    assert "agreed to another experiment" in refusal(node.ask())
    assert NodeMemory(node.context).key == key


def test_an_experiment_that_cannot_be_agreed_to_leaves_no_key_behind(text):
    """Or one whose key follows from the seed could come first and fail."""
    node = Node(text)
    node.text = toml(privacy__noise_key="seed", federation__evaluation={"every": 1})
    assert node.join().has_error()
    assert not node.context.state.config_records


@pytest.mark.parametrize("round", [1.0, 1.5, "1", True])
def test_a_round_is_a_whole_number(text, round):
    assert Node(text).ask(round=round).has_error()


def test_a_node_restarted_in_the_middle_goes_on_under_a_new_key(text):
    """Another noise for the same round: what it said before does not help to see through what it says now."""
    node = Node(text)
    first, key = fold(node.ask()), NodeMemory(node.context).key
    node.restart()
    fold(node.ask(round=2, shift=0.5))
    assert NodeMemory(node.context).key != key
    assert fold(node.ask()) != first


def test_a_run_with_a_node_that_restarts_completes_within_its_plan(tiny_toml, tmp_path):
    class Restarting(FlowerNodes):
        def context(self, message):
            context = super().context(message)
            if message.metadata.dst_node_id == 3 and message.metadata.group_id == "2":
                context.state = RecordDict()
            return context

    path = tiny_toml(federation__clients=2, federation__cohort__rate=1.0)
    grid = Restarting(clients=2, partitions=(0, 1))
    serve(grid, config=str(path), out=str(tmp_path / "run"))
    run = Run(tmp_path / "run")
    assert run.end.status == "completed"
    rounds = [event for event in read_events(run.path / "private" / "ledger.sqlite") if event.kind == "round"]
    assert [event.round for event in rounds] == [1, 2, 3]
