"""The server's own streams: of cohorts, and of the noise that it adds."""

from collections.abc import Callable

from fedsafe.privacy.ledger import Ledger
from fedsafe.rng import Stream, StreamId

_SERVER = -1


def server_stream(key: bytes, purpose: str, round: int, digest: bytes) -> Stream:
    """The server's stream of one purpose in one round.

    Args:
        key: Secret of cohorts and noise.
        purpose: Such as ``"client noise"``.
        round: The round.
        digest: Of what the round's releases depend on besides records.
    """
    return Stream(key, StreamId(purpose=purpose, client=_SERVER, round=round, digest=digest))


def server_noise(key: bytes, ledger: Ledger, *, paired: bool = False) -> Callable[[int], Stream]:
    """The stream of the server's noise in a round that was released, from its start.

    Args:
        key: Secret of cohorts and noise.
        ledger: Knows which inputs each round had.
        paired: As of :class:`NoisyAverage`.
    """
    digests = {
        event.round: b"" if paired else bytes.fromhex(event.body["digest"]) for event in ledger.trained
    }
    return lambda round: server_stream(key, "client noise", round, digests[round])
