"""What the server says at which stage."""

from collections.abc import Mapping

from fedsafe.aggregation.secure.encoding import decode
from fedsafe.aggregation.secure.messages import (
    Abort,
    Confirmation,
    Confirmations,
    Deliveries,
    Message,
    Roster,
    Survivors,
)
from fedsafe.errors import SecureAggregationError

STAGES = ("advertise", "share", "mask", "confirm", "reveal")
# What tells clients that a round has ended without a sum.
ENDS = "end"

_SAID: Mapping[str, type[Message]] = {
    "share": Roster,
    "mask": Deliveries,
    "confirm": Survivors,
    "reveal": Confirmations,
    ENDS: Abort,
}


def require_stage(stage: str, said: bytes) -> None:
    """That what the server sends is of the stage that it names.

    Whoever carries messages, charges for one stage or trains at it goes by the name, and the protocol by the content.

    Args:
        stage: One of ``STAGES``, or ``ENDS``.
        said: The server's message; nothing at the first stage.

    Raises:
        SecureAggregationError: The content is of another stage, or of none.
    """
    if stage == "advertise":
        if said:
            raise SecureAggregationError(
                f"{len(said)} bytes come with the stage 'advertise', at which the server says nothing"
            )
        return
    if stage not in _SAID:
        raise SecureAggregationError(f"{stage!r} is no stage of secure aggregation")
    found = decode(said)[1]
    if not isinstance(found, _SAID[stage]):
        raise SecureAggregationError(
            f"the server calls the stage {stage!r}, and sends {type(found).__name__}: it is {_SAID[stage].__name__}"
        )


def confirmed_lists(answer: bytes) -> bytes:
    """The digest of the lists that a client's answer signs.

    Raises:
        SecureAggregationError: It is no confirmation.
    """
    found = decode(answer)[1]
    if not isinstance(found, Confirmation):
        raise SecureAggregationError(f"{type(found).__name__} confirms no list of survivors")
    return found.lists
