"""Secure aggregation against those who do not follow it: a server that lies, clients that send garbage."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from test_secure_round import IDENTITIES, KEY, ROUND, Game, parameters_of

from fedsafe.aggregation.secure import RoundId, SecureServer, simulated_identities
from fedsafe.aggregation.secure.encoding import decode, encode
from fedsafe.aggregation.secure.keys import RoundSecrets, mask_key
from fedsafe.aggregation.secure.messages import (
    Advertisement,
    Confirmation,
    Confirmations,
    Deliveries,
    Entry,
    Masked,
    Message,
    Revealed,
    Roster,
    Shares,
    Survivors,
)
from fedsafe.aggregation.secure.roster import require_client
from fedsafe.errors import ConfigError, RoundAborted, SecureAggregationError

SMALL = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    2**255 - 20,
]
WEAK = [number.to_bytes(32, "little") for number in (*SMALL, 2**255 - 19, 2**255 - 18, 2**256 - 1)]


def changed(data: bytes, client: int | None, **changes: object) -> bytes:
    """A message with other content, signed again by its client (a server's is signed by nobody)."""
    header, message, _, _ = decode(data)
    return encode(header, replace(message, **changes), None if client is None else IDENTITIES.signing[client])


def content(data: bytes) -> Message:
    return decode(data)[1]


def refused(game: Game, data: bytes, client: int | None, why: str) -> None:
    with pytest.raises(SecureAggregationError, match=why):
        game.server.receive(data, client)


def stops(game: Game, client: int, message: bytes, why: str) -> None:
    """The client refuses, and answers nothing more in this round."""
    with pytest.raises(SecureAggregationError, match=why):
        game.clients[client].handle(message)
    assert game.clients[client].finished
    with pytest.raises(SecureAggregationError, match="is over for it"):
        game.clients[client].handle(game.asked[client])


class TestKeys:
    @pytest.mark.parametrize("field", ["exchange", "mask"])
    @pytest.mark.parametrize("key", WEAK)
    def test_small_subgroup_and_second_encodings_are_refused_by_server_and_client(self, field, key):
        game = Game(4)
        own = game.clients[1].advertise()
        refused(game, changed(own, 1, **{field: key}), 1, "small order|canonical")
        game = Game(4).until("share")
        entries = content(game.asked[0]).entries
        bad = replace(entries[1], keys=replace(entries[1].keys, **{field: key}))
        stops(
            game,
            0,
            changed(game.asked[0], None, entries=(entries[0], bad, *entries[2:])),
            "small order|canonical",
        )

    @pytest.mark.parametrize("number", SMALL)
    def test_every_small_order_point_is_one(self, number):
        own = RoundSecrets(bytes(32), b"c").mask
        with pytest.raises(SecureAggregationError, match="agree on nothing secret"):
            mask_key(own, number.to_bytes(32, "little"), b"c", 1, 2)

    @pytest.mark.parametrize(
        ("other", "why"),
        [
            (RoundId(run="elsewhere", round=3, plan=b"plan"), "another run"),
            (RoundId(run="here", round=2, plan=b"plan"), "of round 2, and this is round 3"),
            (RoundId(run="here", round=3, plan=b"another"), "another plan"),
        ],
    )
    def test_replayed_ones_of_another_run_round_or_plan_are_refused(self, other, why):
        game = Game(4)
        refused(game, game.client(1, other).advertise(), 1, why)
        replayed = Game(4, round=other).until("share")
        game.until("share")
        with pytest.raises(SecureAggregationError, match=why):
            game.clients[0].handle(replayed.asked[0])

    def test_replayed_ones_under_a_new_header_are_not_signed_for_it(self):
        old, game = (
            Game(4, round=RoundId(run="here", round=2, plan=b"plan")).until("share"),
            Game(4).until("share"),
        )
        stops(game, 0, encode(decode(game.asked[1])[0], Roster(entries=(
            content(game.asked[0]).entries[0], *content(old.asked[0]).entries[1:]
        ))), "not signed by the key that client 0 has pinned for it, for this round")  # fmt: skip

    def test_mixed_up_ones_are_refused(self):
        """Two clients' keys, each under the other's number."""
        game = Game(4).until("share")
        a, b, c, d = content(game.asked[0]).entries
        mixed = (
            a,
            replace(b, keys=c.keys, signature=c.signature),
            replace(c, keys=b.keys, signature=b.signature),
            d,
        )
        stops(game, 0, changed(game.asked[0], None, entries=mixed), "not signed by the key")
        game = Game(4)
        refused(game, game.clients[1].advertise(), 2, "client 2 sent a message in the name of client 1")

    def test_forged_ones_are_refused(self):
        others = simulated_identities(bytes(32), range(4))
        game = Game(4)
        forged = game.client(1, signing_key=others.signing[1]).advertise()
        refused(game, forged, 1, "not signed by its key")
        game.until("share")
        entries = content(game.asked[0]).entries
        fake = content(forged)
        assert isinstance(fake, Advertisement)
        bad = Entry(
            client=1,
            keys=replace(fake, mask=RoundSecrets(b"x" * 32, b"c").derive("m")),
            signature=decode(forged)[2],
        )
        stops(
            game,
            0,
            changed(game.asked[0], None, entries=(entries[0], bad, *entries[2:])),
            "not signed by the key",
        )

    def test_copied_ones_are_refused(self):
        game = Game(4)
        first = content(game.clients[0].advertise())
        game.server.receive(encode(game.clients[0]._header, first, IDENTITIES.signing[0]), 0)
        copy = encode(game.clients[1]._header, first, IDENTITIES.signing[1])
        refused(game, copy, 1, "advertised a key of client 0")
        game = Game(4).until("share")
        entries = content(game.asked[0]).entries
        bad = replace(entries[2], keys=replace(entries[2].keys, mask=entries[1].keys.mask))
        stops(game, 0, changed(game.asked[0], None, entries=(*entries[:2], bad, entries[3])), "the same key")

    def test_one_key_for_two_purposes_is_refused(self):
        game = Game(4)
        own = game.clients[1].advertise()
        refused(game, changed(own, 1, exchange=content(own).mask), 1, "one key for two purposes")

    def test_an_unknown_client_is_refused(self):
        game, strangers = Game(4), simulated_identities(KEY, [99])
        stranger = game.client(
            3, signing_key=strangers.signing[99], pinned={**IDENTITIES.pinned, **strangers.pinned}
        )
        stranger._header = replace(stranger._header, sender=99)
        refused(game, stranger.advertise(), None, "client 99 takes no part")
        game.until("share")
        entries = content(game.asked[0]).entries
        stops(
            game,
            0,
            changed(game.asked[0], None, entries=(*entries, replace(entries[0], client=99))),
            "client 99 takes no part",
        )

    def test_a_roster_without_this_clients_own_keys_is_refused(self):
        game = Game(4).until("share")
        entries = content(game.asked[0]).entries
        stops(
            game, 0, changed(game.asked[0], None, entries=entries[1:]), "has no keys that client 0 advertised"
        )
        stops(game, 1, changed(game.asked[1], None, entries=(
            entries[0], replace(entries[1], keys=replace(entries[1].keys, commitment=bytes(32))), *entries[2:]
        )), "not the keys that client 1 advertised")  # fmt: skip

    def test_node_keys_of_flower_sign_too(self):
        keys = {client: ec.generate_private_key(ec.SECP384R1()) for client in range(3)}
        pinned = {client: key.public_key() for client, key in keys.items()}
        game = Game(3, minimum=2)
        game.server = SecureServer(pinned=pinned, parameters=game.parameters, round=ROUND)
        game.clients = {c: game.client(c, signing_key=keys[c], pinned=pinned) for c in keys}
        np.testing.assert_array_equal(game.finish(), game.expected(range(3)))


class TestEquivocation:
    def test_a_server_that_tells_two_clients_of_different_survivors_unmasks_nothing(self):
        """One client is told that client 5 dropped out: the shares of both of its secrets would be given away."""
        game = Game(8, minimum=2).until("confirm")
        lists = content(game.asked[0])
        assert isinstance(lists, Survivors)
        without = tuple(client for client in lists.clients if client != 5)
        told = changed(
            game.asked[0], None, clients=without, receipts=tuple(r for r in lists.receipts if r[0] != 5)
        )
        answers = {0: game.clients[0].handle(told)}
        answers |= {c: game.clients[c].handle(game.asked[c]) for c in range(1, 8)}
        refused(game, answers[0], 0, "signed other lists than it was shown")
        signatures = tuple((c, decode(answers[c])[2]) for c in range(8))
        relayed = encode(
            replace(game.clients[0]._header, sender=2**32 - 1), Confirmations(signatures=signatures)
        )
        for client in range(8):
            with pytest.raises(SecureAggregationError, match="tells clients different things"):
                game.clients[client].handle(relayed)

    def test_too_few_signatures_of_one_list_unmask_nothing(self):
        game = Game(8, minimum=2).until("reveal")
        needed = game.parameters.graph(8).signatures
        signatures = content(game.asked[0]).signatures
        assert len(signatures) == needed
        stops(game, 0, changed(game.asked[0], None, signatures=signatures[1:]), f"below {needed}")

    def test_a_signature_is_not_counted_twice_or_for_one_who_is_not_in_the_sum(self):
        game = Game(8, minimum=2).until("reveal")
        signatures = content(game.asked[0]).signatures
        with pytest.raises(SecureAggregationError, match="each comes once"):
            game.clients[0].handle(changed(game.asked[0], None, signatures=(signatures[0], *signatures[:-1])))
        game = Game(8, minimum=2).until("confirm")
        game.collect({7})
        game.advance()
        stranger = (*content(game.asked[1]).signatures[:-1], (60, b"x"))
        stops(
            game,
            1,
            changed(game.asked[1], None, signatures=stranger),
            "confirms a round that it has not survived",
        )

    def test_clients_that_saw_different_rosters_do_not_help_each_other(self):
        game = Game(8, minimum=2).until("share")
        entries = content(game.asked[0]).entries
        one_less = changed(game.asked[0], None, entries=entries[:-1])
        game.clients[0].handle(one_less)
        game.collect({0})
        game.advance()
        with pytest.raises(SecureAggregationError):  # it is not even among those that dealt shares
            game.clients[0].handle(game.asked[1])
        assert 0 not in content(game.asked[1]).sharing

    def test_a_neighbour_that_masked_under_other_lists_is_not_unmasked(self):
        """The server tells client 3 that fewer dealt shares, so that it masks with fewer; the others see no receipt."""
        game = Game(8, minimum=2).until("mask")
        deliveries = content(game.asked[3])
        assert isinstance(deliveries, Deliveries)
        fewer = tuple(c for c in deliveries.sharing if c != 6)
        told = changed(
            game.asked[3], None, sharing=fewer, sealed=tuple(s for s in deliveries.sealed if s.owner != 6)
        )
        answer = game.clients[3].handle(told)
        refused(game, answer, 3, "did not sign the lists that it was shown")
        for client in set(range(8)) - {3}:
            game.server.receive(game.clients[client].handle(game.asked[client]), client)
        game.advance()
        # A server that takes it all the same has no receipt that the others accept.
        survivors = content(game.asked[0])
        masked = content(answer)
        assert isinstance(masked, Masked)
        receipts = tuple(sorted((*survivors.receipts, (3, masked.receipt))))
        told = changed(game.asked[0], None, clients=tuple(range(8)), receipts=receipts)
        stops(game, 0, told, "client 3 has not signed that it masked under the lists that client 0 was shown")

    def test_a_neighbour_whose_own_choice_is_lost_is_not_unmasked(self):
        game = Game(8, minimum=2).until("confirm")
        state = game.clients[0]._state
        state.dealt[3] = replace(state.dealt[3], neighbours=(0, 3))
        stops(game, 0, game.asked[0], "of the neighbours of client 3, fewer than 5 survived")

    @pytest.mark.parametrize("stage", ["mask", "confirm"])
    def test_lists_that_leave_it_out_grow_or_are_too_short_are_refused(self, stage):
        field = {"mask": "sharing", "confirm": "clients"}[stage]
        for clients, why in (
            ((1, 2, 3, 4, 5, 6, 7), "left out of this round"),
            ((0, 1, 2), "nothing is unmasked below"),
            ((0, 1, 2, 3, 4, 60), "client 60 is said to have"),
        ):
            game = Game(8, minimum=2).until(stage)
            stops(game, 0, changed(game.asked[0], None, **{field: clients}), why)


class TestBothShares:
    def test_no_client_gives_both_shares_of_one_peer(self):
        game = Game(8, minimum=2).until("mask")
        game.collect({2, 6})
        game.advance()
        game.collect()
        game.advance()
        for client, message in game.asked.items():
            revealed = content(game.clients[client].handle(message))
            assert isinstance(revealed, Revealed)
            own, masks = dict(revealed.own), dict(revealed.masks)
            assert set(own) == set(range(8)) - {2, 6, client}
            assert set(masks) == {2, 6}

    def test_a_second_request_is_refused_even_if_it_names_other_survivors(self):
        game = Game(8, minimum=2).until("confirm")
        lists = content(game.asked[0])
        other = changed(game.asked[0], None, clients=tuple(c for c in lists.clients if c != 5))
        game.clients[0].handle(game.asked[0])
        with pytest.raises(SecureAggregationError, match="each stage is answered once"):
            game.clients[0].handle(other)
        for client in range(1, 8):
            game.server.receive(game.clients[client].handle(game.asked[client]), client)
        game.advance()
        relayed = game.asked[1]
        assert content(game.clients[0].handle(relayed)).masks == ()
        for again in (relayed, other):
            with pytest.raises(SecureAggregationError, match="is over for it"):
                game.clients[0].handle(again)

    def test_a_holder_that_reveals_what_it_was_not_asked_for_is_named_and_not_used(self):
        game = Game(8, minimum=2).until("mask")
        game.collect({2})
        game.advance()
        game.collect()
        game.advance()
        game.answers = {c: game.answer(c) for c in game.asked}
        revealed = content(game.answers[4])
        swapped = changed(game.answers[4], 4, own=revealed.masks, masks=revealed.own)
        for client, answer in game.answers.items():
            game.server.receive(swapped if client == 4 else answer, client)
        game.advance()
        np.testing.assert_array_equal(game.server.result().total, game.expected(set(range(8)) - {2}))
        assert {client for client, _ in game.server.refused} == {4}


class TestGarbage:
    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"values": b""}, "sent 0 bytes of values"),
            ({"values": bytes(35)}, "sent 35 bytes of values"),
            ({"values": b"\xff" * 48}, "more than 24 bits"),
            ({"receipt": b"no signature"}, "did not sign the lists"),
            ({"unreadable": (3, 1)}, "1 after 3"),
        ],
    )
    def test_masked_values_of_the_wrong_form_are_refused_and_the_rest_is_summed(self, change, why):
        game = Game(8, minimum=2).until("mask")
        game.answers = {c: game.answer(c) for c in game.asked}
        refused(game, changed(game.answers[5], 5, **change), 5, why)
        for client in set(range(8)) - {5}:
            game.server.receive(game.answers[client], client)
        game.advance()
        np.testing.assert_array_equal(game.finish(), game.expected(set(range(8)) - {5}))
        assert 5 in {client for client, _ in game.server.refused}

    def test_unsigned_altered_and_cut_messages_are_refused(self):
        game = Game(4)
        good = game.clients[1].advertise()
        flipped = bytearray(good)
        flipped[100] ^= 1
        refused(game, bytes(flipped), 1, "not signed by its key")
        refused(game, encode(*decode(good)[:2]), 1, "is not signed, and must be")
        for cut in (0, 1, 10, 80, len(good) - 1):
            refused(game, good[:cut], 1, "secure aggregation")
        refused(game, b"GET / HTTP/1.1\r\n\r\n", 1, "no message of secure aggregation|cut off")
        refused(game, "text", 1, "is bytes, not str")  # type: ignore[arg-type]

    def test_any_bytes_are_refused_in_one_way(self):
        game, drawn = Game(4).until("share"), np.random.default_rng(0)
        good = [game.asked[0], game.clients[1].handle(game.asked[1])]
        for trial in range(300):
            data = bytearray(good[trial % 2])
            for _ in range(drawn.integers(1, 4)):
                data[drawn.integers(len(data))] = drawn.integers(256)
            data = data[: drawn.integers(1, len(data) + 1)] if trial % 3 == 0 else data
            if bytes(data) in good:
                continue
            with pytest.raises(SecureAggregationError):
                game.server.receive(bytes(data), 1)
            try:
                game.client(2).handle(bytes(data))
            except SecureAggregationError:
                continue
            pytest.fail("a client answered out of turn")

    def test_an_answer_given_twice_or_out_of_turn_is_refused(self):
        game = Game(8, minimum=2).until("mask")
        game.collect()
        refused(game, game.answers[3], 3, "answered 'mask' twice: the first answer stays")
        game.advance()
        refused(game, game.answers[3], 3, "sent Masked out of turn: the round is at 'confirm'")
        np.testing.assert_array_equal(game.finish(), game.expected(range(8)))

    def test_one_that_was_lost_is_not_taken_back(self):
        game = Game(8, minimum=2).until("share")
        late = game.clients[2].handle(game.asked[2])
        game.collect({2})
        game.advance()
        refused(game, late, 2, "out of turn")
        masked = game.clients[3].handle(game.asked[3])
        own = encode(game.clients[2]._header, content(masked), IDENTITIES.signing[2])
        refused(game, own, 2, "was lost before")

    @pytest.mark.parametrize("cut", [0, 1])
    def test_shares_for_the_wrong_clients_are_refused(self, cut):
        game = Game(8, minimum=2).until("share")
        answer = game.clients[2].handle(game.asked[2])
        dealt = content(answer).dealt
        bad = dealt[1:] if cut else (dealt[0], dealt[1], replace(dealt[2], holder=60), *dealt[3:-1])
        refused(game, changed(answer, 2, dealt=bad), 2, "dealt shares to|after 60")

    def test_one_that_deals_what_nobody_can_read_is_named_before_anything_is_unmasked(self):
        game = Game(8, minimum=2).until("share")
        game.answers = {c: game.answer(c) for c in game.asked}
        shares = content(game.answers[2])
        assert isinstance(shares, Shares)
        bad = changed(
            game.answers[2], 2, dealt=tuple(replace(s, hidden=s.hidden[:-1] + b"!") for s in shares.dealt)
        )
        for client, answer in game.answers.items():
            game.server.receive(bad if client == 2 else answer, client)
        game.advance()
        game.collect()
        assert all(content(a).unreadable == (() if c == 2 else (2,)) for c, a in game.answers.items())
        game.advance()
        with pytest.raises(RoundAborted, match="can read what client 2 dealt"):
            game.server.result()
        assert {client for client, _ in game.server.refused} == {2}

    def test_a_share_that_was_changed_is_found_named_and_not_used(self):
        game = Game(8, minimum=2).until("reveal")
        game.answers = {c: game.answer(c) for c in game.asked}
        revealed = content(game.answers[6])
        wrong = tuple((owner, bytes(63) + b"\x01") for owner, _ in revealed.own)
        for client, answer in game.answers.items():
            game.server.receive(changed(answer, 6, own=wrong) if client == 6 else answer, client)
        game.advance()
        np.testing.assert_array_equal(game.server.result().total, game.expected(range(8)))
        assert {client for client, _ in game.server.refused} == {6}

    def test_too_many_changed_shares_unmask_nothing(self):
        game = Game(8, minimum=2).until("reveal")
        for client in game.asked:
            answer = game.answer(client)
            wrong = tuple((owner, bytes(64)) for owner, _ in content(answer).own)
            game.server.receive(changed(answer, client, own=wrong) if client < 4 else answer, client)
        game.advance()
        with pytest.raises(RoundAborted, match=r"shares of client \d came back, and 5 are needed"):
            game.server.result()

    @pytest.mark.parametrize("lost", [False, True])
    def test_one_that_deals_shares_of_another_secret_is_named(self, lost, monkeypatch):
        """It follows the protocol but for the secret, which is not the one that it had bound itself to."""
        game = Game(8, minimum=2).until("share")
        other = RoundSecrets(b"another seed of 32 bytes.......!", b"c")
        mine = game.clients[2]._secrets()
        mine.__dict__.update(self_mask=other.self_mask, mask_secret=other.mask_secret)
        monkeypatch.setattr(game.clients[2], "_secrets", lambda: mine)
        monkeypatch.setattr(game.clients[2], "_own_keys", lambda: content(game.asked[2]).entries[2].keys)
        game.collect()
        game.advance()
        game.collect({2} if lost else ())
        game.advance()
        game.until("reveal").collect()
        game.advance()
        with pytest.raises(RoundAborted, match="client 2 dealt give no secret of its own: it dealt garbage"):
            game.server.result()

    @pytest.mark.parametrize("values", [np.zeros(11, np.int64), np.zeros(12), np.zeros((12, 1), np.int64)])
    def test_a_client_masks_nothing_of_another_form(self, values):
        game = Game(4).until("mask")
        game.clients[1]._values = lambda: values
        stops(game, 1, game.asked[1], "has values of shape")

    def test_a_client_whose_training_fails_is_out_of_the_round(self):
        def fails() -> None:
            raise ZeroDivisionError

        game = Game(4).until("mask")
        game.clients[1]._values = fails
        with pytest.raises(ZeroDivisionError):
            game.answer(1)
        assert game.clients[1].finished

    def test_a_server_that_sends_a_clients_message_or_in_a_clients_name_is_refused(self):
        game = Game(4).until("share")
        answer = game.clients[1].handle(game.asked[1])
        with pytest.raises(SecureAggregationError, match="message of client 1 was sent to client 0"):
            game.clients[0].handle(answer)
        header = decode(game.asked[0])[0]
        own = encode(header, Confirmation(lists=bytes(32)), IDENTITIES.signing[1])
        with pytest.raises(SecureAggregationError, match="which only clients send"):
            game.clients[0].handle(own)
        assert game.answer(0)  # it goes on with the message that it waited for


def test_parameters_of_another_minimum_make_another_round():
    game = Game(8, minimum=4)
    weaker = game.client(1, parameters=parameters_of(8, minimum=2))
    refused(game, weaker.advertise(), 1, "other parameters")


def test_keys_of_another_kind_and_numbers_that_are_no_points_are_refused():
    game = Game(4)
    server = SecureServer(pinned={1: "key"}, parameters=game.parameters, round=ROUND)
    with pytest.raises(ConfigError, match="is a str: it is an Ed25519"):
        server.receive(game.clients[1].advertise(), 1)
    with pytest.raises(SecureAggregationError, match="client 2147483648 takes no part"):
        require_client(2**31, {2**31: IDENTITIES.pinned[1]})
