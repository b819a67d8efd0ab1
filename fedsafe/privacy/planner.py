"""All but one of epsilon, noise, sampling, length and participation given, find the missing one.

A level is asked about by itself: record-level and client-level epsilons are two claims, and never add up.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

from fedsafe.errors import CalibrationError, ConfigError
from fedsafe.privacy.accounting import (
    COARSE,
    FINE,
    Accounted,
    Adjacency,
    FixedSizeGaussian,
    Release,
    SampledGaussian,
    account,
    epsilon,
    group_epsilon,
    least_noise,
)
from fedsafe.privacy.planner_search import MOST, largest_count, largest_rate, least_count

Unit = Literal["record", "client"]
Sampler = Literal["poisson", "fixed", "none"]

# What may be missing, by unit, as the command line calls it.
_OPTIONS: dict[Unit, dict[str, str]] = {
    "record": {
        "epsilon": "--epsilon", "noise": "--noise", "rate": "--rate", "size": "--batch", "population": "--records",
        "steps": "--steps", "rounds": "--rounds", "per_round": "--local-steps", "participation": "--participation",
    },
    "client": {
        "epsilon": "--epsilon", "noise": "--noise", "rate": "--rate", "size": "--cohort", "population": "--clients",
        "steps": "--rounds", "rounds": "--rounds", "per_round": "", "participation": "--participation",
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
        return _OPTIONS[self.unit][name]

    @property
    def sampled(self) -> float:
        """The rate; 1 where nobody is sampled."""
        if self.sampler == "none":
            return 1.0
        if self.rate is not None:
            return self.rate
        return (self.size or 0) / (self.population or 1)

    @property
    def steps_per_round(self) -> int:
        """Local steps of a round: whole ones, never fewer than the epochs need."""
        if self.epochs is None:
            return 1 if self.unit == "client" else (self.per_round or 1)
        rate = Fraction(self.sampled).limit_denominator(10**12)
        if self.size is not None and self.population is not None:
            rate = Fraction(self.size, self.population)
        return math.ceil(Fraction(self.epochs).limit_denominator(10**9) / rate)

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

    def release(self) -> Release:
        """What is accounted for."""
        noise = self.noise or 0.0
        if self.sampler == "fixed":
            return FixedSizeGaussian(
                population=self.population or 0, size=self.size or 0, noise=noise, count=self.count
            )
        adjacency = self.adjacency or "zero-out"
        return SampledGaussian(rate=self.sampled, noise=noise, count=self.count, adjacency=adjacency)

    def cost(self, interval: float = FINE) -> float:
        """Epsilon of the complete question."""
        return _bound(self.per_person)(self.release(), self.delta, interval=interval)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A complete question, and its answer.

    Args:
        question: With the missing value filled in. Its epsilon is the target, if there was one.
        solved: What was missing.
        epsilon: What it all costs: the target at most.
        accounted: How that was found, for one record or client.
        group_epsilon: Epsilon for two of one person, where epsilon is for one.
    """

    question: Question
    solved: str
    epsilon: float
    accounted: Accounted
    group_epsilon: float | None


def solve(question: Question) -> Plan:
    """Find what is missing.

    Raises:
        ConfigError: Nothing or too much is missing, or two values contradict each other.
        CalibrationError: No value meets the target.
    """
    _check(question)
    missing = _missing(question)
    complete = question
    if missing != "epsilon":
        try:
            complete = replace(question, **{missing: _value(question, missing, question.epsilon or 0.0)})
        except CalibrationError as error:
            raise CalibrationError(
                f"no {question.option(missing)} will do: {error}. {_remedy(question, missing)}"
            ) from error
    release = complete.release()
    accounted = account([release], question.delta)
    alone = question.per_person == 1
    return Plan(
        question=complete,
        solved=missing,
        epsilon=accounted.epsilon if alone else complete.cost(),
        accounted=accounted,
        group_epsilon=group_epsilon(release, question.delta, 2, (), COARSE) if alone else None,
    )


def solve_both(record: Question, client: Question) -> tuple[Plan, Plan]:
    """The same for both levels of one run; rounds, if they are missing at both, are as many as both can pay for.

    Raises:
        ConfigError: As :func:`solve`.
        CalibrationError: As :func:`solve`.
    """
    plans = solve(record), solve(client)
    if {plan.solved for plan in plans} == {"rounds"}:
        rounds = min(plan.question.rounds or 1 for plan in plans)
        shorter = (replace(question, rounds=rounds, epsilon=None) for question in (record, client))
        plans = tuple(replace(solve(question), solved="rounds") for question in shorter)  # type: ignore[assignment]
    return plans


def _bound(per_person: int) -> Callable[..., float]:
    if per_person == 1:
        return epsilon

    def of_group(
        release: Release, delta: float, interval: float = FINE, also: tuple[Release, ...] = ()
    ) -> float:
        return group_epsilon(release, delta, per_person, also, interval)

    return of_group


def _value(question: Question, missing: str, target: float) -> Any:
    def cost(value: float, interval: float) -> float:
        exact: Any = value if missing == "rate" else round(value)
        return replace(question, **{missing: exact}).cost(interval)

    if missing == "noise":
        return least_noise(
            lambda noise: replace(question, noise=noise).release(),
            target,
            question.delta,
            bound=_bound(question.per_person),
        )
    if missing == "rate":
        return largest_rate(cost, target)
    if missing == "population":
        return least_count(cost, target, question.size or 1)
    most = {"size": question.population, "participation": question.rounds}.get(missing)
    return largest_count(cost, target, most or MOST)


def _missing(question: Question) -> str:
    lacking = [name for name in ("epsilon", "noise") if getattr(question, name) is None]
    lacking += _missing_sampling(question)
    lacking += _missing_length(question, nothing_else=not lacking)
    if len(lacking) == 1:
        return lacking[0]
    if lacking:
        names = ", ".join(question.option(name) for name in lacking)
        raise ConfigError(
            f"{len(lacking)} things are missing of the {question.unit} level, and one can be solved for: give all but "
            f"one of {names}"
        )
    # Last, since it has a default: every round.
    seen = question.unit == "record" or question.sampler == "none"
    if seen and question.rounds is not None and question.participation is None:
        return "participation"
    raise ConfigError(
        f"nothing is missing of the {question.unit} level: leave out what to solve for, such as "
        f"{question.option('epsilon')}"
    )


def _missing_sampling(question: Question) -> list[str]:
    if question.sampler == "none" or question.rate is not None:
        return []
    if question.size is None:
        # Records alone are for the check of delta, until a batch is asked for.
        return ["rate" if question.population is None else "size"]
    return ["population"] if question.population is None else []


def _missing_length(question: Question, *, nothing_else: bool) -> list[str]:
    if question.steps is not None:
        return []
    known = question.rounds is not None or question.participation is not None
    if question.unit == "client":
        return [] if question.rounds is not None or (known and question.sampler == "none") else ["rounds"]
    if question.epochs is not None:
        return [] if known or not nothing_else else ["rounds"]
    if question.per_round is not None:
        return [] if known else ["rounds"]
    return ["per_round" if known else "steps"]


def _check(question: Question) -> None:
    option = question.option
    if not 0.0 < question.delta < 1.0:
        raise ConfigError(
            f"--delta {question.delta!r} is no probability: give one above 0 and below 1, such as 1e-5"
        )
    if question.epsilon is not None and not 0.0 < question.epsilon < math.inf:
        raise ConfigError(f"{option('epsilon')} {question.epsilon!r} is no target: give a positive number")
    if question.noise is not None and not 0.0 < question.noise < math.inf:
        raise ConfigError(
            f"{option('noise')} {question.noise!r} protects nothing: give a positive noise multiplier"
        )
    if question.rate is not None and not 0.0 < question.rate <= 1.0:
        raise ConfigError(
            f"{option('rate')} {question.rate!r} is no sampling rate: give one above 0, and at most 1"
        )
    for name in ("size", "population", "steps", "rounds", "per_round", "participation", "per_person"):
        value = getattr(question, name)
        if value is not None and value < 1:
            raise ConfigError(
                f"{_OPTIONS[question.unit].get(name, '--per-person')} {value!r}: give a whole number, 1 or more"
            )
    if question.epochs is not None and not question.epochs > 0.0:
        raise ConfigError(f"--epochs {question.epochs!r}: give a positive number")
    if question.size is not None and question.population is not None and question.size > question.population:
        raise ConfigError(
            f"{option('size')} {question.size} is more than {option('population')} {question.population}: lower it"
        )
    clashes = [
        ("rate", "size", question.rate is not None and question.size is not None),
        (
            "steps",
            "rounds",
            question.unit == "record" and question.steps is not None and question.rounds is not None,
        ),
        ("steps", "per_round", question.steps is not None and question.per_round is not None),
        ("steps", "participation", question.steps is not None and question.participation is not None),
    ]
    for first, second, clash in clashes:
        if clash:
            raise ConfigError(
                f"{option(first)} and {option(second)} say the same thing twice: give one of them"
            )
    if question.epochs is not None and (question.steps is not None or question.per_round is not None):
        raise ConfigError("--epochs and a number of steps say the same thing twice: give one of them")
    if question.sampler == "fixed":
        if question.rate is not None:
            raise ConfigError(
                f"fixed sizes are whole numbers: give {option('size')} and {option('population')}, not {option('rate')}"
            )
        if question.adjacency not in (None, "replace-one"):
            raise ConfigError(
                f"fixed sizes have no {question.adjacency} bound: leave out --adjacency, or draw by Poisson sampling"
            )


def _remedy(question: Question, missing: str) -> str:
    others = {"epsilon": "raise", "noise": "raise", "rate": "lower", "steps": "lower", "rounds": "lower"}
    given = [
        f"{verb} {question.option(name)}"
        for name, verb in others.items()
        if name != missing and getattr(question, name) is not None
    ]
    return f"To make room, {' or '.join([*given, 'raise --delta'])}"
