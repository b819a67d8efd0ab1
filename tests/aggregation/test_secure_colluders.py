"""How many clients may work with a lying server: the masks stand more than the noise reckons with."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from test_secure_round import IDENTITIES, Game

from fedsafe.aggregation.secure import Graph
from fedsafe.aggregation.secure.encoding import decode, encode, statement
from fedsafe.aggregation.secure.graph import graph_for, log_outside, log_split
from fedsafe.aggregation.secure.identity import sign
from fedsafe.aggregation.secure.lists import survivors_digest
from fedsafe.aggregation.secure.messages import Confirmation, Confirmations, Survivors
from fedsafe.errors import SecureAggregationError


class TestTolerates:
    @pytest.mark.parametrize(
        ("clients", "dropouts", "threshold", "signatures", "tolerates"),
        [(8, 0.25, 5, 6, 2), (20, 0.25, 14, 15, 8), (50, 0.25, 37, 38, 24), (64, 0.25, 47, 48, 30)],
    )
    def test_few_clients_need_all_that_planned_dropouts_leave(
        self, clients, dropouts, threshold, signatures, tolerates
    ):
        found = graph_for(clients, corrupt=0, minimum=clients // 2, dropouts=dropouts)
        assert (found.threshold, found.signatures, found.tolerates) == (threshold, signatures, tolerates)

    @pytest.mark.parametrize("clients", [3, 9, 20, 41])
    def test_one_more_in_a_complete_graph_could_answer_for_two_lists(self, clients):
        found = graph_for(clients, corrupt=0, minimum=2, dropouts=0.25)

        def safe(corrupt: int) -> bool:
            neighbours = clients - 1
            return (
                2 * found.signatures > clients + corrupt
                and 2 * found.threshold > neighbours + corrupt
                and found.signatures - corrupt >= 2
            )

        assert safe(found.tolerates)
        assert not safe(found.tolerates + 1)

    @pytest.mark.parametrize(("clients", "dropouts"), [(100, 0.1), (300, 0.25)])
    def test_a_sparse_graph_reckons_with_a_twentieth_though_the_noise_reckons_with_none(
        self, clients, dropouts
    ):
        found = graph_for(clients, corrupt=0, minimum=clients // 2, dropouts=dropouts)
        bad, k = found.tolerates, found.neighbours
        assert not found.complete
        assert bad >= clients // 20
        tails = stats.hypergeom.sf(np.arange(k + 1), clients - 1, bad, k) * (clients - bad)
        known = int(np.argmax(tails <= 2.0**-40))
        assert 2 * found.threshold > k + known
        assert log_split(clients, clients - bad, k, found.threshold - known) <= -40 * math.log(2)

    def test_two_colluders_of_twenty_and_a_server_that_tells_two_stories_learn_nothing(self):
        """One half hears that client 0 survived, the other that it did not; the colluders sign for both halves."""
        game = Game(20, minimum=10, corrupt=0).until("mask")
        numbers, evil, victim = game.parameters.graph(20), {18, 19}, 0
        answers = {client: game.answer(client) for client in game.asked}
        masked = {client: decode(answer)[1] for client, answer in answers.items()}
        server = game.server._header
        halves = (
            ({*range(9)}, tuple(range(20))),
            ({*range(9, 18)}, tuple(c for c in range(20) if c != victim)),
        )
        for half, told in halves:
            receipts = {c: masked[c].receipt for c in told}
            lists = survivors_digest(game.server._lists, told)
            signed = {}
            for client in half:
                known = tuple((c, receipt) for c, receipt in receipts.items() if c != client)
                signed[client] = decode(
                    game.clients[client].handle(encode(server, Survivors(clients=told, receipts=known)))
                )[2]
            for client in evil:
                signed[client] = sign(
                    IDENTITIES.signing[client],
                    statement(replace(server, sender=client), Confirmation(lists=lists)),
                )
            assert len(signed) == 11 < numbers.signatures
            message = encode(server, Confirmations(signatures=tuple(sorted(signed.items()))))
            for client in half:
                with pytest.raises(SecureAggregationError, match="nothing is unmasked below 15"):
                    game.clients[client].handle(message)


class TestOutside:
    """Honest clients on the list of survivors whose values, with their noise, are not in the sum."""

    def test_the_bound_is_above_what_happens(self):
        """Six honest clients choose three of five: how often four others have all left one of them out."""
        drawn = np.random.default_rng(1)
        trials, seen = 4000, 0
        for _ in range(trials):
            chosen = [drawn.choice([o for o in range(6) if o != c], 3, replace=False) for c in range(6)]
            seen += any(
                sum(left not in chosen[c] for c in range(6) if c != left) >= 4  # of whom the sum can be
                for left in range(6)
            )
        bound = math.exp(log_outside(6, 6, 3, 1, 1))
        assert 0 < seen / trials < bound

    @pytest.mark.parametrize(
        ("clients", "corrupt", "minimum", "dropouts"), [(300, 0, 215, 0.25), (400, 20, 210, 0.1)]
    )
    def test_enough_sign_that_the_sum_has_the_honest_clients_that_are_counted_on(
        self, clients, corrupt, minimum, dropouts
    ):
        found = graph_for(clients, corrupt=corrupt, minimum=minimum, dropouts=dropouts)
        assert not found.complete
        assert found.outside > 0
        assert found.signatures >= minimum + found.outside
        honest = clients - corrupt
        more = log_outside(clients, honest, found.neighbours, found.threshold, found.outside + 1)
        assert more <= -40 * math.log(2) < log_outside(clients, honest, found.neighbours, found.threshold, 1)

    def test_an_attack_on_drawn_graphs_stays_below_it_and_finds_some(self):
        found = graph_for(500, corrupt=0, minimum=260, dropouts=0.1)
        drawn = np.random.default_rng(0)
        most = max(_left_out(found, drawn) for _ in range(3))
        assert 1 <= most <= found.outside

    def test_nobody_is_outside_where_all_mask_with_each_other(self):
        assert graph_for(50, corrupt=0, minimum=10, dropouts=0.25).outside == 0
        assert log_outside(20, 20, 19, 10, 1) == -math.inf


def _left_out(numbers: Graph, drawn: np.random.Generator) -> int:
    """The honest clients that a server keeps out of a sum by dropping those that chose them, all checks passing."""
    n, k = numbers.clients, numbers.neighbours
    chose = np.zeros((n, n), bool)
    for client in range(n):
        chose[client, drawn.choice(np.delete(np.arange(n), client), k, replace=False)] = True
    outside: list[int] = []
    dropped: NDArray[np.bool_] = np.zeros(n, bool)
    for client in np.argsort(chose.sum(axis=0)):
        tried, wanted = dropped | chose[:, client], [*outside, client]
        while True:
            low = ~tried & ((chose & ~tried).sum(axis=1) < numbers.threshold)
            low[wanted] = False
            if not low.any():
                break
            tried |= low
        if not tried[wanted].any() and (~tried).sum() >= numbers.signatures:
            outside, dropped = wanted, tried
    return len(outside)
