"""Secure aggregation: the server learns the sum of what clients send, and nothing else of it.

==========================  ==================================================================================
module                      holds
==========================  ==================================================================================
``client``, ``server``      the two sides of a round, which take and give bytes, whatever carries them
``simulated``               a round in one process, as simulations run it
``kept_round``              a client's part in a round, where each message may reach a new process
``parameters``, ``graph``   what all agree on; who masks with whom, and how many must stay
``messages``, ``encoding``  what is sent, and in which bytes; ``wire`` holds the pieces
``lists``, ``roster``       what clients sign to have seen, and what is checked of it
``keys``, ``identity``      X25519, HKDF, ChaCha20-Poly1305; Ed25519 or ECDSA
``masks``, ``shamir``       streams modulo a power of two; shares of secrets over the field of 2^31 - 1 elements
``dealing``, ``unmasking``  giving shares to neighbours, and using them
``stages``                  what the server says at which stage
``answers``                 what the server holds answers to, and whom it blames
==========================  ==================================================================================

Sources: Bonawitz et al. (2017) for the masks, the shares and the consistency round; Bell et al. (2020) for the graph.
``docs/secure-aggregation.md`` says what it protects from, ``docs/decisions/0029-secure-aggregation.md`` why it is so.
"""

from fedsafe.aggregation.secure.client import SecureClient
from fedsafe.aggregation.secure.graph import Graph
from fedsafe.aggregation.secure.identity import SigningKey, VerifyingKey
from fedsafe.aggregation.secure.kept_round import KeptRound
from fedsafe.aggregation.secure.parameters import RoundId, SecureParameters
from fedsafe.aggregation.secure.server import SecureServer, SecureSum
from fedsafe.aggregation.secure.simulated import (
    Identities,
    secure_sum,
    simulated_identities,
    simulated_seed,
)
from fedsafe.aggregation.secure.stages import ENDS, STAGES, confirmed_lists, require_stage

__all__ = [
    "ENDS",
    "STAGES",
    "Graph",
    "Identities",
    "KeptRound",
    "RoundId",
    "SecureClient",
    "SecureParameters",
    "SecureServer",
    "SecureSum",
    "SigningKey",
    "VerifyingKey",
    "confirmed_lists",
    "require_stage",
    "secure_sum",
    "simulated_identities",
    "simulated_seed",
]
