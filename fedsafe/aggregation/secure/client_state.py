"""What a client keeps between two messages of a round, which may reach two processes.

A client's seed is worth its input to whoever also sees what it sends: the state stays with the client, and is
overwritten when the round is over.
"""

import base64
import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Self, cast, get_args

from fedsafe.aggregation.secure.messages import Entry, Roster
from fedsafe.aggregation.secure.wire import Reader, Writer
from fedsafe.errors import SecureAggregationError

Stage = Literal["advertise", "share", "mask", "confirm", "reveal", "over"]


@dataclass(frozen=True, kw_only=True)
class Dealt:
    """What a neighbour dealt to this client.

    Args:
        neighbours: All that it chose.
        of_own: A share of the key of its own mask.
        of_masks: A share of the private key of its masks with others.
    """

    neighbours: tuple[int, ...]
    of_own: bytes
    of_masks: bytes


@dataclass(kw_only=True)
class ClientState:
    """How far a client has got.

    Args:
        seed: What its secrets are derived from; empty once the round is over.
        stage: What it does next.
        roster: All clients that advertised.
        chosen: Its neighbours.
        sharing: All clients that dealt shares.
        dealt: What was dealt to it, for each owner.
        survivors: The list that it signed.
        lists: Digest of the lists that it has been shown so far.
    """

    seed: bytes = b""
    stage: Stage = "advertise"
    roster: tuple[Entry, ...] = ()
    chosen: tuple[int, ...] = ()
    sharing: tuple[int, ...] = ()
    dealt: dict[int, Dealt] = field(default_factory=dict)
    survivors: tuple[int, ...] = ()
    lists: bytes = b""

    def encode(self, owner: bytes, *, roster: bool = True) -> bytes:
        """As JSON.

        Args:
            owner: Which client in which round it is of.
            roster: Whether the roster is in it, which is the same for all clients and most of the bytes.
        """
        kept = {
            "owner": owner.hex(),
            "seed": self.seed.hex(),
            "stage": self.stage,
            "roster": _written(Roster(entries=self.roster)) if roster else None,
            "chosen": self.chosen,
            "sharing": self.sharing,
            "dealt": [
                [client, dealt.neighbours, dealt.of_own.hex(), dealt.of_masks.hex()]
                for client, dealt in self.dealt.items()
            ],
            "survivors": self.survivors,
            "lists": self.lists.hex(),
        }
        return json.dumps(kept).encode()

    @classmethod
    def decode(cls, state: bytes, owner: bytes, roster: tuple[Entry, ...] = ()) -> Self:
        """The inverse.

        Args:
            state: What was encoded.
            owner: See there.
            roster: Of a state that was encoded without one.

        Raises:
            SecureAggregationError: It is no state, or that of another client or round.
        """
        try:
            kept: dict[str, Any] = json.loads(state)
            if kept["owner"] != owner.hex():
                raise SecureAggregationError(
                    "this state of a secure sum is of another client, round, run or plan: nothing is answered with it"
                )
            entries = roster if kept["roster"] is None else _read(kept["roster"]).entries
            if kept["stage"] not in get_args(Stage):
                raise ValueError(kept["stage"])
            return cls(
                seed=bytes.fromhex(kept["seed"]),
                stage=cast("Stage", kept["stage"]),
                roster=entries,
                chosen=tuple(kept["chosen"]),
                sharing=tuple(kept["sharing"]),
                dealt={
                    client: Dealt(
                        neighbours=tuple(neighbours),
                        of_own=bytes.fromhex(own),
                        of_masks=bytes.fromhex(masks),
                    )
                    for client, neighbours, own, masks in kept["dealt"]
                },
                survivors=tuple(kept["survivors"]),
                lists=bytes.fromhex(kept["lists"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SecureAggregationError(
                f"this is no state of a client in a secure sum ({error}): the client cannot go on with the round"
            ) from None


# Where one process plays many clients, all have kept the same roster.
@lru_cache(maxsize=2)
def _written(roster: Roster) -> str:
    to = Writer()
    roster.write(to)
    return base64.b64encode(to.done()).decode()


@lru_cache(maxsize=2)
def _read(text: str) -> Roster:
    source = Reader(base64.b64decode(text, validate=True))
    roster = Roster.read(source)
    source.done()
    return roster
