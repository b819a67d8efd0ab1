"""What the checks of a client-level claim talk to: something that asks clients and releases a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsafe.params import Layout, Vector

Numbers = Mapping[str, float]

# Of a model that is nobody's: two layers, so that a clip for each tensor can be told from one for all.
LAYOUT = Layout(
    names=("hidden.weight", "hidden.bias", "output.weight", "output.bias"),
    shapes=((24, 16), (24,), (8, 24), (8,)),
)


@dataclass(frozen=True, kw_only=True)
class ClientReply:
    """What one client sends back.

    Args:
        update: ``(parameters,)`` to add to the broadcast model.
        examples: How many records it says that it has.
        loss: Its training loss.
        failed: It sends an error instead.
        copies: ArrayRecords that it sends, each with the whole update.
    """

    update: Vector
    examples: int = 10
    loss: float = 1.0
    failed: bool = False
    copies: int = 1


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Who was asked in a round.

    Args:
        members: Numbers of the clients, from 0.
        numbers: What the messages told the clients besides the model.
        error: What was raised instead.
    """

    members: tuple[int, ...] = ()
    numbers: Numbers = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Released:
    """What a round released.

    Args:
        change: ``(parameters,)`` new model less broadcast one; None if there is no new model.
        numbers: What was released besides.
        error: Why there is no new model.
        uploads: ``(parameters,)`` of each member: what it uploaded, less the broadcast model. None where it sent none;
            empty where uploads are not for the server to see.
    """

    change: NDArray[np.float64] | None
    numbers: Numbers = field(default_factory=dict)
    error: str = ""
    uploads: Sequence[NDArray[np.float64] | None] = ()


class Session(Protocol):
    """A server process."""

    def ask(self, round: int, model: Vector) -> Asked:
        """Draw a cohort and send it the model."""
        ...

    def give(self, round: int, replies: Sequence[ClientReply | None]) -> Released:
        """Answer for each member, in their order (None: it does not reply), and get the new model."""
        ...


class Server(Protocol):
    """What is checked."""

    layout: Layout

    def start(self) -> Session:
        """A run of its own, before its first round."""
        ...

    def fresh(self, rng: np.random.Generator) -> tuple[Session, int]:
        """A session whose adaptive parts are as at the start, and a round that it can be asked for: cheap."""
        ...

    def restart(self, session: Session) -> Session:
        """The same run in a new process."""
        ...
