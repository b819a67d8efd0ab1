"""Taking the masks off a sum, from shares that were checked."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedsafe.aggregation.secure.dealing import MASKS, OWN
from fedsafe.aggregation.secure.graph import Graph
from fedsafe.aggregation.secure.keys import commitment, mask_key, public_bytes, share_digest
from fedsafe.aggregation.secure.masks import Residues, add_mask, from_residues, trimmed
from fedsafe.aggregation.secure.messages import Entry, Revealed, Shares
from fedsafe.aggregation.secure.parameters import SecureParameters
from fedsafe.aggregation.secure.shamir import is_share, recover
from fedsafe.errors import RoundAborted
from fedsafe.privacy.mechanisms import Grid

Refusals = list[tuple[int, str]]


@dataclass(frozen=True, kw_only=True)
class Received:
    """What the server has at the end.

    Args:
        entries: The keys of all clients of the roster.
        shares: What the clients that dealt shares said of them.
        survivors: Those whose values arrived.
        total: ``(values,)`` the sum of what they sent, masked.
        revealed: The shares of those that stayed.
    """

    entries: Mapping[int, Entry]
    shares: Mapping[int, Shares]
    survivors: Collection[int]
    total: Residues
    revealed: Mapping[int, Revealed]


def unmasked(
    received: Received, graph: Graph, parameters: SecureParameters, context: bytes
) -> tuple[Grid, Refusals]:
    """The sum of the survivors' values, and what was wrong with shares that were not used.

    Raises:
        RoundAborted: A secret cannot be recovered, or is not the one that its client had bound itself to.
    """
    refused: Refusals = []
    usable = _usable(received, context, refused)
    # All that is needed is recovered before anything is unmasked.
    own = {
        client: _recovered(client, usable[client], graph, received, context, OWN)
        for client in received.survivors
    }
    lost = [client for client in received.shares if client not in own]
    masks = {client: _recovered(client, usable[client], graph, received, context, MASKS) for client in lost}
    total = received.total.copy()
    for client in own:
        add_mask(total, own[client], -1)
    joined = set(_edges(received.shares))
    for client in lost:
        private = X25519PrivateKey.from_private_bytes(masks[client])
        for peer in own:
            first, second = min(client, peer), max(client, peer)
            if (first, second) in joined:
                key = mask_key(private, received.entries[peer].keys.mask, context, first, second)
                # The peer added it where its number is the smaller one.
                add_mask(total, key, -1 if peer == first else 1)
    return from_residues(trimmed(total, parameters.modulus), parameters.modulus), refused


def _edges(shares: Mapping[int, Shares]) -> Iterator[tuple[int, int]]:
    """Pairs that mask with each other, the smaller number first: one chose the other, and both dealt shares."""
    for owner, dealt in shares.items():
        for sealed in dealt.dealt:
            if sealed.holder in shares:
                yield min(owner, sealed.holder), max(owner, sealed.holder)


def _usable(received: Received, context: bytes, refused: Refusals) -> dict[int, dict[int, bytes]]:
    """For each owner, the shares that are what it dealt, of the secret that is asked for."""
    digests = {
        (owner, sealed.holder): sealed for owner, dealt in received.shares.items() for sealed in dealt.dealt
    }
    usable: dict[int, dict[int, bytes]] = {owner: {} for owner in received.shares}
    survivors = set(received.survivors)
    for holder, revealed in received.revealed.items():
        for about, pairs in ((OWN, revealed.own), (MASKS, revealed.masks)):
            for owner, share in pairs:
                sealed = digests.get((owner, holder))
                wanted = OWN if owner in survivors else MASKS
                if sealed is None or about != wanted:
                    refused.append(
                        (holder, f"client {holder} revealed what it was not asked for, of {owner}")
                    )
                    continue
                bound = sealed.of_own if about == OWN else sealed.of_masks
                if is_share(share) and share_digest(share, context, owner, holder, about) == bound:
                    usable[owner][holder] = share
                else:
                    why = (
                        f"the share of client {owner} that client {holder} revealed is not the one that it was dealt, "
                        "which it had said that it can read"
                    )
                    refused.append((holder, why))
    return usable


def _recovered(
    client: int, shares: Mapping[int, bytes], graph: Graph, received: Received, context: bytes, about: str
) -> bytes:
    """A secret, checked against what its client advertised."""
    if len(shares) < graph.threshold:
        raise RoundAborted(
            f"{len(shares)} shares of client {client} came back, and {graph.threshold} are needed: "
            "let more clients take part, or plan for more dropouts"
        )
    holders = sorted(shares)[: graph.threshold]
    secret = recover([shares[holder] for holder in holders], holders)
    keys = received.entries[client].keys
    if secret is not None and about == OWN and commitment(secret, context, client) == keys.commitment:
        return secret
    if (
        secret is not None
        and about == MASKS
        and public_bytes(X25519PrivateKey.from_private_bytes(secret)) == keys.mask
    ):
        return secret
    raise RoundAborted(
        f"the shares that client {client} dealt give no secret of its own: it dealt garbage; "
        "leave it out of the next round",
        named=(client,),
    )
