"""Secure rounds in which clients fail, cheat or stay away: the run says so, and does not go on as if all were well."""

import json
from dataclasses import replace

import pytest
import tiny_federation as tiny
from flwr.app import Message, RecordDict
from test_secure_rounds import lost, values

from fedsafe.aggregation.secure import SecureClient, require_stage
from fedsafe.aggregation.secure.encoding import decode, encode
from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.engine.grid import new_context
from fedsafe.errors import EngineError, SecureAggregationError
from fedsafe.federation import ClientRuntime
from fedsafe.federation.messages import TRAIN
from fedsafe.federation.secure_messages import read_stage, read_stage_reply, with_stage
from fedsafe.runs import run
from fedsafe.runs.compose import aggregator_of, calibrate, client_apps, compose
from fedsafe.runs.config import make_config
from fedsafe.runs.secure import simulated_rounds


@pytest.fixture(scope="module")
def planned():
    parts = compose(make_config(values(rounds=4)))
    return parts, calibrate(parts)


@pytest.fixture
def played(planned):
    """Clients of which each test has its own: they answer no round from other inputs twice."""
    return (*planned, client_apps(*planned, bytes(32))())


def rounds_of(played):
    parts, plan, _ = played
    return simulated_rounds(
        parts.config.aggregation, aggregator_of(parts, plan), plan, bytes(32), parts.layout.total
    )


def play(played, apps, tmp_path, last, rounds=None):
    parts, plan, _ = played
    grid = InlineGrid(clients=tiny.CLIENTS, apps=apps)
    ledger = tmp_path / "ledger.sqlite"
    return tiny.play(parts, plan, grid, ledger, last=last, secure=rounds or rounds_of(played))


def test_a_round_in_which_every_client_fails_ends_the_run_with_what_the_first_said(tmp_path, monkeypatch):
    def fails(self, messages, contexts):
        raise RuntimeError("training is broken")

    monkeypatch.setattr(ClientRuntime, "shares", fails)
    with pytest.raises(
        EngineError, match=r"every client of round 1 failed; the first said: .*training is broken"
    ):
        run(values(), out=tmp_path / "run")


def test_three_rounds_in_a_row_without_a_sum_end_the_run(played, tmp_path):
    apps = lost(played[2], {"mask": set(range(9))})
    with pytest.raises(
        EngineError,
        match="3 rounds in a row were ended without a sum, and the model stays as it is; round 3: ",
    ):
        play(played, apps, tmp_path, last=4)


def test_two_are_borne(played, tmp_path):
    assert len(play(played, lost(played[2], {"mask": set(range(9))}), tmp_path, last=2)) == 2


def cheating(apps, cheat):
    """Apps of which one client commits itself to another mask than it has."""

    def batch(messages, contexts):
        own = SecureClient._own_keys

        def keys(self):
            found = own(self)
            return replace(found, commitment=b"\1" * 32) if self._client == cheat else found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SecureClient, "_own_keys", keys)
            return apps.batch(messages, contexts)

    return ClientApps(one=apps.one, batch=batch)


def test_one_that_is_proved_to_cheat_costs_one_round_and_is_left_out_of_the_others(played, tmp_path):
    rounds = rounds_of(played)
    first, *others = play(played, cheating(played[2], 3), tmp_path, last=3, rounds=rounds)
    assert "client 3 dealt give no secret of its own" in first.aborted
    assert "client 3 is left out of later rounds" in first.refused
    assert rounds.left_out == {3}
    assert [(outcome.aborted, outcome.failures) for outcome in others] == [(None, 1), (None, 1)]


def test_what_was_refused_is_in_the_private_timing_of_the_round(tmp_path, monkeypatch):
    own = SecureClient._own_keys

    def keys(self):
        found = own(self)
        return replace(found, commitment=b"\1" * 32) if self._client == 3 else found

    monkeypatch.setattr(SecureClient, "_own_keys", keys)
    done = run(values(), out=tmp_path / "run")
    lines = [json.loads(line) for line in (done.path / "private" / "timings.jsonl").read_text().splitlines()]
    assert "dealt give no secret of its own" in lines[0]["aborted"]
    assert lines[0]["refused"] == ["client 3 is left out of later rounds"]
    assert "aborted" not in lines[1]


class TestStages:
    def test_a_message_of_another_stage_than_it_is_called_changes_nothing(self, played, tmp_path):
        """Deliveries that are called a confirmation would be answered with masked values."""
        _, _, apps = played
        seen = []

        def batch(messages, contexts):
            for message, context in zip(messages, contexts, strict=True):
                request = read_stage(message)
                if request.stage == "mask" and context.node_config["partition-id"] == 2 and not seen:
                    wrong = Message(
                        with_stage(RecordDict(), replace(request, stage="confirm")),
                        dst_node_id=message.metadata.dst_node_id,
                        message_type=TRAIN,
                    )
                    InlineGrid(clients=tiny.CLIENTS, apps=apps).push_messages([wrong])
                    there = new_context(message.metadata.dst_node_id, tiny.CLIENTS, {}, {})
                    seen.append(read_stage_reply(apps.batch([wrong], [there])))
            return apps.batch(messages, contexts)

        (outcome,) = play(played, ClientApps(one=apps.one, batch=batch), tmp_path, last=1)
        assert outcome.failures == 0
        (found,) = seen
        assert not found.said
        assert "the server calls the stage 'confirm', and sends Deliveries: it is Survivors" in found.error

    @pytest.mark.parametrize(("stage", "said"), [("advertise", b"x"), ("elsewhere", b""), ("end", b"")])
    def test_stages_that_are_none_are_refused(self, stage, said):
        with pytest.raises(SecureAggregationError, match=r"stage|no message"):
            require_stage(stage, said)

    def test_an_end_is_called_one(self, played, tmp_path):
        ends = []

        def batch(messages, contexts):
            request = read_stage(messages[0])
            if request.stage == "end":
                ends.append(request.said)
            return played[2].batch(messages, contexts)

        apps = lost(ClientApps(one=played[2].one, batch=batch), {"mask": set(range(9))})
        play(played, apps, tmp_path, last=1)
        header, abort, _, _ = decode(ends[0])
        require_stage("end", ends[0])
        with pytest.raises(SecureAggregationError, match="sends Abort: it is Roster"):
            require_stage("share", encode(header, abort))
