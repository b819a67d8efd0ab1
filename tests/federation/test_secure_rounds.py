"""Rounds behind masks: the same model as without, over every grid and chunk, and no update in the clear."""

import numpy as np
import pytest
import tiny_federation as tiny
from flwr.app import Message, RecordDict

from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.engine.grid import new_context
from fedsafe.errors import ConfigError, EngineError, PlanViolation
from fedsafe.federation.messages import TRAIN
from fedsafe.federation.secure_messages import (
    StageReply,
    StageRequest,
    read_stage,
    read_stage_reply,
    stage_reply,
    with_stage,
)
from fedsafe.records import Round
from fedsafe.runs import Callback, resume, run
from fedsafe.runs.compose import aggregator_of, calibrate, client_apps, compose
from fedsafe.runs.config import make_config
from fedsafe.runs.secure import simulated_rounds
from fedsafe.store import RunFolder

DISTRIBUTED = {"name": "distributed_mean", "minimum": 4}


def values(*, secure=True, **changes):
    return tiny.config(
        **{
            "aggregation__secure": secure,
            "server__aggregator": DISTRIBUTED,
            "federation__cohort": {"rate": 1.0},
            "privacy__client__epsilon": 5.0,
            "privacy__noise_key": "seed",
            "rounds": 2,
            **changes,
        }
    )


def models(done):
    return [line.parameters_sha256 for line in RunFolder.open(done.path).record() if isinstance(line, Round)]


def test_a_secure_run_releases_what_the_sum_without_masks_does_whatever_the_chunks(tmp_path):
    # Streams of paired runs do not depend on the plan, which a secure run has one of its own of.
    plain, whole, cut = (
        run(values(secure=secure, privacy__paired=True, engine__chunk=chunk), out=tmp_path / str(number))
        for number, (secure, chunk) in enumerate([(False, None), (True, None), (True, 5)])
    )
    assert models(plain) == models(whole) == models(cut)


def test_the_noisy_average_becomes_one_whose_clients_add_the_noise():
    made = make_config(values(server__aggregator="noisy_mean"))
    assert made.server.aggregator == "distributed_mean"
    assert "distributed_mean" in made.to_toml()


@pytest.mark.parametrize(
    "rule", ["median", "krum", "fedavg", "scaffold", "q_fedavg", "capped_mean", "banded_mean", "my_rules:Own"]
)
def test_a_rule_that_masked_sums_cannot_compute_is_refused_with_the_reason(rule):
    with pytest.raises(
        ConfigError, match=f"aggregation.secure = true, and server.aggregator = '{rule}': .*use noisy"
    ):
        make_config(values(server__aggregator=rule))


def test_without_a_client_level_target_nothing_is_masked():
    with pytest.raises(ConfigError, match=r"privacy\.client\.epsilon"):
        compose(make_config(values(privacy__client__epsilon=float("inf"))))


def test_claims_rest_on_masks_and_name_them(tmp_path):
    done = run(values(rounds=1), out=tmp_path / "run")
    claim = done.claims[1]
    assert any("X25519" in text for text in claim["assumptions"])
    assert any("one program plays all parties" in text for text in claim["assumptions"])
    assert not any("this run simulates it" in text for text in claim["assumptions"])
    assert "against the server" in claim["statement"]


@pytest.fixture(scope="module")
def played():
    parts = compose(make_config(values()))
    plan = calibrate(parts)
    return parts, plan, client_apps(parts, plan, bytes(32))()


def test_an_update_in_the_clear_is_refused(played):
    _, _, apps = played
    InlineGrid(clients=tiny.CLIENTS, apps=apps)  # says who makes messages
    message = Message(RecordDict(), dst_node_id=2, message_type=TRAIN)
    with pytest.raises(PlanViolation, match="in the clear"):
        apps.one(message, new_context(2, tiny.CLIENTS, {}, {}))


def lost(apps, gone):
    """Apps of which some clients do not answer a stage."""

    def batch(messages, contexts):
        stage = read_stage(messages[0]).stage
        there = [
            (message, context)
            for message, context in zip(messages, contexts, strict=True)
            if int(context.node_config["partition-id"]) not in gone.get(stage, ())
        ]
        if not there:
            nothing = StageReply(said={}, states={}, failures=len(messages), error="", cpu_seconds=0.0)
            return stage_reply(nothing, messages[0])
        return apps.batch(*zip(*there, strict=True))

    return ClientApps(one=apps.one, batch=batch)


def one_round(played, gone, tmp_path):
    parts, plan, apps = played
    rounds = simulated_rounds(
        parts.config.aggregation, aggregator_of(parts, plan), plan, bytes(32), parts.layout.total
    )
    grid = InlineGrid(clients=tiny.CLIENTS, apps=lost(apps, gone))
    (outcome,) = tiny.play(parts, plan, grid, tmp_path / "ledger.sqlite", last=1, secure=rounds)
    return outcome


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "confirm", "reveal"])
def test_clients_may_be_lost_before_any_stage(played, stage, tmp_path):
    outcome = one_round(played, {stage: {1, 6}}, tmp_path)
    assert outcome.aborted is None
    # Who sent masked values is in the sum, whatever happened after.
    assert outcome.failures == (0 if stage in ("confirm", "reveal") else 2)


def test_too_few_leave_the_model_as_it_is_and_say_so(played, tmp_path, caplog):
    parts, _, _ = played
    outcome = one_round(played, {"mask": set(range(9))}, tmp_path)
    assert "nothing was unmasked" in outcome.aborted
    assert np.array_equal(outcome.parameters, parts.initial)
    assert outcome.failures == tiny.CLIENTS
    assert "round 1 leaves the model as it is" in caplog.text


def test_a_run_that_was_interrupted_goes_on_to_the_same_model(tmp_path):
    whole = run(values(rounds=3), out=tmp_path / "whole")

    class Stop(Callback):
        def on_round(self, line):
            if line.round == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(values(rounds=3), out=tmp_path / "parts", callbacks=[Stop()])
    assert models(resume(tmp_path / "parts")) == models(whole)


@pytest.fixture
def request_message():
    InlineGrid(clients=2, apps=ClientApps(one=lambda message, context: message))
    request = StageRequest(stage="share", round=3, plan="p", inputs=b"i", said=b"said", state=b"kept")
    return request, Message(with_stage(RecordDict(), request), dst_node_id=2, message_type=TRAIN)


def test_stages_cross_a_message_unchanged(request_message):
    request, message = request_message
    assert read_stage(message) == request
    reply = StageReply(
        said={4: b"", 2: b"abc"}, states={4: b"x", 2: b""}, failures=1, error="e", cpu_seconds=0.5
    )
    assert read_stage_reply(stage_reply(reply, message)) == reply


def test_nonsense_for_a_stage_is_one_clear_error(request_message):
    _, message = request_message
    with pytest.raises(EngineError, match="something else than its part"):
        read_stage_reply(Message(RecordDict(), reply_to=message))
    del message.content.config_records["secure"]["said"]
    with pytest.raises(EngineError, match="lacks 'said'"):
        read_stage(message)
