"""A claim: an epsilon together with everything that must be true for it to mean something."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from typing import Any

from fedsafe.errors import PlanViolation

# Of a level that adds no noise.
NO_ACCOUNTANT = "none: nothing is noised"

SEED_KEY = "simulated: no guarantee against anyone who knows the seed"

# What two claims must have in common for their epsilons to say which protects more (NIST SP 800-226, 2025).
COMPARED = ("unit", "adjacency", "adversary", "cohort_secret", "release", "delta")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What may be said about one unit of privacy.

    Args:
        unit: ``"record"`` or ``"client"``.
        epsilon: The bound; infinity means that there is no claim.
        delta: Probability that the bound fails.
        adjacency: How two data sets differ.
        adversary: Who the bound holds against.
        cohort_secret: Whether it relies on nobody seeing the cohorts.
        release: What the adversary is given.
        sampler: Sampling as executed.
        accountant: Name, version and discretisation.
        horizon: Over how many releases the bound composes.
        regime: ``"planned"``, or ``"adaptive"`` where something is chosen from what was released before.
        randomness: Where the noise comes from.
        arithmetic: In which numbers the noise is added.
        assumptions: What must hold.
        not_covered: What the bound says nothing about.
        group_epsilon: The bound for two records of one person (record unit only).
        known_cohorts_epsilon: What remains of the bound if the cohorts became known: that of a client in as many rounds
            as the plan lets it.
        fallback_epsilon: What remains of the bound if secure aggregation, which it rests on, were broken.
    """

    unit: str
    epsilon: float
    delta: float
    adjacency: str
    adversary: str
    cohort_secret: bool
    release: str
    sampler: str
    accountant: str
    horizon: str
    regime: str
    randomness: str
    arithmetic: str
    assumptions: tuple[str, ...]
    not_covered: tuple[str, ...]
    group_epsilon: float | None = None
    known_cohorts_epsilon: float | None = None
    fallback_epsilon: float | None = None

    def statement(self) -> str:
        """One paragraph that a reviewer can quote."""
        if math.isinf(self.epsilon):
            why = "this level ran without clip and noise"
            if self.accountant != NO_ACCOUNTANT:
                why = "the accountant finds no finite bound for this much noise"
            return f"No {self.unit}-level differential privacy is claimed: {why}."
        group = ""
        if self.group_epsilon is not None:
            bound = _or_unbounded(self.group_epsilon)
            group = f" For a person with two records in one client, epsilon is {bound}."
        known = ""
        if self.known_cohorts_epsilon is not None:
            known = (
                f" To somebody who sees the cohorts, epsilon is {_or_unbounded(self.known_cohorts_epsilon)}."
            )
        if self.fallback_epsilon is not None:
            broken = _or_unbounded(self.fallback_epsilon)
            known += f" If secure aggregation were broken, epsilon for each client alone would be {broken}."
        kind, _, difference = self.adjacency.partition(" (")
        secrecy = "relies on" if self.cohort_secret else "does not rely on"
        warning = f"{SEED_KEY[0].upper()}{SEED_KEY[1:]}. " if self.randomness == SEED_KEY else ""
        return (
            f"{warning}At the {self.unit} level, the run is ({upper(self.epsilon)}, {self.delta!r})-differentially "
            f"private under {kind} adjacency ({difference} against {self.adversary}, "
            f"for the release of {self.release}. "
            f"The bound composes {self.horizon} ({self.regime} regime; {self.accountant}) with {self.sampler}, "
            f"and {secrecy} the secrecy of the cohorts.{known} Randomness: {self.randomness}. "
            f"Arithmetic: {self.arithmetic}.{group} "
            f"It assumes: {'; '.join(self.assumptions)}. "
            f"Not covered: {'; '.join(self.not_covered)}."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite epsilon becomes null."""

        def number(value: float | None) -> float | None:
            return None if value is None or math.isinf(value) else value

        return {
            "unit": self.unit,
            "epsilon": number(self.epsilon),
            "delta": self.delta,
            "adjacency": self.adjacency,
            "adversary": self.adversary,
            "cohort_secret": self.cohort_secret,
            "release": self.release,
            "sampler": self.sampler,
            "accountant": self.accountant,
            "horizon": self.horizon,
            "regime": self.regime,
            "randomness": self.randomness,
            "arithmetic": self.arithmetic,
            "assumptions": list(self.assumptions),
            "not_covered": list(self.not_covered),
            "group_epsilon": number(self.group_epsilon),
            "known_cohorts_epsilon": number(self.known_cohorts_epsilon),
            "fallback_epsilon": number(self.fallback_epsilon),
            "statement": self.statement(),
        }


def _or_unbounded(bound: float) -> str:
    return upper(bound) if math.isfinite(bound) else "unbounded"


def upper(bound: float) -> str:
    """Four significant digits, rounded up: a printed bound must still be one."""
    return f"{Context(prec=4, rounding=ROUND_CEILING).create_decimal(repr(float(bound))):f}"


def require_comparable(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Refuse to compare the epsilons of claims that are not about the same thing.

    Args:
        first: A claim as :meth:`Claim.to_json` gives it.
        second: Another one.

    Raises:
        PlanViolation: It names everything that differs.
    """
    found = differences(first, second)
    if found:
        raise PlanViolation(
            f"these epsilons cannot be compared, since their claims differ in {'; '.join(found)}: compare claims "
            "of one kind, or make plans with the same one"
        )


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What keeps the epsilons of two claims from being compared, in words; see :func:`require_comparable`."""
    found = [
        f"{key} ({first.get(key)!r} against {second.get(key)!r})"
        for key in COMPARED
        if first.get(key) != second.get(key)
    ]
    if (first.get("randomness") == SEED_KEY) != (second.get("randomness") == SEED_KEY):
        found.append("randomness (one is simulated, with no guarantee against anyone who knows the seed)")
    return found
