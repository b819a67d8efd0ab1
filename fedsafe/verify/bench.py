"""Measures a server: rounds with chosen updates, in units of the clip that was claimed."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.params import Vector
from fedsafe.verify.declared import DeclaredClaim
from fedsafe.verify.masked import MaskedRounds
from fedsafe.verify.server import Asked, ClientReply, Numbers, Server, Session
from fedsafe.verify.statistics import DEVIATIONS

Values = NDArray[np.float64]
# What each of so many members sends.
Script = Callable[[int], Sequence[ClientReply | None]]

_TRIES = 200
# Norm, in clips, of an update that is there without being seen.
TINY = 1e-3
HUGE = 100.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A round.

    Args:
        total: ``(parameters,)`` what was released as the sum of updates, in clips; None if nothing was.
        members: Who was asked.
        present: How many replied without an error.
        numbers: Released besides.
        error: Why nothing was released.
        round: The round.
        uploads: Client to what it sent, in clips; empty where the server is not to see it.
    """

    total: Values | None
    members: tuple[int, ...]
    present: int
    numbers: Numbers
    error: str
    round: int
    uploads: Mapping[int, Values] = field(default_factory=dict)


@dataclass(kw_only=True)
class Bench:
    """A server under test.

    Args:
        server: What is tested.
        claim: What it claims.
        runs: How often a measurement is repeated.
        rng: Of everything that is chosen here.
        masked: Plays rounds of its clients behind masks; None where there are none.
    """

    server: Server
    claim: DeclaredClaim
    runs: int
    rng: np.random.Generator
    masked: MaskedRounds | None = None

    @property
    def few(self) -> int:
        """Repetitions of a measurement of something large."""
        return max(5, self.runs // 8)

    def enough(self, effect: float) -> int:
        """Repetitions that show an effect of so many clips, of a third of which they would be sure."""
        needed = (3.0 * DEVIATIONS * self.noise / max(effect, 1e-9)) ** 2
        return int(np.clip(np.ceil(needed), self.few, 4 * self.runs))

    @property
    def parameters(self) -> int:
        """Of the model."""
        return self.server.layout.total

    @property
    def noise(self) -> float:
        """Claimed standard deviation of the noise on the sum of an expected cohort, in clips."""
        return self.claim.noise_of(self.claim.expected)

    def error(self, rounds: Sequence[Measured]) -> float:
        """Standard deviation of a mean over rounds along one direction, by the claimed noise."""
        if not rounds:
            return 0.0
        squares = [self.claim.noise_of(measured.present) ** 2 for measured in rounds]
        return math.sqrt(sum(squares)) / len(rounds)

    def standard(self, measured: Measured, due: Values | float = 0.0) -> Values:
        """``(parameters,)`` what a round released beyond what was due, over the claimed deviation of its noise."""
        total: Values = np.zeros(self.parameters) if measured.total is None else measured.total
        return (total - due) / (self.claim.noise_of(measured.present) or 1.0)

    def reply(self, update: Vector, examples: int | None = None, **more: Any) -> ClientReply:
        """What a client sends that has as many examples as give it the full weight."""
        return ClientReply(update=update, examples=self.full if examples is None else examples, **more)

    @property
    def full(self) -> int:
        """Examples that give a client the full weight."""
        return 10 if self.claim.cap is None else self.claim.cap

    def model(self) -> Vector:
        """A broadcast model, another one each time: a release may be a function of it."""
        scale = 0.1 * self.claim.clip / np.sqrt(self.parameters)
        model: Vector = self.rng.normal(0.0, scale, self.parameters).astype(np.float32)
        return model

    def direction(self, tensor: int | None = None) -> Values:
        """``(parameters,)`` of length one: as long in each tensor as in any other, or in one tensor alone."""
        layout = self.server.layout
        parts = [self.rng.normal(size=size) for size in layout.sizes]
        chosen = range(len(parts)) if tensor is None else [tensor]
        unit = [
            part / np.linalg.norm(part) if index in chosen else np.zeros_like(part)
            for index, part in enumerate(parts)
        ]
        joined: Values = np.concatenate(unit) / np.sqrt(len(chosen))
        return joined

    def directions(self, count: int) -> Values:
        """``(count, parameters)`` of length one, orthogonal to each other as far as there are so many."""
        drawn = self.rng.normal(size=(count, self.parameters))
        if count <= self.parameters:
            return np.linalg.qr(drawn.T)[0].T
        unit: Values = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        return unit

    def update(self, direction: Values, clips: float) -> Vector:
        """So many clips in a direction."""
        with np.errstate(over="ignore"):
            return (direction * clips * self.claim.clip).astype(np.float32)

    def round(
        self,
        script: Script,
        *,
        session: Session | None = None,
        round: int = 0,
        model: Vector | None = None,
        least: int = 1,
        named: Callable[[Sequence[int]], Sequence[ClientReply | None]] | None = None,
    ) -> Measured:
        """One round, of a fresh session unless one is given.

        Args:
            script: What members send.
            session: Where.
            round: Which round of that session.
            model: The broadcast model.
            least: Draw again, in fresh sessions, until so many members were drawn, and one more than must survive.
            named: What members send, by their numbers; in the place of ``script``.
        """
        if self.claim.least and least:
            least = max(least, self.claim.least + 1)
        sent = self.model() if model is None else model
        for _ in range(_TRIES):
            current, number = (session, round) if session is not None else self.server.fresh(self.rng)
            asked = current.ask(number, sent)
            if asked.error or len(asked.members) >= least or session is not None:
                break
        else:
            return _nothing(asked, number, f"no cohort of {least} or more was drawn in {_TRIES} rounds")
        if asked.error:
            return _nothing(asked, number, asked.error)
        replies = script(len(asked.members)) if named is None else named(asked.members)
        released = current.give(number, replies)
        present = sum(reply is not None and not reply.failed for reply in replies)
        divisor = (
            self.claim.mean_weight * self.claim.expected
            if self.claim.divisor == "expected"
            else float(max(1, present))
        )
        total = None
        if released.change is not None:
            total = released.change * (divisor / ((self.claim.learning_rate or 1.0) * self.claim.clip))
        uploads = {
            member: upload / self.claim.clip
            for member, upload in zip(asked.members, released.uploads, strict=False)
            if upload is not None
        }
        if self.claim.mechanism == "local":
            # Who was refused on its own machine adds no noise.
            present = len(uploads)
        return Measured(
            total=total,
            members=asked.members,
            present=present,
            numbers=released.numbers,
            error=released.error,
            round=number,
            uploads=uploads,
        )

    def quiet(self) -> Script:
        """Everybody sends next to nothing: what is released is noise."""
        update = self.update(self.direction(), TINY)
        return lambda members: [self.reply(update)] * members

    def all_send(self, direction: Values, clips: float) -> Script:
        """Everybody sends the same."""
        update = self.update(direction, clips)
        return lambda members: [self.reply(update)] * members

    def one_differs(self, reply: ClientReply | None, others: ClientReply) -> Script:
        """The first member sends one thing, everybody else another."""
        return lambda members: [reply, *[others] * (members - 1)][:members]


def _nothing(asked: Asked, round: int, error: str) -> Measured:
    return Measured(total=None, members=asked.members, present=0, numbers={}, error=error, round=round)
