"""A claim: an epsilon together with everything that must be true for it to mean something."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context
from typing import Any

from fedsafe.privacy.accounting import FINE, accountant_name, epsilon, group_epsilon
from fedsafe.privacy.plan import EvaluationPlan, PrivacyPlan
from fedsafe.rng import GENERATOR

_OS_KEY = f"{GENERATOR} streams keyed by 256 bits from the operating system"
_SEED_KEY = "simulated: no guarantee against anyone who knows the seed"
_OWN_KEYS = f"{GENERATOR} streams, each client's keyed by 256 bits from its own operating system"


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
        regime: ``"planned"``.
        randomness: Where the noise comes from.
        assumptions: What must hold.
        not_covered: What the bound says nothing about.
        group_epsilon: The bound for two records of one person (record unit only).
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
    assumptions: tuple[str, ...]
    not_covered: tuple[str, ...]
    group_epsilon: float | None = None

    def statement(self) -> str:
        """One paragraph that a reviewer can quote."""
        if math.isinf(self.epsilon):
            return f"No {self.unit}-level differential privacy is claimed: this level ran without clip and noise."
        group = ""
        if self.group_epsilon is not None:
            bound = _upper(self.group_epsilon) if math.isfinite(self.group_epsilon) else "unbounded"
            group = f" For a person with two records in one client, epsilon is {bound}."
        kind, _, difference = self.adjacency.partition(" (")
        secrecy = "relies on" if self.cohort_secret else "does not rely on"
        warning = f"{_SEED_KEY[0].upper()}{_SEED_KEY[1:]}. " if self.randomness == _SEED_KEY else ""
        return (
            f"{warning}At the {self.unit} level, the run is ({_upper(self.epsilon)}, {self.delta!r})-differentially "
            f"private under {kind} adjacency ({difference} against {self.adversary}, "
            f"for the release of {self.release}. "
            f"The bound composes {self.horizon} ({self.regime} regime; {self.accountant}) with {self.sampler}, "
            f"and {secrecy} the secrecy of the cohorts. Randomness: {self.randomness}.{group} "
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
            "assumptions": list(self.assumptions),
            "not_covered": list(self.not_covered),
            "group_epsilon": number(self.group_epsilon),
            "statement": self.statement(),
        }


def _upper(bound: float) -> str:
    """Four significant digits, rounded up: a printed bound must still be one."""
    return f"{Context(prec=4, rounding=ROUND_CEILING).create_decimal(repr(float(bound))):f}"


def planned_claims(
    plan: PrivacyPlan,
    *,
    key_from_seed: bool,
    uncovered: Sequence[str] = (),
    own_nodes: bool = False,
    assumed: Sequence[str] = (),
) -> tuple[Claim, Claim]:
    """The headline claim of each unit, for the plan as a whole: the realised spend is never larger.

    Args:
        plan: The calibrated plan.
        key_from_seed: Whether the noise follows from the seed.
        uncovered: What else is let out of private records, without noise.
        own_nodes: Whether each client is a node of its own, with its own key, that another runtime sends messages to.
        assumed: What else both claims rest on, such as a model of who is there.
    """
    claims = _record_claim(plan, key_from_seed), _client_claim(plan, key_from_seed)
    if assumed:
        record, client = (replace(claim, assumptions=(*claim.assumptions, *assumed)) for claim in claims)
        claims = record, client
    if own_nodes:
        claims = _on_nodes(*claims)
    if plan.evaluation and not plan.evaluation.noised:
        uncovered = (*uncovered, "the score of each client that is evaluated, on its own validation records")
    if uncovered:
        first, second = (
            replace(
                claim,
                release=f"{claim.release}, and for these only",
                not_covered=(*uncovered, *claim.not_covered),
            )
            for claim in claims
        )
        return first, second
    return claims


def _on_nodes(record: Claim, client: Claim) -> tuple[Claim, Claim]:
    """The claims where clients are nodes of Flower's own runtimes."""
    times = ("when each client replied, and how long it took",)
    if record.randomness != _SEED_KEY:
        record = replace(record, randomness=f"{_OWN_KEYS}; single-precision Gaussian")
    remembers = "each node keeps its Flower context, which remembers the rounds that it has answered"
    trusted = "Flower's SuperLink and its database belong to the server"
    return (
        replace(
            record, assumptions=(*record.assumptions, remembers), not_covered=(*record.not_covered, *times)
        ),
        replace(
            client, assumptions=(*client.assumptions, trusted), not_covered=(*client.not_covered, *times)
        ),
    )


_NOT_COVERED = (
    "other runs on the same records, each of which has a budget of its own",
    "the choice of hyper-parameters, if earlier runs on the same records guided it",
    "timing, memory and other side channels of the machines",
    "what is already known from public data",
    "floating-point attacks: the clients' gradients and noise are rounded to single precision",
)


def _record_claim(plan: PrivacyPlan, key_from_seed: bool) -> Claim:
    level, evaluation = plan.record, _noised_evaluation(plan, "noise_record")
    bound, group = math.inf, None
    if level.private:
        bound = _spent(plan, "record")
        group = group_epsilon(level.mechanism(), level.delta, 2)
        if evaluation:
            # Both records may be in training, both in validation, or one in each.
            validation = evaluation.of_record(plan.rounds)
            one_each = epsilon(level.mechanism(), level.delta, FINE, (validation,))
            group = max(group, group_epsilon(validation, level.delta, 2), one_each)
    return Claim(
        unit="record",
        epsilon=bound,
        delta=level.delta,
        adjacency="zero-out (one record replaced by nothing; the number of records of each client is public)",
        adversary="the server and all other clients, who see each update of the client and when it took part",
        cohort_secret=False,
        release="every update that one client uploads, and so every model"
        + (", and the noised score of its validation records" if evaluation else ""),
        sampler=f"Poisson batches of rate {level.rate:g} inside the client, empty ones included",
        accountant=accountant_name(),
        horizon=(
            f"{level.max_participations} participations of {level.steps} steps, noise multiplier {level.noise:g}, "
            f"clip {level.clip:g}; the same bound for every client, so the worst client's"
        )
        + _evaluations(plan, "a validation record, which training never reads, is in", "noise_record"),
        regime="planned",
        randomness=_SEED_KEY if key_from_seed else f"{_OS_KEY}; single-precision Gaussian",
        assumptions=(
            "one record per person, in one client",
            "each client runs this code, and keeps its batches and noise to itself",
            "preprocessing uses the public schema alone",
            "the model keeps the examples of a batch apart, which was tested on random inputs",
        ),
        not_covered=(
            *_NOT_COVERED,
            "how many records a client holds",
            "persons with records in several clients",
        ),
        group_epsilon=group,
    )


def _client_claim(plan: PrivacyPlan, key_from_seed: bool) -> Claim:
    level, cap = plan.client, plan.record.max_participations
    evaluation = _noised_evaluation(plan, "noise_client")
    bound = _spent(plan, "client") if level.private else math.inf
    return Claim(
        unit="client",
        epsilon=bound,
        delta=level.delta,
        adjacency="zero-out (one client's updates replaced by zero; the registered population is public)",
        adversary="an outsider who sees every broadcast model, accepted or not, but neither cohorts nor updates",
        cohort_secret=True,
        release="every broadcast model" + (" and every noised mean score" if evaluation else ""),
        sampler=f"Poisson cohorts of rate {level.rate:g} over {plan.clients} registered clients, empty ones included"
        + ("" if cap >= plan.rounds else f"; a client that was in {cap} is left out of later ones"),
        accountant=accountant_name(),
        horizon=f"{plan.rounds} rounds, noise multiplier {level.noise:g}, clip {level.clip:g}"
        + _evaluations(plan, "and", "noise_client"),
        regime="planned",
        randomness=_SEED_KEY
        if key_from_seed
        else f"{_OS_KEY}; Gaussian rounded to a grid of 2^-{level.grid_bits}",
        assumptions=(
            "the server is trusted: it sees each update and adds the noise",
            "nobody but the server learns who was in a cohort",
            "one person is one client",
        ),
        not_covered=(*_NOT_COVERED, "the server itself, and clients, who see that they were chosen"),
    )


def _spent(plan: PrivacyPlan, unit: str) -> float:
    spent = plan.spend(plan.rounds)[unit]
    return math.inf if spent is None else spent


def _noised_evaluation(plan: PrivacyPlan, noise: str) -> EvaluationPlan | None:
    """The evaluation, if its scores are noised at this level."""
    evaluation = plan.evaluation
    return evaluation if evaluation and evaluation.noised and getattr(evaluation, noise) else None


def _evaluations(plan: PrivacyPlan, joint: str, noise: str) -> str:
    """The part of a horizon that federated evaluation adds, or nothing."""
    evaluation = _noised_evaluation(plan, noise)
    if evaluation is None:
        return ""
    count, multiplier = plan.rounds // evaluation.every, getattr(evaluation, noise)
    return f"; {joint} {count} evaluations with cohorts of their own, noise multiplier {multiplier:g}"
