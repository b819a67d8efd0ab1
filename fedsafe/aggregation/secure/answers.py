"""What the server holds the answers of clients to, and whom it blames for what does not fit.

All of this is for the sum: nobody's privacy rests on it.
"""

from collections import Counter
from collections.abc import Collection

import numpy as np

from fedsafe.aggregation.secure.dealing import hidden_bytes
from fedsafe.aggregation.secure.graph import Graph
from fedsafe.aggregation.secure.masks import word_type
from fedsafe.aggregation.secure.messages import Masked, Shares
from fedsafe.aggregation.secure.parameters import SecureParameters
from fedsafe.errors import SecureAggregationError

# Stands for a client where it may be one of several.
SOMEBODY = -1


def require_shares(client: int, shares: Shares, graph: Graph, roster: Collection[int]) -> None:
    """That a client dealt what the protocol has it deal.

    Args:
        client: It.
        shares: What it dealt.
        graph: Of the round.
        roster: All that advertised keys.

    Raises:
        SecureAggregationError: It is to the wrong clients, or of another length.
    """
    holders = [sealed.holder for sealed in shares.dealt]
    if len(holders) != graph.neighbours or client in holders or not set(holders) <= set(roster):
        raise SecureAggregationError(
            f"client {client} dealt shares to {len(holders)} clients: it is to {graph.neighbours} others of the roster"
        )
    length = hidden_bytes(graph.clients)
    for sealed in shares.dealt:
        if len(sealed.hidden) != length:
            raise SecureAggregationError(
                f"client {client} dealt {len(sealed.hidden)} bytes to client {sealed.holder}: it is {length} in a "
                f"round of {graph.clients}"
            )


def require_masked(client: int, masked: Masked, parameters: SecureParameters, held: Collection[int]) -> None:
    """That masked values have the form of values, and that a client complains of such as dealt to it.

    Args:
        client: It.
        masked: What it sent.
        parameters: Of the run.
        held: The clients that dealt to it.

    Raises:
        SecureAggregationError: They do not.
    """
    words = word_type(parameters.modulus)
    wanted = parameters.values * words.itemsize
    if len(masked.values) != wanted:
        raise SecureAggregationError(
            f"client {client} sent {len(masked.values)} bytes of values: the round sums {wanted}"
        )
    strange = set(masked.unreadable).difference(held)
    if strange:
        raise SecureAggregationError(
            f"client {client} says that it cannot read what client {min(strange)} dealt, who dealt it nothing"
        )
    top = 8 * words.itemsize - parameters.modulus
    if top and int(np.frombuffer(masked.values, dtype=words).max()) >> parameters.modulus:
        raise SecureAggregationError(f"client {client} sent values of more than {parameters.modulus} bits")


def blamed(unreadable: Collection[tuple[int, int]], tolerated: int) -> list[tuple[int, str]]:
    """Whose fault it is that holders cannot read what owners dealt.

    One of the two sends garbage, and nobody can see which: an owner might encrypt it, and a holder might lie. Whoever
    is at odds with more clients than can be corrupt is at odds with an honest one.

    Args:
        unreadable: ``(owner, holder)``.
        tolerated: The most clients that are corrupt.

    Returns:
        For each pair the client that is at fault, or ``SOMEBODY``, and why.
    """
    owners, holders = (Counter(pair[side] for pair in unreadable) for side in (0, 1))
    found = []
    for owner, holder in sorted(unreadable):
        certain = owner if owners[owner] > tolerated else holder if holders[holder] > tolerated else SOMEBODY
        who = "one of the two" if certain == SOMEBODY else f"client {certain}"
        found.append(
            (
                certain,
                f"client {holder} says that it cannot read what client {owner} dealt: {who} sends garbage",
            )
        )
    return found
