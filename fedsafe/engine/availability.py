"""Which clients that are asked will count, and how long the server waits: decided before anything is sent.

Durations are a model and not measured, so a client that will not count need not be computed, and an engine that
answers for whole chunks can leave it out. Each decision is a function of the seed, of what is asked for and of the
virtual time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.engine.schedules import Always, Floats, Schedule
from fedsafe.engine.slowness import EqualSpeed, Slowness
from fedsafe.errors import ConfigError
from fedsafe.rng import public_generator


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What the model says of one set of messages.

    Args:
        counted: ``(asked,)`` who answers in time.
        seconds: From asking until the server has waited long enough, in virtual time.
    """

    counted: NDArray[np.bool_]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Availability:
    """The clients of a federation as a server meets them.

    A client that is asked counts if it is there, does not drop out, and answers by the deadline. It takes
    ``network + factor * work`` seconds, where its factor is drawn once.

    The server waits until all clients that are there have answered, or until the deadline. Whoever is not there is not
    connected, and nobody waits for it. Whoever drops out is waited for until the deadline; without one, it is noticed
    when it would have answered. If nobody is there, the server waits as long as it ever would (`allotted`).

    Args:
        clients: How many.
        seed: Of the run; the noise key has no part in this.
        work: By kind of message (``"train"``, ``"evaluate"``), the seconds ``(clients,)`` that each client computes at
            normal speed. A kind that is absent takes the network's time alone.
        schedule: When clients are there.
        slowness: How slow each is.
        dropout: Probability that a client which is there never answers.
        network: Seconds to receive a model and to send an answer.
        deadline: Seconds after which an answer is late; None where there is no such limit.

    Raises:
        ConfigError: A number is out of its range.
    """

    clients: int
    seed: int
    work: Mapping[str, Sequence[float] | NDArray[Any]] = field(default_factory=dict, repr=False)
    schedule: Schedule = field(default_factory=Always)
    slowness: Slowness = field(default_factory=EqualSpeed)
    dropout: float = 0.0
    network: float = 0.0
    deadline: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout = {self.dropout:g} is no probability below 1")
        if self.network < 0.0 or (self.deadline is not None and self.deadline <= 0.0):
            raise ConfigError(
                f"network = {self.network:g} s and deadline = {self.deadline} s: let neither be negative, nor the "
                "deadline 0"
            )
        for kind, seconds in self.work.items():
            if len(seconds) != self.clients:
                raise ConfigError(f"work has {len(seconds)} entries for {kind!r} and {self.clients} clients")

    @cached_property
    def _factors(self) -> Floats:
        return self.slowness.factors(self.clients, self.seed)

    @property
    def certain(self) -> bool:
        """Whether everybody who is asked to train or to evaluate always counts."""
        return not self.schedule.timed and not any(
            self.missing(kind, [0.0]) for kind in ("train", "evaluate")
        )

    def durations(self, kind: str) -> Floats:
        """``(clients,)`` seconds from being asked to having answered.

        Args:
            kind: Of message; what follows a dot in it is Flower's name of an action, and does not count.
        """
        work = self.work.get(kind.partition(".")[0])
        busy = np.zeros(self.clients) if work is None else np.asarray(work, np.float64) * self._factors
        return self.network + busy

    def allotted(self, kind: str) -> float:
        """The longest that a server ever waits: the deadline, or the time of the slowest client.

        It depends on nobody's being asked, so that a clock that moves by it tells nothing of a cohort.
        """
        return self.deadline if self.deadline is not None else float(self.durations(kind).max(initial=0.0))

    def present(self, kind: str, seconds: float) -> Floats:
        """``(clients,)`` probabilities of counting for a client that is asked at a time."""
        durations = self.durations(kind)
        there = self.schedule.share(seconds, seconds + durations, self.seed)
        return there * self._in_time(durations) * (1.0 - self.dropout)

    def missing(self, kind: str, times: Sequence[float]) -> float:
        """Expected share of asked clients that do not count, over clients asked alike and the times given."""
        return 1.0 - float(np.mean([self.present(kind, seconds).mean() for seconds in times]))

    def ask(
        self, clients: Sequence[int], *, kind: str, group: str, seconds: float, again: int = 0
    ) -> Exchange:
        """Who of these clients counts, and how long it takes.

        Args:
            clients: Who is asked.
            kind: Of message.
            group: Tells apart what is asked for, such as the round.
            seconds: The virtual time.
            again: How often these were asked for the same before: chance is another each time.
        """
        asked = np.asarray(clients, np.int64)
        if not len(asked):
            return Exchange(counted=np.zeros(0, bool), seconds=0.0)
        durations = self.durations(kind)
        chance = public_generator(self.seed, f"availability: {kind} {group} {again}").random(
            (self.clients, 2)
        )
        there = (chance[:, 0] < self.schedule.share(seconds, seconds + durations, self.seed))[asked]
        drops = (chance[:, 1] < self.dropout)[asked]
        counted = there & ~drops & self._in_time(durations)[asked]
        if not there.any():
            wait = self.allotted(kind)
        elif self.deadline is not None and not counted[there].all():
            wait = self.deadline
        else:
            wait = float(durations[asked][there].max())
        return Exchange(counted=counted, seconds=wait)

    def _in_time(self, durations: Floats) -> NDArray[np.bool_]:
        return durations <= (np.inf if self.deadline is None else self.deadline)
