"""The server's app and six gates in one process: secure rounds, and a server that was cut off in the middle of one."""

import json

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from secure_hospitals import NAMES, Hospitals

from fedsafe.aggregation.secure import STAGES
from fedsafe.apps import client, server
from fedsafe.apps.nodes import EXPERIMENT, JOIN, RUN
from fedsafe.apps.peers import read_peer_keys, write_peer_keys
from fedsafe.deploy.driving import Exchange
from fedsafe.deploy.driving import _exchange as exchange_of
from fedsafe.deploy.runtime import Work
from fedsafe.deploy.signing import let_in_keys
from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.engine.grid import identify
from fedsafe.errors import ConfigError
from fedsafe.federation.secure_messages import read_stage
from fedsafe.runs import Run


class CutOff(Exception):
    """The server's process ends here."""


class Federation(Hospitals):
    """With the server's app.

    Attributes:
        cut: ``(round, stage)`` before whose last answer the server ends.
        gone: Clients that do not answer.
    """

    def __init__(self, folder):
        super().__init__(folder)
        self.cut, self.gone = None, set()
        (folder / "experiment.toml").write_text(self.text)
        write_peer_keys(folder / "peers.json", let_in_keys(self.federation))

    @property
    def out(self):
        return self.federation.folder / "run"

    def serve(self, **settings):
        grid = InlineGrid(clients=len(NAMES), apps=ClientApps(one=self._answer))
        folder = self.federation.folder
        config = {"config": str(folder / "experiment.toml"), "overrides": "", "out": str(self.out)}
        config |= {"wait-for-nodes": 1.0, "wait-for-replies": 30.0, "peers": str(folder / "peers.json")}
        context = Context(
            run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={**config, **settings}
        )
        server.app(grid, context)

    def _answer(self, message, context):
        number = len(NAMES) + 1 - message.metadata.dst_node_id  # numbers of nodes and of clients differ
        stage = read_stage(message)
        if stage is not None and self.cut == (stage.round, stage.stage) and number == 0:
            raise CutOff
        if stage is not None and number in self.gone:
            raise ConnectionError
        member = self.members[NAMES[number]]
        return member.gate.answer(Work(message=message, context=context, fab=member.fab))

    def exchanges(self, round):
        lines = map(json.loads, (self.out / "private" / "replies.jsonl").read_text().splitlines())
        return [
            (line["asked"], line["replied"], line["stage"]) for line in lines if line["round"] == str(round)
        ]

    def aborted(self):
        lines = map(json.loads, (self.out / "private" / "timings.jsonl").read_text().splitlines())
        return [line.get("aborted") for line in lines]


@pytest.fixture
def federation(tmp_path):
    made = Federation(tmp_path / "f")
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


def test_a_run_of_secure_rounds_over_gates(federation):
    federation.gone = {2}
    federation.serve()
    run = Run(federation.out)
    assert run.end.status == "completed"
    told = [(6, 5, "advertise"), *((5, 5, stage) for stage in STAGES[1:])]
    assert federation.exchanges(1) == federation.exchanges(2) == told
    assert exchange_of(federation.out) == Exchange(asked=5, replied=5)
    assert federation.aborted() == [None, None]
    for name, member in federation.members.items():
        rounds = () if name == NAMES[2] else (1, 2)
        assert member.gate.ledger.released(*member.gate.ledger.runs) == rounds
    assert not any("simulation" in text for text in run.claims[1]["assumptions"])


@pytest.mark.usefixtures("cut_through")
def test_a_server_that_was_cut_off_goes_on_with_the_round_where_every_client_answers_as_before(federation):
    federation.cut = (1, "confirm")
    with pytest.raises(KeyboardInterrupt):
        federation.serve()
    federation.cut = None
    federation.serve(resume=True)
    assert Run(federation.out).end.status == "completed"
    assert federation.aborted() == [None, None]
    for member in federation.members.values():
        assert [kind for kind in member.kinds() if kind == "release"] == ["release"] * 2


@pytest.mark.usefixtures("cut_through")
def test_where_it_would_be_another_sum_the_round_is_aborted_and_the_run_goes_on(federation, caplog):
    federation.cut = (1, "confirm")
    with pytest.raises(KeyboardInterrupt):
        federation.serve()
    federation.cut, federation.gone = None, {4}
    federation.serve(resume=True)
    run = Run(federation.out)
    assert run.end.status == "completed"
    first, second = federation.aborted()
    assert "0 clients dealt shares" in first
    assert second is None
    assert {
        member.gate.status.refusals["secure_round_refused"] for member in federation.members.values()
    } == {0, 1}
    assert "round 1 leaves the model as it is" in caplog.text
    first, second = (line.parameters_sha256 for line in rounds(run))
    assert first != second


def rounds(run):
    from fedsafe.records import Round
    from fedsafe.store import RunFolder

    return [line for line in RunFolder.open(run.path).record() if isinstance(line, Round)]


def test_a_server_without_the_clients_keys_does_not_begin(federation):
    with pytest.raises(ConfigError, match="clients behind gates"):
        federation.serve(peers="")
    (federation.federation.folder / "peers.json").write_text("[]")
    with pytest.raises(ConfigError, match="cannot be read"):
        federation.serve()
    assert not federation.out.exists()


def test_keys_come_back_as_they_were_written(federation):
    keys = let_in_keys(federation.federation)
    assert read_peer_keys(federation.federation.folder / "peers.json") == keys
    assert set(keys) == set(NAMES)


def test_a_node_without_a_gate_does_not_join(federation):
    """It has no place for the keys of others, and nothing that outlives it says which rounds it was in."""
    identify()
    experiment = ConfigRecord({"config": federation.text, "folders": [], RUN: "a" * 32})
    message = Message(RecordDict({EXPERIMENT: experiment}), dst_node_id=2, message_type=JOIN, group_id="0")
    context = Context(run_id=1, node_id=2, node_config={"partition-id": 0}, state=RecordDict(), run_config={})
    reply = client.app(message, context)
    assert reply.has_error()
    assert "run a gate" in reply.error.reason
