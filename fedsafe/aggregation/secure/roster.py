"""What must hold for a list of advertised keys, and for the header of any message, on either side."""

from collections.abc import Mapping

from fedsafe.aggregation.secure.encoding import Header
from fedsafe.aggregation.secure.identity import VerifyingKey
from fedsafe.aggregation.secure.keys import why_weak
from fedsafe.aggregation.secure.messages import Advertisement, Roster
from fedsafe.aggregation.secure.parameters import MOST_CLIENT
from fedsafe.errors import SecureAggregationError


def require_client(client: int, pinned: Mapping[int, VerifyingKey]) -> None:
    """That a client is known, and its number a point of the field of shares.

    Raises:
        SecureAggregationError: It is not.
    """
    if client not in pinned or not 0 <= client <= MOST_CLIENT:
        raise SecureAggregationError(
            f"client {client} takes no part in this secure sum: no key is pinned for it, or its number is above "
            f"{MOST_CLIENT}"
        )


def require_header(found: Header, expected: Header) -> None:
    """That a message is of this run and round, and under the same parameters and plan.

    Raises:
        SecureAggregationError: It is of another one.
    """
    who = f"a message of secure aggregation (sender {found.sender})"
    if found.run != expected.run:
        raise SecureAggregationError(f"{who} is of another run: it is not taken")
    if found.round != expected.round:
        raise SecureAggregationError(
            f"{who} is of round {found.round}, and this is round {expected.round}: it is not taken"
        )
    if found.context != expected.context:
        raise SecureAggregationError(
            f"{who} was made under other parameters or another plan: let all parties have the same"
        )


def require_keys(client: int, keys: Advertisement) -> None:
    """That both keys are good ones.

    Raises:
        SecureAggregationError: One is not, or both are the same.
    """
    for name, key in (("exchange", keys.exchange), ("mask", keys.mask)):
        why = why_weak(key)
        if why:
            raise SecureAggregationError(f"the {name} key of client {client} {why}: {key.hex()}")
    if keys.exchange == keys.mask:
        raise SecureAggregationError(f"client {client} advertised one key for two purposes")


def require_roster(roster: Roster, pinned: Mapping[int, VerifyingKey]) -> None:
    """That a roster is of known clients with good keys, no two of which are the same.

    Raises:
        SecureAggregationError: It is not.
    """
    owners: dict[bytes, int] = {}
    for entry in roster.entries:
        require_client(entry.client, pinned)
        require_keys(entry.client, entry.keys)
        for key in (entry.keys.exchange, entry.keys.mask, entry.keys.commitment):
            other = owners.setdefault(key, entry.client)
            if other != entry.client:
                raise SecureAggregationError(
                    f"clients {other} and {entry.client} advertised the same key: one of them copied the other's"
                )
