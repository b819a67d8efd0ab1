"""Digests of the three lists of a round: who advertised, who dealt shares, whose masked values arrived.

Each holds the one before, so that two clients that sign the last one have seen the same round.
"""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from fedsafe.aggregation.secure.encoding import Header
from fedsafe.aggregation.secure.graph import Graph
from fedsafe.aggregation.secure.messages import Entry
from fedsafe.aggregation.secure.wire import Writer

T = TypeVar("T")


def roster_digest(context: bytes, graph: Graph, entries: Iterable[Entry]) -> bytes:
    """Of the clients, their keys, and the numbers of the graph that follow from how many there are."""
    to = Writer()
    to.fixed(context)
    for number in (graph.clients, graph.neighbours, graph.threshold, graph.signatures):
        to.number(number)
    for entry in entries:
        to.number(entry.client)
        entry.keys.write(to)
    return _digest(b"roster", to)


def sharing_digest(roster: bytes, sharing: Sequence[int]) -> bytes:
    """Of the clients that dealt shares."""
    return _listed(b"sharing", roster, sharing)


def survivors_digest(sharing: bytes, survivors: Sequence[int]) -> bytes:
    """Of the clients whose masked values are summed."""
    return _listed(b"survivors", sharing, survivors)


def receipt_statement(header: Header, sharing: bytes) -> bytes:
    """What a client signs to say that it masked under these lists, and that its values are in."""
    to = Writer()
    to.fixed(b"masked under" + header.run)
    to.number(header.round, 8)
    to.fixed(header.context)
    to.number(header.sender)
    to.fixed(sharing)
    return to.done()


def to_bitmap(chosen: Iterable[int], clients: Sequence[int]) -> bytes:
    """Which of the clients of the roster are chosen, a bit each."""
    taken = set(chosen)
    return np.packbits([client in taken for client in clients]).tobytes()


def from_bitmap(bits: bytes, clients: Sequence[int]) -> tuple[int, ...]:
    """The inverse of :func:`to_bitmap`."""
    taken = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=len(clients))
    return tuple(itertools.compress(clients, taken.tolist()))


def _listed(label: bytes, before: bytes, clients: Sequence[int]) -> bytes:
    to = Writer()
    to.fixed(before)
    to.clients(clients)
    return _digest(label, to)


def _digest(label: bytes, to: Writer) -> bytes:
    return hashlib.sha256(b"fedsafe secure aggregation " + label + b"\0" + to.done()).digest()
