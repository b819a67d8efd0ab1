"""Who is at fault in a secure sum: what is certain is named, what may be either of two is said to be so."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from test_secure_hostile import changed, content, refused
from test_secure_round import IDENTITIES, Game

from fedsafe.aggregation.secure import RoundId
from fedsafe.aggregation.secure.answers import SOMEBODY, blamed
from fedsafe.aggregation.secure.encoding import decode, encode
from fedsafe.aggregation.secure.messages import Sealed
from fedsafe.errors import RoundAborted, SecureAggregationError

DIGEST = bytes(32)


def dealt_by(cheat: int, game: Game, change: Callable[[Sealed], Sealed], holders: set[int]) -> None:
    """The stage in which shares are dealt, with other ones for some holders."""
    game.until("share")
    game.answers = {c: game.answer(c) for c in game.asked}
    shares = content(game.answers[cheat]).dealt
    dealt = tuple(change(sealed) if sealed.holder in holders else sealed for sealed in shares)
    game.answers[cheat] = changed(game.answers[cheat], cheat, dealt=dealt)
    for client, answer in game.answers.items():
        game.server.receive(answer, client)
    game.advance()


class TestShares:
    @pytest.mark.parametrize("field", ["of_own", "of_masks"])
    def test_one_that_does_not_fit_what_its_owner_signed_is_known_to_its_holder_before_it_masks(self, field):
        """The holders are honest: neither is blamed for what client 3 dealt."""
        game = Game(20, minimum=10, corrupt=1)
        dealt_by(3, game, lambda sealed: replace(sealed, **{field: DIGEST}), {7})
        game.collect()
        assert {c: content(a).unreadable for c, a in game.answers.items() if content(a).unreadable} == {
            7: (3,)
        }
        game.advance()
        assert [client for client, _ in game.server.refused] == [SOMEBODY]
        assert (
            "client 7 says that it cannot read what client 3 dealt: one of the two"
            in game.server.refused[0][1]
        )
        np.testing.assert_array_equal(game.finish(), game.expected(range(20)))
        assert game.server.named == ()

    def test_an_owner_that_is_at_odds_with_more_than_can_be_corrupt_is_named_before_anything_is_unmasked(
        self,
    ):
        game = Game(20, minimum=10, corrupt=1)
        dealt_by(3, game, lambda sealed: replace(sealed, of_own=DIGEST), set(range(20)))
        game.collect()
        game.advance()
        with pytest.raises(RoundAborted, match="can read what client 3 dealt") as ended:
            game.server.result()
        assert ended.value.named == game.server.named == (3,)
        assert {client for client, _ in game.server.refused} == {3}

    def test_a_holder_that_says_it_can_read_nothing_of_anybody_is_named_and_the_round_goes_on(self):
        game = Game(20, minimum=10, corrupt=1).until("mask")
        game.answers = {c: game.answer(c) for c in game.asked}
        lie = changed(game.answers[5], 5, unreadable=tuple(c for c in range(20) if c != 5))
        for client, answer in game.answers.items():
            game.server.receive(lie if client == 5 else answer, client)
        game.advance()
        assert {client for client, _ in game.server.refused} == {5}
        np.testing.assert_array_equal(game.finish(), game.expected(range(20)))
        assert game.server.result().named == (5,)

    def test_a_holder_complains_of_those_alone_that_dealt_to_it(self):
        game = Game(8, minimum=2).until("mask")
        game.answers = {c: game.answer(c) for c in game.asked}
        for strange in ((5,), (60,), tuple(range(100_000))):
            data = changed(game.answers[5], 5, unreadable=strange)
            refused(game, data, 5, "client 5 says that it cannot read what client .* who dealt it nothing")

    @pytest.mark.parametrize("length", [0, 144, 2_000_000])
    def test_what_is_dealt_has_one_length(self, length):
        game = Game(8, minimum=2).until("share")
        answer = game.answer(3)
        assert {len(sealed.hidden) for sealed in content(answer).dealt} == {145}
        dealt = tuple(replace(sealed, hidden=bytes(length)) for sealed in content(answer).dealt)
        refused(game, changed(answer, 3, dealt=dealt), 3, f"dealt {length} bytes to client 0: it is 145")

    def test_counting_names_who_is_at_odds_with_too_many_and_nobody_else(self):
        pairs = {(1, 2), (1, 3), (1, 4), (6, 8), (7, 8), (9, 8), (10, 11)}
        found = blamed(pairs, 2)
        assert [client for client, _ in found] == [1, 1, 1, 8, 8, 8, SOMEBODY]
        assert {client for client, _ in blamed(pairs, 3)} == {SOMEBODY}


class TestSecrets:
    def test_a_false_commitment_is_proof(self):
        game = Game(8, minimum=2)
        own = game.clients[3]._own_keys
        game.clients[3]._own_keys = lambda: replace(own(), commitment=b"\1" * 32)
        game.until("reveal").collect()
        game.advance()
        with pytest.raises(RoundAborted, match="client 3 dealt give no secret of its own") as ended:
            game.server.result()
        assert ended.value.named == (3,)

    def test_too_few_shares_prove_nothing(self):
        game = Game(8, minimum=2).until("reveal")
        game.collect({0, 1, 2, 3})
        game.advance()
        with pytest.raises(RoundAborted, match="shares of client") as ended:
            game.server.result()
        assert ended.value.named == ()


class TestErrors:
    @pytest.mark.parametrize("stage", ["mask", "confirm", "reveal"])
    def test_a_key_that_is_taken_back_in_the_middle_of_a_round_ends_it_in_one_line(self, stage):
        game = Game(8, minimum=2).until(stage)
        game.clients[0]._pinned = {c: key for c, key in IDENTITIES.pinned.items() if c != 5}
        with pytest.raises(SecureAggregationError, match="client 5 takes no part"):
            game.clients[0].handle(game.asked[0])
        assert game.clients[0].finished

    @pytest.mark.parametrize("number", [-1, 2**64])
    def test_a_round_that_no_message_could_name_is_refused(self, number):
        with pytest.raises(SecureAggregationError, match=f"round {number} of secure aggregation"):
            RoundId(run="here", round=number)


def test_the_server_keeps_the_sum_of_what_arrived_and_no_value_of_one_client():
    game = Game(20, values=2**16, minimum=10).until("mask")
    answers = {c: game.answer(c) for c in game.asked}
    tracemalloc.start()
    try:
        for client, answer in answers.items():
            game.server.receive(answer, client)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 3 * 2**18  # one vector is 2^18 bytes, twenty of them are more
    game.advance()
    game.until("done")
    np.testing.assert_array_equal(game.server.result().total, game.expected(range(20)))


def test_what_a_server_changes_in_the_digests_makes_the_shares_unreadable():
    game = Game(8, minimum=2).until("mask")
    header, deliveries, _, _ = decode(game.asked[0])
    lied = tuple(
        replace(delivered, of_own=DIGEST) if delivered.owner == 4 else delivered
        for delivered in deliveries.sealed
    )
    answer = game.clients[0].handle(encode(header, replace(deliveries, sealed=lied)))
    assert content(answer).unreadable == (4,)
