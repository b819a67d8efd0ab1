"""Secure aggregation under verify: right clients pass, and each planted fault is found by the check that is for it."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from tiny_federation import parts

from fedsafe.aggregation import DistributedMean
from fedsafe.aggregation.secure import KeptRound, SecureClient
from fedsafe.aggregation.secure import client as client_side
from fedsafe.aggregation.secure import unmasking as server_side
from fedsafe.errors import SecureAggregationError
from fedsafe.federation.secure_clients import secure_round
from fedsafe.federation.secure_messages import StageReply, read_stage, stage_reply
from fedsafe.runs.compose import calibrate
from fedsafe.verify.bench import Bench
from fedsafe.verify.masked import MaskedRounds
from fedsafe.verify.plan_server import PlanServer
from fedsafe.verify.plans import client_claim
from fedsafe.verify.secure import Looked, check_secure

CLIENTS = 6
PLAN = {
    "federation__partition": {"name": "iid"},
    "federation__clients": CLIENTS,
    "federation__cohort": {"rate": 0.9},
    "rounds": 6,
    "privacy__record__epsilon": float("inf"),
    "privacy__client__epsilon": 8.0,
    "privacy__client__delta": 1e-3,
    "aggregation__secure": True,
    "server__aggregator": {"name": "distributed_mean", "minimum": 4},
}
ALL = {
    "share of each client behind masks",
    "noise of the sum behind masks",
    "sum behind masks",
    "masked messages",
    "update in the clear",
    "too few survivors behind masks",
    "shares given to a server that lies",
}


@pytest.fixture(scope="module")
def planned():
    of = parts(**PLAN)
    return of, calibrate(of)


@pytest.fixture
def masked(planned):
    return MaskedRounds.of_plan(*planned)


def checked(planned, masked, *only):
    """Outcomes of all checks, or of some of them."""
    with PlanServer(*planned) as server:
        bench = Bench(
            server=server,
            claim=client_claim(*planned),
            runs=8,
            rng=np.random.default_rng(0),
            masked=masked,
        )
        looked = Looked(bench=bench, masked=masked)
        outcomes = [getattr(looked, name)() for name in only] or check_secure(bench)
    return {outcome.check: outcome for outcome in outcomes}


def failures(found):
    return {name for name, outcome in found.items() if outcome.status == "FAIL"}


def own(masked):
    """The real clients of a plan."""
    return masked.answer.__self__


def test_clients_of_a_plan_pass(planned, masked):
    found = checked(planned, masked)
    assert not failures(found), [outcome.line() for outcome in found.values()]
    assert {name for name, outcome in found.items() if outcome.status == "pass"} == ALL


def test_a_plan_without_masks_has_none_to_look_at(planned):
    of = parts(**PLAN | {"aggregation__secure": False})
    assert MaskedRounds.of_plan(of, calibrate(of)) is None
    assert checked(planned, None)["masked messages"].status == "not applicable"


def with_noise(masked, factor):
    """The same clients, with another share of the noise."""
    clients = own(masked)
    mechanism = replace(masked.mechanism, noise=factor * masked.mechanism.noise)
    rule = DistributedMean(mechanism=mechanism, divisor=1.0)
    return replace(clients, runtime=replace(clients.runtime, aggregator=rule))


@pytest.mark.parametrize("factor", [0.0, 2 / 3, 1.5])
def test_one_client_with_another_share_of_noise_is_found(planned, masked, factor):
    right, wrong = own(masked), with_noise(masked, factor)
    masked.answer = lambda message, context: (
        wrong if context.node_config["partition-id"] == 3 else right
    ).answer(message, context)
    found = checked(planned, masked, "shares")
    assert "share of each client behind masks" in failures(found)
    assert "client 3" in found["share of each client behind masks"].seen


@pytest.mark.parametrize("factor", [2 / 3, 1.5])
def test_a_sum_with_another_scale_of_noise_is_found(planned, masked, factor):
    masked.answer = with_noise(masked, factor).answer
    assert "noise of the sum behind masks" in failures(checked(planned, masked, "noise_of_the_sum"))


def nothing(values, key, sign):
    """No mask."""


def constant(values, key, sign):
    values += np.array(sign * 123_456_789).astype(values.dtype)


def the_same_in_each_round(values, key, sign):
    drawn = np.random.default_rng(0).integers(0, 2**32, len(values), dtype=np.uint64)
    values += (drawn if sign > 0 else np.uint64(2**32) - drawn).astype(values.dtype)


@pytest.mark.parametrize("mask", [nothing, constant, the_same_in_each_round])
def test_masks_that_hide_nothing_are_found(planned, masked, monkeypatch, mask):
    # On both sides, so that the sum comes out right and nobody else would notice.
    monkeypatch.setattr(client_side, "add_mask", mask)
    monkeypatch.setattr(server_side, "add_mask", mask)
    assert failures(checked(planned, masked, "shares", "uniform")) == {"masked messages"}


def test_a_client_that_also_answers_in_the_clear_is_found(planned, masked):
    clients = own(masked)
    masked.answer = lambda message, context: (
        clients.runtime if read_stage(message) is None else clients
    ).answer(message, context)
    assert failures(checked(planned, masked, "clear", "lied_to")) == {"update in the clear"}


def test_a_client_that_believes_any_server_is_found(planned, masked, monkeypatch):
    real = SecureClient._reveal

    def reveal(self, confirmations):
        graph = self._graph
        self._graph = lambda clients: replace(graph(clients), signatures=1)
        return real(self, confirmations)

    monkeypatch.setattr(SecureClient, "_reveal", reveal)
    assert failures(checked(planned, masked, "lied_to")) == {"shares given to a server that lies"}


def test_a_client_that_goes_on_when_too_few_are_left_is_found(planned, masked, monkeypatch):
    # Both sides: the server would otherwise stop the round by itself.
    monkeypatch.setattr(SecureClient, "_require_part", lambda *arguments: None)
    monkeypatch.setattr("fedsafe.aggregation.secure.server.SecureServer._require_enough", lambda *a: None)
    real = SecureClient._reveal

    def reveal(self, confirmations):
        graph = self._graph
        self._graph = lambda clients: replace(graph(clients), signatures=0)
        return real(self, confirmations)

    monkeypatch.setattr(SecureClient, "_reveal", reveal)
    assert failures(checked(planned, masked, "too_few")) == {"too few survivors behind masks"}


class Nodes:
    """Clients that keep their states, as real ones do; with ``forgets``, no round is remembered once it is over."""

    def __init__(self, masked, folder, *, forgets):
        self.masked, self.folder, self.forgets = masked, folder, forgets
        self.clients = own(masked)

    def __call__(self, message, context):
        request, client = read_stage(message), int(context.node_config["partition-id"])
        if request is None:
            return self.clients.answer(message, context)
        round, keys, folder = secure_round(request), self.masked.keys, self.folder / str(client)
        options = {
            "signing_key": keys.signing(client),
            "pinned": keys,
            "parameters": self.masked.parameters,
            "round": round,
            "values": lambda: self.clients.runtime.shares([message], [context])[client],
        }
        if request.stage == "advertise":
            if self.forgets:
                for path in folder.glob("*"):
                    path.unlink()
            side = SecureClient(client, seed=hashlib.sha256(bytes([client])).digest(), **options)
            kept = KeptRound.begin(folder, client, round, side.state())
            answer = side.advertise()
        else:
            kept, state = KeptRound.resume(folder, client, round)
            side = SecureClient.restore(state, client, **options)
            try:
                answer = side.handle(request.said)
            except SecureAggregationError:
                kept.finish()
                raise
        kept.finish() if side.finished else kept.keep(side.state())
        said = StageReply(said={client: answer}, states={client: b""}, failures=0, error="", cpu_seconds=0.0)
        return stage_reply(said, message)


@pytest.mark.parametrize("forgets", [False, True])
def test_a_client_that_takes_part_in_a_round_again_is_found(planned, masked, tmp_path, forgets):
    masked.answer, masked.own_states = Nodes(masked, tmp_path, forgets=forgets), True
    found = checked(planned, masked, "noise_of_the_sum", "twice")
    assert failures(found) == ({"one answer in a round"} if forgets else set())
    assert forgets or found["one answer in a round"].status == "pass"
