"""Choosing neighbours, and the shares that are dealt to them."""

from collections.abc import Mapping, Sequence

import numpy as np

from fedsafe.aggregation.secure.client_state import Dealt
from fedsafe.aggregation.secure.graph import Graph
from fedsafe.aggregation.secure.keys import (
    TAG_BYTES,
    RoundSecrets,
    decrypt_share,
    encrypt_share,
    share_digest,
)
from fedsafe.aggregation.secure.lists import from_bitmap, to_bitmap
from fedsafe.aggregation.secure.masks import key_stream
from fedsafe.aggregation.secure.messages import Delivered, Entry, Sealed, Shares
from fedsafe.aggregation.secure.shamir import SHARE_BYTES, deal, is_share

# What a share is of, in its digest.
OWN, MASKS = "own", "masks"


def neighbours_of(
    client: int, clients: Sequence[int], graph: Graph, secrets: RoundSecrets
) -> tuple[int, ...]:
    """The neighbours that a client chooses, at random and without anybody's say, in ascending order."""
    others = [other for other in clients if other != client]
    drawn = key_stream(secrets.derive("neighbours"), len(others), np.dtype("<u8"))
    order = np.argsort(drawn, kind="stable")[: graph.neighbours]
    return tuple(sorted(others[index] for index in order))


def deal_to(
    client: int,
    chosen: Sequence[int],
    entries: Mapping[int, Entry],
    graph: Graph,
    secrets: RoundSecrets,
    context: bytes,
) -> Shares:
    """Shares of both secrets of a client, each pair encrypted for its holder.

    Raises:
        SecureAggregationError: A key agreement gives zero.
    """
    own = deal(secrets.self_mask, chosen, graph.threshold, secrets.derive("shares of the self mask"))
    masks = deal(secrets.mask_secret, chosen, graph.threshold, secrets.derive("shares of the mask key"))
    known = to_bitmap(chosen, list(entries))
    dealt = []
    for holder, of_own, of_masks in zip(chosen, own, masks, strict=True):
        plain = known + of_own + of_masks
        hidden = encrypt_share(
            plain, secrets.exchange, entries[holder].keys.exchange, context, client, holder
        )
        dealt.append(
            Sealed(
                holder=holder,
                hidden=hidden,
                of_own=share_digest(of_own, context, client, holder, OWN),
                of_masks=share_digest(of_masks, context, client, holder, MASKS),
            )
        )
    return Shares(dealt=tuple(dealt))


def hidden_bytes(clients: int) -> int:
    """How long what one client deals to another is, encrypted, in a round of so many."""
    return -(-clients // 8) + 2 * SHARE_BYTES + TAG_BYTES


def open_share(
    delivered: Delivered,
    holder: int,
    entries: Mapping[int, Entry],
    graph: Graph,
    secrets: RoundSecrets,
    context: bytes,
) -> Dealt | None:
    """What an owner dealt to a holder; None if it cannot be read, or is not what the owner bound itself to.

    A holder that reads it can help, whatever happens later; so who is at fault is known before anything is unmasked.
    """
    owner = delivered.owner
    plain = decrypt_share(
        delivered.hidden, secrets.exchange, entries[owner].keys.exchange, context, owner, holder
    )
    width = -(-len(entries) // 8)
    if plain is None or len(plain) != width + 2 * SHARE_BYTES:
        return None
    neighbours = from_bitmap(plain[:width], list(entries))
    of_own, of_masks = plain[width : width + SHARE_BYTES], plain[width + SHARE_BYTES :]
    if len(neighbours) != graph.neighbours or holder not in neighbours or owner in neighbours:
        return None
    if not (is_share(of_own) and is_share(of_masks)):
        return None
    bound = (
        share_digest(of_own, context, owner, holder, OWN),
        share_digest(of_masks, context, owner, holder, MASKS),
    )
    if bound != (delivered.of_own, delivered.of_masks):
        return None
    return Dealt(neighbours=neighbours, of_own=of_own, of_masks=of_masks)
