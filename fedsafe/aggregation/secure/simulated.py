"""A round of secure aggregation with all its parties in one process: what a simulation sums, and costs are measured on.

The messages are those of a deployment, byte for byte. Keys come from streams of the run's noise key, so that a run
repeats.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsafe.aggregation.secure.client import SecureClient
from fedsafe.aggregation.secure.identity import SigningKey, VerifyingKey
from fedsafe.aggregation.secure.parameters import RoundId, SecureParameters
from fedsafe.aggregation.secure.server import SecureServer, SecureSum
from fedsafe.aggregation.secure.stages import STAGES
from fedsafe.errors import SecureAggregationError
from fedsafe.privacy.mechanisms import Grid
from fedsafe.rng import Stream, StreamId


@dataclass(frozen=True, kw_only=True)
class Identities:
    """The keys of nodes: each client's own, and what all know of the others.

    Args:
        signing: For each client.
        pinned: The same keys' public halves.
    """

    signing: Mapping[int, SigningKey]
    pinned: Mapping[int, VerifyingKey]


def simulated_identities(key: bytes, clients: Iterable[int]) -> Identities:
    """Node keys of a simulation, from the run's noise key."""
    signing = {
        client: Ed25519PrivateKey.from_private_bytes(_drawn(key, "node key", client, 0, b""))
        for client in clients
    }
    return Identities(signing=signing, pinned={client: own.public_key() for client, own in signing.items()})


def simulated_seed(key: bytes, client: int, round: int, digest: bytes) -> bytes:
    """What a simulated client's secrets of a round are derived from.

    Args:
        key: The run's noise key.
        client: The client.
        round: The round.
        digest: Of the broadcast parameters and the plan, as for the streams of noise: a round that is run again with
            other inputs has other secrets.
    """
    return _drawn(key, "secure aggregation", client, round, digest)


def secure_sum(
    values: Mapping[int, Callable[[], Grid]],
    *,
    key: bytes,
    identities: Identities,
    parameters: SecureParameters,
    round: RoundId,
    lost: Mapping[str, Collection[int]] | None = None,
) -> SecureSum:
    """Play one round.

    Args:
        values: For each client, what gives its ``(values,)`` whole numbers; called once, for clients that get so far.
        key: The run's noise key.
        identities: Of all clients.
        parameters: Of the run.
        round: Which round of which run.
        lost: For a stage of ``STAGES``, the clients that drop out before they answer it.

    Raises:
        RoundAborted: Too few clients were left; nothing was unmasked.
    """
    server = SecureServer(pinned=identities.pinned, parameters=parameters, round=round)
    gone: set[int] = set()
    clients = {
        client: SecureClient(
            client,
            signing_key=identities.signing[client],
            pinned=identities.pinned,
            parameters=parameters,
            round=round,
            values=given,
            seed=simulated_seed(key, client, round.round, round.context(parameters)),
        )
        for client, given in values.items()
    }
    asked: Mapping[int, bytes] = dict.fromkeys(clients, b"")
    for stage in STAGES:
        gone.update((lost or {}).get(stage, ()))
        for client, message in asked.items():
            if client not in gone:
                own = clients[client]
                try:
                    server.receive(own.handle(message) if message else own.advertise(), client)
                except SecureAggregationError:
                    gone.add(client)  # it stops, as a node would: too many of those that it chose are lost
        asked = server.advance()
        if server.stage == "aborted":
            break
    return server.result()


def _drawn(key: bytes, purpose: str, client: int, round: int, digest: bytes) -> bytes:
    identity = StreamId(purpose=purpose, client=client, round=round, digest=digest)
    return Stream(key, identity).words(4).tobytes()
