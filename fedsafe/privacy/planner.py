"""All but one of epsilon, noise, sampling, length and participation given, find the missing one.

A level is asked about by itself: record-level and client-level epsilons are two claims, and never add up.
"""

from dataclasses import dataclass, replace
from typing import Any

from fedsafe.errors import CalibrationError
from fedsafe.privacy.accounting import COARSE, FINE, Accounted, Release, least_noise
from fedsafe.privacy.planner_checks import check, check_length, missing_of
from fedsafe.privacy.planner_question import Question
from fedsafe.privacy.planner_search import MOST, largest_count, largest_rate, least_count

__all__ = ["Plan", "Question", "solve", "solve_both"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A complete question, and its answer.

    Args:
        question: With the missing value filled in. Its epsilon is the target, if there was one.
        solved: What was missing.
        epsilon: What it all costs: the target at most; infinite where no bound is found.
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
    check(question)
    missing = missing_of(question)
    if missing not in ("rate", "size", "population"):
        check_length(question)
    complete = question
    if missing != "epsilon":
        try:
            complete = replace(question, **{missing: _value(question, missing, question.epsilon or 0.0)})
        except CalibrationError as error:
            raise CalibrationError(
                f"no {question.option(missing)} will do: {error}. {_remedy(question, missing)}"
            ) from error
    alone = question.per_person == 1
    return Plan(
        question=complete,
        solved=missing,
        epsilon=complete.cost(),
        accounted=complete.accounted(),
        group_epsilon=replace(complete, per_person=2).cost(COARSE) if alone else None,
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


def _value(question: Question, missing: str, target: float) -> Any:
    def cost(value: float, interval: float) -> float:
        exact: Any = value if missing == "rate" else round(value)
        return replace(question, **{missing: exact}).cost(interval)

    def of_noise(
        release: Release, delta: float, interval: float = FINE, also: tuple[Release, ...] = ()
    ) -> float:
        return replace(question, noise=release.noise).cost(interval)

    if missing == "noise":
        return least_noise(
            lambda noise: replace(question, noise=noise).release(), target, question.delta, bound=of_noise
        )
    if missing == "rate":
        return largest_rate(cost, target)
    if missing == "population":
        return least_count(cost, target, question.size or 1)
    most = {"size": question.population, "participation": question.rounds}.get(missing)
    return largest_count(cost, target, most or MOST)


def _remedy(question: Question, missing: str) -> str:
    others = {"epsilon": "raise", "noise": "raise", "rate": "lower", "steps": "lower", "rounds": "lower"}
    given = [
        f"{verb} {question.option(name)}"
        for name, verb in others.items()
        if name != missing and getattr(question, name) is not None
    ]
    return f"To make room, {' or '.join([*given, 'raise --delta'])}"
