"""The server's app and two gates in one process: refusals leave a client out, and a run that was cut off goes on."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from hospitals import Hospital, experiment, refused

from fedsafe.apps import client, server
from fedsafe.deploy.runtime import Work
from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.errors import ConfigError, EngineError, RecordError
from fedsafe.privacy.chain import read_events
from fedsafe.runs import Run


class CutOff(Exception):
    """The server's process ends here."""


@dataclass
class Federation:
    """A server's run folder, and its two hospitals."""

    folder: Path

    def __post_init__(self):
        self.north = Hospital(self.folder / "north")
        self.south = Hospital(self.folder / "south", name="south")
        self.text = experiment(self.folder / "north")
        (self.folder / "experiment.toml").write_text(self.text)
        self.answered: dict[str, list[Message]] = {"north": [], "south": []}
        self.cut = None

    @property
    def out(self):
        return self.folder / "run"

    def serve(self, **settings):
        grid = InlineGrid(clients=2, apps=ClientApps(one=self._answer))
        config = {"config": str(self.folder / "experiment.toml"), "overrides": "", "out": str(self.out)}
        config |= {"wait-for-nodes": 1.0, "wait-for-replies": 30.0, **settings}
        context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config)
        server.app(grid, context)

    def _answer(self, message, context):
        # Node 2 is the south, so that numbers of nodes and of clients differ.
        hospital = self.south if message.metadata.dst_node_id == 2 else self.north
        if self.cut == (hospital.name, message.metadata.message_type, message.metadata.group_id):
            raise CutOff
        reply = hospital.gate.answer(Work(message=message, context=context, fab=hospital.fab))
        self.answered[hospital.name].append(reply)
        return reply

    def exchanges(self):
        lines = (self.out / "private" / "replies.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def close(self):
        self.north.gate.close()
        self.south.gate.close()


@pytest.fixture
def federation(tmp_path):
    made = Federation(tmp_path)
    yield made
    made.close()


@pytest.fixture
def cut_through(monkeypatch):
    """An exception in a node's answer is a failure of the client; here it is the end of the server."""
    from fedsafe.engine import grid

    whole = grid.deliver

    def deliver(apps, messages, contexts):
        def one(message, context):
            try:
                return apps.one(message, context)
            except CutOff:
                raise KeyboardInterrupt from None

        return whole(ClientApps(one=one), messages, contexts)

    monkeypatch.setattr("fedsafe.engine.grid.deliver", deliver)


def test_a_run_over_two_gates(federation):
    federation.serve()
    run = Run(federation.out)
    assert run.end.status == "completed"
    assert [line["replied"] for line in federation.exchanges()] == [2, 2, 2]
    for hospital in (federation.north, federation.south):
        assert hospital.gate.ledger.released(*hospital.gate.ledger.runs) == (1, 2, 3)
    token = federation.out / "private" / "run.token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert federation.north.gate.ledger.runs == (token.read_text().strip(),)
    spent = federation.north.gate.ledger.spent(federation.north.gate.policy.budget.record)
    assert spent.epsilon <= run.claims[0]["epsilon"] + 1e-9


def test_a_client_that_refuses_to_join_is_left_out_and_the_run_goes_on(federation):
    federation.south.allow(budget__record__epsilon=0.1)
    federation.south.restart()
    federation.serve()
    run = Run(federation.out)
    assert run.end.status == "completed"
    assert [(e["replied"], e["refused"]) for e in federation.exchanges()] == [(1, {"budget_spent": 1})] * 3
    assert {refused(reply) for reply in federation.answered["south"]} == {"budget_spent"}
    assert set(federation.south.kinds()) == {"refusal"}
    events = read_events(federation.out / "private" / "ledger.sqlite")
    assert all(event.body["cohort"] == [0, 1] for event in events if event.kind == "round")


def test_a_run_that_everybody_refuses_does_not_begin(federation):
    for hospital in (federation.north, federation.south):
        hospital.allow(budget__record__epsilon=0.1)
        hospital.restart()
    with pytest.raises(EngineError, match="every node refuses: budget_spent"):
        federation.serve()
    assert not federation.out.exists()


@pytest.mark.usefixtures("cut_through")
@pytest.mark.parametrize("round", ["1", "2", "3"])
def test_a_server_that_was_cut_off_in_a_round_goes_on_with_it(federation, round):
    """Who had answered sends the same bytes and is not charged again; who had not is charged."""
    federation.cut = ("south", "train", round)
    with pytest.raises(KeyboardInterrupt):
        federation.serve()
    # Clients are asked in their own order: the north has answered, and the server has never heard it.
    lost = federation.answered["north"][-1]
    before = federation.north.kinds()
    assert federation.south.gate.ledger.released(*federation.south.gate.ledger.runs) == tuple(
        range(1, int(round))
    )
    federation.cut = None
    federation.north.restart()
    done = len(federation.answered["north"])
    federation.serve(resume=True)
    assert Run(federation.out).end.status == "completed"
    joined, again = federation.answered["north"][done : done + 2]
    assert not joined.has_error()
    assert again.content.object_id == lost.content.object_id
    assert federation.north.kinds()[: len(before)] == before
    for hospital in (federation.north, federation.south):
        kinds = hospital.kinds()
        assert kinds.count("release") == kinds.count("reply") == 3
        assert kinds.count("agreement") == 1
    (line,) = (json.loads(text) for text in (federation.out / "resumed.jsonl").read_text().splitlines())
    assert line == {"round": int(round), "under_way": True}
    events = read_events(federation.out / "private" / "ledger.sqlite")
    assert [event.round for event in events if event.kind == "round"] == [1, 2, 3]


@pytest.mark.usefixtures("cut_through")
def test_a_run_is_not_resumed_with_a_node_that_has_no_ledger(federation):
    federation.cut = ("south", "train", "2")
    with pytest.raises(KeyboardInterrupt):
        federation.serve()
    federation.cut = None
    whole = federation._answer

    def forgetful(message, context):
        reply = whole(message, context)
        if message.metadata.message_type == "query.join":
            reply.content.config_records["joined"]["ledger"] = "memory"
        return reply

    federation._answer = forgetful
    with pytest.raises(EngineError, match="has no ledger on its disk"):
        federation.serve(resume=True)
    assert not (federation.out / "resumed.jsonl").exists()


def test_what_can_be_resumed(federation):
    with pytest.raises(ConfigError, match="needs out"):
        federation.serve(resume=True, out="")
    with pytest.raises(RecordError, match="no run folder"):
        federation.serve(resume=True)
    with pytest.raises(ConfigError, match="give true or false"):
        federation.serve(resume="yes")


def test_an_ordinary_node_says_that_it_remembers_in_memory_only():
    assert client.MEMORY == "memory"
