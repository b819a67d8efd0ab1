"""What may be claimed against whom: one claim, or the reason why there is none, for each adversary and unit.

==============  ====================================  ==============================================================
adversary       sees                                  what a claim about a client can rest on
==============  ====================================  ==============================================================
server          every update, and every cohort        noise that the client adds before it sends; nothing is amplified
other clients   every model, and their own cohorts    Poisson cohorts: being chosen says nothing about anyone else
outsider        every model                           secret cohorts
==============  ====================================  ==============================================================

A record is protected by the noise of its own client against everyone; and, since changing one record replaces one
update, by the client level under replace-one adjacency where that one counts. The smaller bound is the claim.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from fedsafe.privacy.accounting import (
    FINE,
    Accounted,
    Adjacency,
    account,
    accountant_name,
    epsilon,
    group_epsilon,
)
from fedsafe.privacy.accounting.distributed import distributed_epsilon
from fedsafe.privacy.claim import SEED_KEY, Claim
from fedsafe.privacy.levels import ADAPTIVE, BANDED, CENTRAL, DISTRIBUTED, LOCAL, EvaluationPlan
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import GENERATOR

SERVER, CLIENTS, OUTSIDER = "server", "other clients", "outsider"

_OS_KEY = f"{GENERATOR} streams keyed by 256 bits from the operating system"
_OWN_KEYS = f"{GENERATOR} streams, each client's keyed by 256 bits from its own operating system"

_SEES = {
    SERVER: "the server, who sees each update and every cohort",
    CLIENTS: "the other clients, who see every broadcast model and when they were in a cohort themselves",
    OUTSIDER: "an outsider who sees every broadcast model, accepted or not, but neither cohorts nor updates",
}

_SEES_SUMS = "the server, who sees the sum of each round and every cohort"

_NOT_COVERED = (
    "other runs on the same records, each of which has a budget of its own",
    "the choice of hyper-parameters, if earlier runs on the same records guided it",
    "timing, memory and other side channels of the machines",
    "what is already known from public data",
)
_FLOATS = "floating-point attacks: the clients' gradients and noise are rounded to single precision"


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What the claims of a run depend on besides its plan.

    Args:
        key_from_seed: Whether the noise follows from the seed.
        uncovered: What else is let out of private records, without noise.
        own_nodes: Whether each client is a node of its own, with its own key, that another runtime sends messages to.
        assumed: What else the claims rest on, such as a model of who is there.
    """

    key_from_seed: bool
    uncovered: tuple[str, ...] = ()
    own_nodes: bool = False
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is claimed for one unit against one adversary.

    Args:
        adversary: ``"server"``, ``"other clients"`` or ``"outsider"``.
        unit: ``"record"`` or ``"client"``.
        claim: None where nothing may be claimed.
        reason: Why not, or what the claim comes from.
    """

    adversary: str
    unit: str
    claim: Claim | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values; without a claim, epsilon is null."""
        claim = None if self.claim is None else self.claim.to_json()
        return {
            "adversary": self.adversary,
            "unit": self.unit,
            "epsilon": claim and claim["epsilon"],
            "delta": claim and claim["delta"],
            "reason": self.reason,
            "claim": claim,
        }


def planned_claims(plan: PrivacyPlan, about: Circumstances) -> tuple[Claim, Claim]:
    """The headline claim of each unit: a record against the server, a client against whom its level is for.

    They hold for the plan as a whole: the realised spend is never larger.
    """
    record, client = _record_claim(plan, about), _headline(plan, about)
    return _adapted(plan, about, record), _adapted(plan, about, client)


def claim_matrix(plan: PrivacyPlan, about: Circumstances) -> tuple[Cell, ...]:
    """A cell for each adversary and unit, for the plan as a whole."""
    cells = [*_records(plan, about), *_clients(plan, about)]
    return tuple(
        cell if cell.claim is None else replace(cell, claim=_adapted(plan, about, cell.claim))
        for cell in cells
    )


def _records(plan: PrivacyPlan, about: Circumstances) -> Iterator[Cell]:
    own = _record_claim(plan, about) if plan.record.private else None
    for adversary in (SERVER, CLIENTS, OUTSIDER):
        through = _client_claim(plan, about, adversary, unit="record")
        candidates = [claim for claim in (own, through) if claim is not None]
        best = min(candidates, key=lambda claim: claim.epsilon, default=None)
        if best is None:
            reason = f"clients add no noise of their own{_and_not(plan, adversary)}"
        elif best is own:
            reason = "DP-SGD at its client"
        else:
            reason = "the client level under replace-one: changing a record replaces its client's update"
            best = replace(best, not_covered=(*best.not_covered, "persons with records in several clients"))
        yield Cell(adversary=adversary, unit="record", claim=best, reason=reason)


def _and_not(plan: PrivacyPlan, adversary: str) -> str:
    if not plan.client.private:
        return ", and neither does the server"
    return ", and this adversary sees what the server's noise hides" if adversary == SERVER else ""


def _clients(plan: PrivacyPlan, about: Circumstances) -> Iterator[Cell]:
    for adversary in (SERVER, CLIENTS, OUTSIDER):
        claim = _client_claim(plan, about, adversary)
        if claim is not None:
            reason = _NOISE_OF[plan.client.mechanism]
        elif not plan.client.private:
            reason = "no noise is added to updates or to their average"
        else:
            reason = "it sees each update before noise is added"
        yield Cell(adversary=adversary, unit="client", claim=claim, reason=reason)


_NOISE_OF = {
    CENTRAL: "the server's noise",
    ADAPTIVE: "the server's noise",
    BANDED: "the server's noise, correlated over rounds",
    LOCAL: "each client's own noise",
    DISTRIBUTED: "the noise of all clients of a round together",
}


def _headline(plan: PrivacyPlan, about: Circumstances) -> Claim:
    """The client level's own claim, against whom it is made; with an infinite epsilon where there is none."""
    adversary = SERVER if plan.client.server_learns_nothing else OUTSIDER
    found = _client_claim(plan, about, adversary)
    nothing = Accounted(epsilon=math.inf, delta=plan.client.delta, adjacency="zero-out", accountant="none")
    return found or _client_text(plan, about, adversary, "client", nothing)


def _client_claim(
    plan: PrivacyPlan, about: Circumstances, adversary: str, unit: str = "client"
) -> Claim | None:
    """What the client level protects a unit with against an adversary; None if it does not."""
    level, participations = plan.client, _participations(plan)
    if not level.private or (adversary == SERVER and not level.server_learns_nothing):
        return None
    delta = level.delta if unit == "client" else plan.record.delta
    if adversary == CLIENTS and level.cohort_size is not None and level.cohorts_count:
        # In a cohort of fixed size, who is in it says something about everyone else: nothing is amplified.
        if unit == "record":
            return None
        found = account([level.known_cohorts(participations)], delta)
        claim = _client_text(plan, about, adversary, unit, found)
        return replace(claim, cohort_secret=False, known_cohorts_epsilon=None)
    adjacency: Adjacency | None = None if unit == "client" else "replace-one"
    if level.mechanism == DISTRIBUTED and about.own_nodes:
        return _without_secure_aggregation(plan, about, adversary, unit, delta)
    found = plan.client_account(plan.rounds, participations, adjacency=adjacency, delta=delta)
    return _client_text(plan, about, adversary, unit, found)


def _without_secure_aggregation(
    plan: PrivacyPlan, about: Circumstances, adversary: str, unit: str, delta: float
) -> Claim:
    """Between real nodes nothing hides what each client sends: its own share of the noise is all there is."""
    noise = plan.client.distributed(plan.clients, _participations(plan)).alone()
    found = Accounted(
        epsilon=distributed_epsilon(noise, delta),
        delta=delta,
        adjacency="replace-one",
        accountant=f"RDP of the {noise.law} mechanism",
    )
    return replace(
        _client_text(plan, about, adversary, unit, found),
        adversary=_SEES[adversary],
        release=_RELEASED[LOCAL],
        assumptions=(*_TRUSTED[LOCAL], "the server sees every update: there is no secure aggregation here"),
        fallback_epsilon=None,
    )


def _participations(plan: PrivacyPlan) -> int:
    """The most rounds of one client."""
    spaced = math.ceil(plan.rounds / plan.client.separation)
    return min(plan.record.max_participations, plan.rounds, spaced)


def _client_text(
    plan: PrivacyPlan, about: Circumstances, adversary: str, unit: str, found: Accounted
) -> Claim:
    level = plan.client
    evaluation = _noised_evaluation(plan, "noise_client")
    # Local noise is a multiple of what any two updates differ by: its release counts as one of sensitivity one.
    replaced = found.adjacency == "replace-one" or level.mechanism == LOCAL
    known = fallback = None
    if level.private and level.cohorts_count and unit == "client":
        known = epsilon(level.known_cohorts(_participations(plan)), found.delta)
    if level.private and level.mechanism == DISTRIBUTED:
        alone = level.distributed(plan.clients, _participations(plan)).alone()
        fallback = distributed_epsilon(alone, found.delta)
    return Claim(
        unit=unit,
        epsilon=found.epsilon,
        delta=found.delta,
        adjacency=_ADJACENCY["replace-one" if replaced else "zero-out", unit],
        adversary=_SEES_SUMS if (adversary, level.mechanism) == (SERVER, DISTRIBUTED) else _SEES[adversary],
        cohort_secret=level.cohorts_count,
        release=_RELEASED.get(level.mechanism, "every broadcast model")
        + (" and every noised mean score" if evaluation else ""),
        sampler=_client_sampler(plan),
        accountant=found.accountant
        + (": an upper bound for cohorts of fixed size" if level.cohort_size and level.cohorts_count else ""),
        horizon=_client_horizon(plan)
        + (" (a sensitivity of twice the clip)" if replaced else "")
        + _evaluations(plan, "and", "noise_client"),
        regime="planned",
        randomness=SEED_KEY if about.key_from_seed else _OS_KEY,
        arithmetic=_client_arithmetic(plan),
        assumptions=(
            *_TRUSTED[level.mechanism],
            *(
                ("nobody but the server learns who was in a cohort" + _BUT_THEM.get(adversary, ""),)
                if level.cohorts_count
                else ()
            ),
            "one person is one client"
            if level.group == 1
            else f"one person is at most {level.group} clients",
        ),
        not_covered=(
            *_NOT_COVERED,
            *(() if level.server_learns_nothing else ("the server itself, who is trusted",)),
        ),
        known_cohorts_epsilon=known,
        fallback_epsilon=fallback,
    )


_REGISTERED = "the registered population is public"
_ADJACENCY = {
    ("zero-out", "client"): f"zero-out (one client's updates replaced by zero; {_REGISTERED})",
    ("replace-one", "client"): f"replace-one (one client's updates replaced by any others; {_REGISTERED})",
    (
        "replace-one",
        "record",
    ): f"replace-one (one record changed, and with it its client's updates; {_REGISTERED})",
}
_RELEASED = {
    LOCAL: "every update that one client uploads, and so every model",
    DISTRIBUTED: "the sum of each round, and so every model",
}
_SERVER_ADDS = "the server is trusted: it sees each update and adds the noise"
_TRUSTED = {
    CENTRAL: (_SERVER_ADDS,),
    ADAPTIVE: (_SERVER_ADDS,),
    BANDED: (
        _SERVER_ADDS,
        "cohorts are chosen without a look at private data",
    ),
    LOCAL: ("each client runs this code, and keeps its noise to itself",),
    DISTRIBUTED: (
        "secure aggregation shows the server nothing but the sum of a round; this run simulates it",
        "clients run this code, and as many as were counted on keep their noise to themselves",
    ),
}
_BUT_THEM = {CLIENTS: ", but for those who were"}


def _client_sampler(plan: PrivacyPlan) -> str:
    level, cap = plan.client, plan.record.max_participations
    if level.cohort_size is not None:
        sampler = f"cohorts of {level.cohort_size} of {plan.clients} registered clients, without replacement"
    else:
        sampler = f"Poisson cohorts of rate {level.rate:g} over {plan.clients} registered clients, empty ones included"
    if not level.cohorts_count:
        sampler += ", of which the bound makes no use"
    if level.separation > 1:
        sampler += f"; a client stays away for {level.separation - 1} rounds after each of its own"
    return sampler + ("" if cap >= plan.rounds else f"; a client that was in {cap} is left out of later ones")


def _client_horizon(plan: PrivacyPlan) -> str:
    level = plan.client
    one = f"{_participations(plan)} participations of one client"
    composed = f"{plan.rounds} rounds" if level.cohorts_count else one
    if level.mechanism == BANDED:
        composed = f"{plan.rounds} rounds as one release, with {one}"
    first = ", then one that follows the updates by noised counts" if level.mechanism == ADAPTIVE else ""
    return f"{composed}, noise multiplier {level.noise:g}, clip {level.clip:g}{first}"


def _client_arithmetic(plan: PrivacyPlan) -> str:
    level = plan.client
    if level.mechanism == DISTRIBUTED and level.shares is not None:
        return f"{level.shares.law} noise on whole numbers modulo 2^{level.shares.modulus}, drawn exactly"
    if level.mechanism == CENTRAL:
        return f"Gaussian rounded to a grid of 2^-{level.grid_bits}"
    return "Gaussian rounded to a public grid"


def _record_claim(plan: PrivacyPlan, about: Circumstances) -> Claim:
    level, evaluation = plan.record, _noised_evaluation(plan, "noise_record")
    bound, group = math.inf, None
    if level.private:
        bound = plan.record_epsilon(plan.rounds, level.max_participations)
        if level.group == 1:
            group = group_epsilon(level.mechanism(), level.delta, 2)
            if evaluation:
                # Both records may be in training, both in validation, or one in each.
                validation = evaluation.of_record(plan.rounds)
                one_each = epsilon(level.mechanism(), level.delta, FINE, (validation,))
                group = max(group, group_epsilon(validation, level.delta, 2), one_each)
    persons = "one record per person" if level.group == 1 else f"at most {level.group} records per person"
    on_grid = level.grid_bits is not None
    return Claim(
        unit="record",
        epsilon=bound,
        delta=level.delta,
        adjacency="zero-out (one record replaced by nothing; the number of records of each client is public)"
        if level.batch_size is None
        else "replace-one (one record replaced by any other; the number of records of each client is public)",
        adversary="the server and all other clients, who see each update of the client and when it took part",
        cohort_secret=False,
        release="every update that one client uploads, and so every model"
        + (", and the noised score of its validation records" if evaluation else ""),
        sampler=f"Poisson batches of rate {level.rate:g} inside the client, empty ones included"
        if level.batch_size is None
        else f"batches of {level.batch_size} records inside the client, without replacement",
        accountant=account([level.mechanism()], level.delta).accountant
        if level.private
        else accountant_name(),
        horizon=(
            f"{level.max_participations} participations of {level.steps} steps, noise multiplier {level.noise:g}, "
            f"clip {level.clip:g}; the same bound for every client, so the worst client's"
        )
        + _evaluations(plan, "a validation record, which training never reads, is in", "noise_record"),
        regime="planned",
        randomness=SEED_KEY if about.key_from_seed else _OS_KEY,
        arithmetic=f"Gaussian rounded to a grid of 2^-{level.grid_bits}"
        if on_grid
        else "single-precision Gaussian",
        assumptions=(
            f"{persons}, in one client",
            "each client runs this code, and keeps its batches and noise to itself",
            "preprocessing uses the public schema alone",
            "the model keeps the examples of a batch apart, which was tested on random inputs",
        ),
        not_covered=(
            *_NOT_COVERED,
            *(() if on_grid else (_FLOATS,)),
            "how many records a client holds",
            "persons with records in several clients",
        ),
        group_epsilon=group,
    )


def _adapted(plan: PrivacyPlan, about: Circumstances, claim: Claim) -> Claim:
    """A claim with what its circumstances change."""
    claim = replace(claim, assumptions=(*claim.assumptions, *about.assumed))
    if about.own_nodes:
        claim = _on_nodes(claim)
    uncovered = about.uncovered
    if plan.evaluation and not plan.evaluation.noised:
        uncovered = (*uncovered, "the score of each client that is evaluated, on its own validation records")
    if not uncovered:
        return claim
    return replace(
        claim,
        release=f"{claim.release}, and for these only",
        not_covered=(*uncovered, *claim.not_covered),
    )


def _on_nodes(claim: Claim) -> Claim:
    """A claim where clients are nodes of Flower's own runtimes."""
    if claim.cohort_secret:
        assumption = "Flower's SuperLink and its database belong to the server"
    else:
        assumption = "each node keeps its Flower context, which remembers the rounds that it has answered"
        if claim.randomness != SEED_KEY:
            claim = replace(claim, randomness=_OWN_KEYS)
    times = "when each client replied, and how long it took"
    return replace(
        claim, assumptions=(*claim.assumptions, assumption), not_covered=(*claim.not_covered, times)
    )


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
