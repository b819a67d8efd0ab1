"""A client of a planned run whose update is the one that a check wants to be sent; everything else of it is real."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsafe.client import ClientJob
from fedsafe.params import Layout, Vector
from fedsafe.verify.server import ClientReply


@dataclass(kw_only=True)
class ScriptedTrainer:
    """Trains nobody.

    Args:
        layout: Of the model.
        reply: What the next client sends.
    """

    layout: Layout
    reply: ClientReply | None = None
    name: str = "scripted"

    def train(self, parameters: Vector, jobs: Sequence[ClientJob]) -> NDArray[np.float32]:
        """``(clients, parameters)`` the broadcast model and the update."""
        if self.reply is None or self.reply.failed:
            raise ArithmeticError("the client fails")
        with np.errstate(all="ignore"):
            row = (parameters + self.reply.update).astype(np.float32)
        return np.repeat(row[None], len(jobs), axis=0)


class ScriptedCounts(Mapping[int, NDArray[np.int64]]):
    """As many records of each client as it says that it has; fewer than none cannot be."""

    def __init__(self, trainer: ScriptedTrainer) -> None:
        self._trainer = trainer

    def __getitem__(self, client: int) -> NDArray[np.int64]:
        """``(examples,)`` without memory of their own."""
        reply = self._trainer.reply
        return np.broadcast_to(np.int64(0), (0 if reply is None else max(0, reply.examples),))

    def __iter__(self) -> Iterator[int]:
        """Nobody is listed: every client that is asked for is there."""
        return iter(())

    def __len__(self) -> int:
        """See there."""
        return 0
