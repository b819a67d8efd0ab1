"""A secure sum is exactly the sum of what arrived, whoever drops out when, and nothing at all below the threshold."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsafe.aggregation.secure import (
    STAGES,
    RoundId,
    SecureClient,
    SecureParameters,
    SecureServer,
    graph,
    secure_sum,
    simulated_identities,
    simulated_seed,
)
from fedsafe.aggregation.secure.encoding import decode, encode
from fedsafe.errors import RoundAborted, SecureAggregationError
from fedsafe.privacy.mechanisms import DistributedMechanism, wrap
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(29)
IDENTITIES = simulated_identities(KEY, range(64))
ROUND = RoundId(run="here", round=3, plan=b"plan")

Tamper = Callable[[int, bytes], bytes]


def parameters_of(clients: int = 20, values: int = 12, **changes: object) -> SecureParameters:
    usual = {"values": values, "modulus": 24, "minimum": max(2, clients // 2), "corrupt": 0, "dropouts": 0.25}
    return SecureParameters(**{**usual, **changes})


def values_of(clients: Collection[int], parameters: SecureParameters) -> dict[int, NDArray[np.int64]]:
    half = 2 ** (parameters.modulus - 1)
    drawn = np.random.default_rng(5)
    return {client: drawn.integers(-half, half, parameters.values) for client in clients}


class Game:
    """A round, stage by stage, in which anybody's messages can be changed."""

    def __init__(
        self,
        clients: int = 20,
        parameters: SecureParameters | None = None,
        round: RoundId = ROUND,
        **changes: object,
    ) -> None:
        self.parameters = parameters or parameters_of(clients, **changes)
        self.inputs = values_of(range(clients), self.parameters)
        self.server = SecureServer(pinned=IDENTITIES.pinned, parameters=self.parameters, round=round)
        self.clients = {client: self.client(client, round) for client in range(clients)}
        self.asked: Mapping[int, bytes] = dict.fromkeys(self.clients, b"")
        self.answers: dict[int, bytes] = {}

    def client(self, client: int, round: RoundId = ROUND, **changes: object) -> SecureClient:
        usual = {
            "signing_key": IDENTITIES.signing[client],
            "pinned": IDENTITIES.pinned,
            "parameters": self.parameters,
            "round": round,
            "values": lambda: self.inputs[client],
            "seed": simulated_seed(KEY, client, round.round, round.context(self.parameters)),
        }
        return SecureClient(client, **{**usual, **changes})

    def answer(self, client: int) -> bytes:
        own, message = self.clients[client], self.asked[client]
        return own.handle(message) if message else own.advertise()

    def collect(self, lost: Collection[int] = (), tamper: Mapping[int, Tamper] | None = None) -> None:
        """Have everybody who was asked answer, but for the lost; tampered answers are expected to be refused."""
        self.answers = {client: self.answer(client) for client in self.asked if client not in lost}
        for client, answer in self.answers.items():
            if client in (tamper or {}):
                with pytest.raises(SecureAggregationError):
                    self.server.receive(tamper[client](client, answer), client)
            else:
                self.server.receive(answer, client)

    def advance(self) -> None:
        self.asked = self.server.advance()

    def until(self, stage: str) -> "Game":
        while self.server.stage != stage:
            self.collect()
            self.advance()
        return self

    def finish(self) -> NDArray[np.int64]:
        self.until("done")
        return self.server.result().total

    def expected(self, clients: Collection[int]) -> NDArray[np.int64]:
        return wrap(np.sum([self.inputs[c] for c in clients], axis=0), self.parameters.modulus)


class TestDropouts:
    @pytest.mark.parametrize("stage", STAGES)
    def test_the_result_is_the_sum_of_those_whose_masked_values_arrived(self, stage):
        game = Game(20, corrupt=2)
        lost = {1, 4, 7, 13, 19}
        for at in STAGES:
            game.collect(lost if at == stage else ())
            game.asked = {c: m for c, m in game.server.advance().items() if at != stage or c not in lost}
        arrived = set(range(20)) - (lost if stage in ("advertise", "share", "mask") else set())
        result = game.server.result()
        assert set(result.clients) == arrived
        np.testing.assert_array_equal(result.total, game.expected(arrived))

    @pytest.mark.parametrize("stage", STAGES)
    def test_below_the_threshold_nothing_is_unmasked_and_every_client_is_told(self, stage):
        game = Game(20)
        for at in STAGES:
            game.collect(range(11) if at == stage else ())
            game.advance()
            if at == stage:
                break
        with pytest.raises(RoundAborted, match=r"nothing was unmasked"):
            game.server.result()
        assert game.server.stage == "aborted"
        told = set(range(11, 20)) if stage == "advertise" else set(range(20))
        assert set(game.asked) == told
        for client in told:
            if client >= 11 and stage != "reveal":
                with pytest.raises(
                    RoundAborted,
                    match=r"the server says that it has ended round 3 .*unmasked, and why: .*need",
                ):
                    game.clients[client].handle(game.asked[client])
                assert game.clients[client].finished

    def test_an_aborted_round_keeps_no_masked_value(self):
        game = Game(20).until("confirm")
        game.server.abort("the operator stops it")
        with pytest.raises(RoundAborted, match="the operator stops it"):
            game.server.result()
        assert not game.server._heard.masked
        with pytest.raises(SecureAggregationError, match="out of turn: the round is at 'aborted'"):
            game.server.receive(game.answers[3], 3)

    @given(st.data())
    @settings(max_examples=12, deadline=None)
    def test_any_clients_lost_at_any_stages_leave_the_exact_sum_or_none(self, data):
        clients = data.draw(st.integers(3, 8))
        lost = {stage: data.draw(st.sets(st.integers(0, clients - 1), max_size=2)) for stage in STAGES}
        modulus = data.draw(st.sampled_from([2, 8, 13, 16, 24, 32, 33, 62]))
        parameters = parameters_of(clients, modulus=modulus, minimum=2, dropouts=0.0)
        inputs = values_of(range(clients), parameters)
        try:
            found = secure_sum(
                {c: (lambda c=c: inputs[c]) for c in inputs},
                key=KEY, identities=IDENTITIES, parameters=parameters, round=ROUND, lost=lost,
            )  # fmt: skip
        except RoundAborted:
            assert len(set().union(*lost.values())) > 0
            return
        gone = lost["advertise"] | lost["share"] | lost["mask"]
        assert set(found.clients) == set(range(clients)) - gone
        total = wrap(np.zeros(parameters.values, np.int64), modulus)
        for client in found.clients:
            total = wrap(total + inputs[client], modulus)
        np.testing.assert_array_equal(found.total, total)


class TestGraph:
    @pytest.fixture
    def sparse(self, monkeypatch):
        monkeypatch.setattr(graph, "FEW", 0)
        graph.graph_for.cache_clear()
        yield
        graph.graph_for.cache_clear()

    def test_a_sparse_graph_sums_exactly_too(self, sparse):
        game = Game(32, corrupt=0, dropouts=0.1, minimum=10)
        assert game.parameters.graph(32).neighbours < 24
        lost = {5, 6, 30}
        game.until("mask").collect(lost)
        game.advance()
        game.asked = {c: m for c, m in game.asked.items() if c not in lost}
        np.testing.assert_array_equal(game.finish(), game.expected(set(range(32)) - lost))

    def test_clients_choose_neighbours_of_their_own_and_hide_them_from_nobody_who_must_check(self, sparse):
        game = Game(32, corrupt=0, dropouts=0.1, minimum=10).until("confirm")
        states = {client: own._state for client, own in game.clients.items()}
        assert len({state.chosen for state in states.values()}) == 32
        for client, state in states.items():
            for owner, dealt in state.dealt.items():
                assert dealt.neighbours == states[owner].chosen
                assert client in dealt.neighbours

    def test_a_server_that_drops_the_neighbours_of_one_client_does_not_have_it_unmasked(self, sparse):
        """All are told the same, enough are left, and the client itself is not asked: its holders refuse."""
        game = Game(32, corrupt=0, dropouts=0.1, minimum=10).until("confirm")
        numbers, victim = game.parameters.graph(32), 7
        chosen = game.clients[victim]._state.chosen
        dropped = set(chosen[: numbers.neighbours - numbers.threshold + 1])
        assert 32 - len(dropped) >= numbers.signatures
        holders = set(chosen) - dropped
        assert len(holders) == numbers.threshold - 1
        for client in holders:
            header, lists, _, _ = decode(game.asked[client])
            told = replace(lists, clients=tuple(c for c in lists.clients if c not in dropped))
            with pytest.raises(SecureAggregationError, match=r"neighbours of client \d+"):
                game.clients[client].handle(encode(header, told))


class TestNoise:
    def test_quantised_noisy_updates_sum_to_what_their_plain_sum_is(self):
        """The same shares of noise, on the same grid, modulo the same power of two."""
        mechanism = DistributedMechanism(clip=1.0, noise=1.0, bits=0, modulus=20, minimum=10, corrupt=1)
        mechanism = mechanism.on_finest_grid(20)
        sent = {
            client: mechanism.sent(
                np.full(7, 0.3),
                Stream(KEY, StreamId(purpose="client draws", client=client, round=3, digest=b"d")),
            )
            for client in range(20)
        }
        found = secure_sum(
            {c: (lambda c=c: sent[c]) for c in sent},
            key=KEY, identities=IDENTITIES, parameters=SecureParameters.of(mechanism, 7), round=ROUND,
            lost={"mask": {2, 3}},
        )  # fmt: skip
        plain = np.zeros(8, np.int64)
        for client in set(range(20)) - {2, 3}:
            plain = wrap(plain + sent[client], 20)
        np.testing.assert_array_equal(found.total, plain)


class TestReplay:
    def test_a_simulated_round_repeats_and_another_has_other_masks(self):
        first, again = Game(6).until("confirm"), Game(6).until("confirm")
        assert first.answers == again.answers
        other = Game(6, round=RoundId(run="here", round=4, plan=b"plan")).until("confirm")
        assert all(other.answers[c] != first.answers[c] for c in range(6))

    def test_a_client_goes_on_in_another_process_at_every_stage(self):
        game = Game(8)
        for _ in STAGES:
            game.collect()
            for client in game.clients:
                kept = game.clients[client].state()
                if not game.clients[client].finished:
                    game.clients[client] = SecureClient.restore(
                        kept, client, signing_key=IDENTITIES.signing[client], pinned=IDENTITIES.pinned,
                        parameters=game.parameters, round=ROUND, values=lambda c=client: game.inputs[c],
                    )  # fmt: skip
            game.advance()
        np.testing.assert_array_equal(game.server.result().total, game.expected(range(8)))

    def test_a_client_that_is_done_keeps_no_secret(self):
        game = Game(6)
        secret = simulated_seed(KEY, 0, 3, ROUND.context(game.parameters))
        assert secret.hex().encode() in game.clients[0].state()
        game.finish()
        assert secret.hex().encode() not in game.clients[0].state()

    @pytest.mark.parametrize("state", [b"", b"{}", b"[]", b"garbage", b'{"owner": 3}'])
    def test_what_is_no_state_of_this_client_and_round_is_refused(self, state):
        game = Game(6)
        for kept in (state, game.clients[1].state()):
            with pytest.raises(SecureAggregationError, match="state"):
                SecureClient.restore(
                    kept, 0, signing_key=IDENTITIES.signing[0], pinned=IDENTITIES.pinned,
                    parameters=game.parameters, round=ROUND, values=lambda: game.inputs[0],
                )  # fmt: skip
