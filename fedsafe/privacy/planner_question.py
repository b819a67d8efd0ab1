"""What is asked about one level, and what it costs once nothing is missing."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from fedsafe.privacy.accounting import (
    COARSE,
    FINE,
    Accounted,
    Adjacency,
    FixedSizeGaussian,
    Release,
    SampledGaussian,
    account,
    account_by_rdp,
    epsilon,
    group_epsilon,
    rdp_epsilon,
)

# Beyond so many sampled releases, a PLD takes longer than whoever asks will wait.
LONGEST = 10**5
# A bound above this protects nothing, and is called none.
_MOST_EPSILON = 1e6
# The mixture of so many elements of one person takes as much longer: their interval is wider, which still is a bound.
_MOST_FINE, _MOST_COARSE = 2, 8

Unit = Literal["record", "client"]
Sampler = Literal["poisson", "fixed", "none"]

# What may be missing, by unit, as the command line calls it.
OPTIONS: dict[Unit, dict[str, str]] = {
    "record": {
        "epsilon": "--epsilon", "noise": "--noise", "rate": "--rate", "size": "--batch", "population": "--records",
        "steps": "--steps", "rounds": "--rounds", "per_round": "--local-steps", "participation": "--participation",
        "per_person": "--per-person",
    },
    "client": {
        "epsilon": "--epsilon", "noise": "--noise", "rate": "--rate", "size": "--cohort", "population": "--clients",
        "steps": "--rounds", "rounds": "--rounds", "per_round": "", "participation": "--participation",
        "per_person": "--per-person",
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is known of one level; exactly one thing that epsilon depends on is missing.

    Args:
        unit: ``"record"``: DP-SGD at a client; or ``"client"``: the noisy average of the server.
        delta: Probability that the bound fails.
        epsilon: The target.
        noise: Noise multiplier, over the clip.
        rate: Probability of a record to be in a batch, or of a client to be in a cohort.
        size: Instead of ``rate``: records in a batch, or clients in a cohort, on average.
        population: With ``size``: records of the client, or clients. Delta is checked against it.
        steps: All steps that one record may take part in.
        rounds: Instead of ``steps``: rounds.
        per_round: With ``rounds``: local steps in each (record unit only).
        epochs: Instead of ``per_round``: local epochs in each; of all the run, without ``rounds``.
        participation: Rounds that one client may take part in; all by default.
        sampler: ``"poisson"``, ``"fixed"`` sizes drawn without replacement, or ``"none"``: whoever the bound holds
            against sees who takes part.
        adjacency: What differs; by default zero-out, and replace-one for fixed sizes, which have no other.
        per_person: Records in one client, or clients, of the same person: epsilon is then for all of them together.
    """

    unit: Unit
    delta: float
    epsilon: float | None = None
    noise: float | None = None
    rate: float | None = None
    size: int | None = None
    population: int | None = None
    steps: int | None = None
    rounds: int | None = None
    per_round: int | None = None
    epochs: float | None = None
    participation: int | None = None
    sampler: Sampler = "poisson"
    adjacency: Adjacency | None = None
    per_person: int = 1

    def option(self, name: str) -> str:
        """How the command line calls it."""
        return OPTIONS[self.unit][name]

    @property
    def sampled(self) -> float:
        """The rate; 1 where the bound makes no use of sampling."""
        return 1.0 if self.sampler == "none" else float(self._rate)

    @property
    def _rate(self) -> Fraction:
        """As it was typed: 0.1 is a tenth. All of them, where nothing is said about sampling."""
        if self.rate is not None:
            return Fraction(str(self.rate))
        if self.size is None and self.sampler == "none":
            return Fraction(1)
        return Fraction(self.size or 0, self.population or 1)

    @property
    def steps_per_round(self) -> int:
        """Local steps of a round: whole ones, never fewer than the epochs need."""
        if self.epochs is None:
            return 1 if self.unit == "client" else (self.per_round or 1)
        return math.ceil(Fraction(str(self.epochs)) / self._rate)

    @property
    def count(self) -> int:
        """Releases that one record, or client, may take part in."""
        if self.steps is not None:
            return self.steps
        rounds = self.rounds
        # A cohort that stays secret hides a client in every round; who is seen to take part is in so many.
        if self.participation is not None and (self.unit == "record" or self.sampler == "none"):
            rounds = self.participation if rounds is None else min(rounds, self.participation)
        return (1 if rounds is None else rounds) * self.steps_per_round

    @property
    def adjacent(self) -> Adjacency:
        """What differs."""
        return self.adjacency or ("replace-one" if self.sampler == "fixed" else "zero-out")

    @property
    def participations(self) -> int:
        """Releases that one record, or client, is in at most: what remains if it is seen to take part."""
        if self.unit == "record" or self.participation is None:
            return self.count
        return min(self.count, self.participation)

    def release(self) -> Release:
        """What is accounted for."""
        noise = self.noise or 0.0
        if self.sampler == "fixed":
            return FixedSizeGaussian(
                population=self.population or 0, size=self.size or 0, noise=noise, count=self.count
            )
        return SampledGaussian(rate=self.sampled, noise=noise, count=self.count, adjacency=self.adjacent)

    def known(self) -> SampledGaussian:
        """The same to whoever sees who takes part: nothing is amplified, and the sampling may as well be certain."""
        return SampledGaussian(
            rate=1.0, noise=self.noise or 0.0, count=self.participations, adjacency=self.adjacent
        )

    def cost(self, interval: float = FINE) -> float:
        """Epsilon of the complete question, for all of one person; infinite where no bound is found."""
        amplified = bound(self.release(), self.delta, self.per_person, interval)
        return min(amplified, self.known_cost())

    def known_cost(self) -> float:
        """Epsilon to whoever sees who takes part: it always holds, and is the smaller where an amplified one is loose.

        Sampling that does not depend on data may be revealed: hockey-stick divergence is jointly convex, so that a
        mixture over who takes part is no worse than the worst of them.
        """
        return bound(self.known(), self.delta, self.per_person)

    @property
    def amplified(self) -> bool:
        """Whether the bound makes use of sampling."""
        if self.sampler == "none":
            return False
        return bound(self.release(), self.delta, self.per_person) <= self.known_cost()

    def accounted(self) -> Accounted:
        """How the cost was found, for one record or client."""
        release = self.release() if self.amplified else self.known()
        if long(release):
            why = f"a PLD of more than {LONGEST} releases takes too long, and RDP is looser"
            return account_by_rdp(release, self.delta, why)
        return account([release], self.delta, interval=_interval(FINE, self.per_person))


def long(release: Release) -> bool:
    """Whether a PLD would take too long."""
    return isinstance(release, SampledGaussian) and release.rate < 1.0 and release.count > LONGEST


def bound(release: Release, delta: float, persons: int = 1, interval: float = FINE) -> float:
    """Epsilon for ``persons`` elements of one person together; infinite where no bound is found."""
    interval = _interval(interval, persons)
    if persons == 1:
        found = rdp_epsilon(release, delta) if long(release) else epsilon(release, delta, interval)
    else:
        found = group_epsilon(release, delta, persons, (), interval, by_rdp=long(release))
    return found if found <= _MOST_EPSILON else math.inf


def _interval(interval: float, persons: int) -> float:
    if persons <= _MOST_FINE:
        return interval
    return max(interval, COARSE if persons <= _MOST_COARSE else 10.0 * COARSE)
