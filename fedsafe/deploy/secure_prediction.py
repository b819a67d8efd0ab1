"""What a round of secure aggregation costs beside the model: its bytes, as a round in this process has them."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fedsafe.aggregation.secure import (
    STAGES,
    RoundId,
    SecureParameters,
    secure_sum,
    simulated_identities,
)
from fedsafe.errors import ConfigError, RoundAborted

EXCHANGES: Final = len(STAGES)
# Above it the graph is not complete any more, and what a client carries grows slower than the number of clients.
_MOST_PLAYED = 64


@dataclass(frozen=True, kw_only=True)
class StageBytes:
    """Of one client in one round.

    Args:
        down: Of the server's messages of the protocol, the model left out.
        up: Of the client's.
    """

    down: int
    up: int


def stage_bytes(parameters: SecureParameters, clients: int) -> StageBytes:
    """Of a round in which all clients stay; of more than 64 clients, as much as 64 have.

    Args:
        parameters: Of the sums.
        clients: Of a round.

    Raises:
        ConfigError: So many clients are too few for a sum.
    """
    played = min(clients, _MOST_PLAYED)
    nothing = np.zeros(parameters.values, np.int64)
    try:
        found = secure_sum(
            dict.fromkeys(range(played), lambda: nothing),
            key=bytes(32),  # what is summed is nothing
            identities=simulated_identities(bytes(32), range(played)),
            parameters=parameters,
            round=RoundId(run="prediction", round=1),
        )
    except RoundAborted as error:
        raise ConfigError(
            f"rounds of {clients} clients are too small for their secure sums: {error}; lower server.aggregator.minimum"
        ) from error
    return StageBytes(down=sum(found.sent.values()) // played, up=sum(found.received.values()) // played)
