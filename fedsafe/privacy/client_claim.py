"""The claim of the client level: what one client, or one record of it, is protected by against an adversary."""

import math
from dataclasses import replace

from fedsafe.privacy.accounting import Accounted, Adjacency, account
from fedsafe.privacy.accounting.distributed import distributed_epsilon
from fedsafe.privacy.circumstances import (
    NEVER_COVERED,
    OS_KEY,
    SUMS_ASSUMED,
    Circumstances,
    evaluations,
    noised_evaluation,
)
from fedsafe.privacy.claim import NO_ACCOUNTANT, SEED_KEY, Claim, upper
from fedsafe.privacy.levels import ADAPTIVE, BANDED, CENTRAL, DISTRIBUTED, FILTERED, GROUPED, LOCAL
from fedsafe.privacy.plan import PrivacyPlan

SERVER, CLIENTS, OUTSIDER = "server", "other clients", "outsider"

_SEES = {
    SERVER: "the server, who sees each update and every cohort",
    CLIENTS: "the other clients, who see every broadcast model and when they were in a cohort themselves",
    OUTSIDER: "an outsider who sees every broadcast model, accepted or not, but neither cohorts nor updates",
}

_SEES_SUMS = "the server, who sees the sum of each round and every cohort"


def headline(plan: PrivacyPlan, about: Circumstances) -> Claim:
    """The client level's own claim, against whom it is made; with an infinite epsilon where there is none."""
    adversary = SERVER if plan.client.server_learns_nothing else OUTSIDER
    found = client_claim(plan, about, adversary)
    nothing = Accounted(
        epsilon=math.inf, delta=plan.client.delta, adjacency="zero-out", accountant=NO_ACCOUNTANT
    )
    return found or _client_text(plan, about, adversary, "client", nothing)


def client_claim(
    plan: PrivacyPlan, about: Circumstances, adversary: str, unit: str = "client"
) -> Claim | None:
    """What the client level protects a unit with against an adversary; None if it does not, or without a bound."""
    level, participations = plan.client, _participations(plan)
    if not level.private or (adversary == SERVER and not level.server_learns_nothing):
        return None
    if level.mechanism == FILTERED and unit == "record":
        return None  # the filter counts under zero-out alone, and changing a record replaces an update
    delta = level.delta if unit == "client" else plan.record.delta
    adjacency: Adjacency = level.adjacency if unit == "client" else "replace-one"
    if adversary == CLIENTS and level.cohort_size is not None and level.cohorts_count:
        # In a cohort of fixed size, who is in it says something about everyone else: nothing is amplified.
        found = plan.known_account(participations, adjacency, delta)
        claim = replace(
            _client_text(plan, about, adversary, unit, found), cohort_secret=False, known_cohorts_epsilon=None
        )
    elif adversary == CLIENTS and level.mechanism == DISTRIBUTED:
        found = _among_clients(plan, adjacency, delta)
        known = _colluding(plan)
        claim = _client_text(plan, about, adversary, unit, found)
        claim = replace(
            claim,
            assumptions=(
                *claim.assumptions,
                f"no more than {known} of the other clients pool what they know",
            ),
        )
    else:
        found = plan.client_account(plan.rounds, participations, adjacency=adjacency, delta=delta)
        claim = _client_text(plan, about, adversary, unit, found)
    return claim if math.isfinite(claim.epsilon) else None


def _among_clients(plan: PrivacyPlan, adjacency: Adjacency, delta: float) -> Accounted:
    """Clients that add the noise together know their own shares: none is left where too few survive."""
    noise = plan.client.distributed(plan.clients, _participations(plan))
    minimum = plan.client.shares.minimum if plan.client.shares else 0
    noise = replace(noise, honest=max(0, minimum - _colluding(plan)))
    whole = noise.replaced() if adjacency == "replace-one" else noise
    return Accounted(
        epsilon=distributed_epsilon(whole, delta) if noise.honest else math.inf,
        delta=delta,
        adjacency=adjacency,
        accountant=f"RDP of the {noise.law} mechanism for {noise.honest} honest survivors",
    )


def _colluding(plan: PrivacyPlan) -> int:
    """Other clients whose shares are known: as many as the plan reckons with, and one at least."""
    return max(plan.client.shares.corrupt, 1) if plan.client.shares else 1


def _participations(plan: PrivacyPlan) -> int:
    """The most rounds of one client."""
    spaced = math.ceil(plan.rounds / plan.client.separation)
    return min(plan.record.max_participations, plan.rounds, spaced)


def _client_text(
    plan: PrivacyPlan, about: Circumstances, adversary: str, unit: str, found: Accounted
) -> Claim:
    level = plan.client
    evaluation = noised_evaluation(plan, "noise_client")
    # Local noise is a multiple of what any two updates differ by: its release counts as one of sensitivity one.
    replaced = found.adjacency == "replace-one" or level.mechanism == LOCAL
    known = fallback = None
    filtered = level.private and level.mechanism == FILTERED
    if level.private and level.cohorts_count and unit == "client" and not filtered:
        known = plan.known_account(_participations(plan), found.adjacency, found.delta).epsilon
    if level.private and level.mechanism == DISTRIBUTED:
        alone = level.distributed(plan.clients, _participations(plan)).alone()
        fallback = distributed_epsilon(alone, found.delta)
    return Claim(
        unit=unit,
        epsilon=found.epsilon,
        delta=found.delta,
        adjacency=_ADJACENCY["replace-one" if replaced else "zero-out", unit]
        + ("" if level.group == 1 else f", for all of the at most {level.group} clients of one person"),
        adversary=_SEES_SUMS if (adversary, level.mechanism) == (SERVER, DISTRIBUTED) else _SEES[adversary],
        cohort_secret=level.cohorts_count,
        release=_RELEASED.get(level.mechanism, "every broadcast model")
        + (" and every noised mean score" if evaluation else ""),
        sampler=_client_sampler(plan),
        accountant=found.accountant
        + (_not_used(plan) if filtered else "")
        + (": an upper bound for cohorts of fixed size" if level.cohort_size and level.cohorts_count else ""),
        horizon=_client_horizon(plan)
        + (" (a sensitivity of twice the clip)" if replaced and level.mechanism != LOCAL else "")
        + evaluations(plan, "and", "noise_client"),
        regime="adaptive" if filtered else "planned",
        randomness=SEED_KEY if about.key_from_seed else OS_KEY,
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
            *NEVER_COVERED,
            *_delta_too_large(plan, found.delta, unit),
            *(_NOT_FILTERED if filtered else ()),
            "whether a client failed to train"
            if level.server_learns_nothing
            else "the server itself, who is trusted",
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
    ADAPTIVE: "every broadcast model, and the clip that is announced with it",
    GROUPED: "every broadcast model, and the weight of each group in the record of each round",
    LOCAL: "every update that one client uploads, and so every model",
    DISTRIBUTED: "the sum of each round, and so every model",
}
_NOT_FILTERED = (
    "anybody who sees a cohort: the filter counts on their secrecy, and has no figure without it",
    "two clients of one person",
)
_SERVER_ADDS = "the server is trusted: it sees each update and adds the noise"
_TRUSTED = {
    CENTRAL: (_SERVER_ADDS,),
    ADAPTIVE: (_SERVER_ADDS,),
    GROUPED: (_SERVER_ADDS,),
    BANDED: (
        _SERVER_ADDS,
        "cohorts are chosen without a look at private data",
    ),
    FILTERED: (
        _SERVER_ADDS,
        "each round's noise multiplier is chosen from what was released before it alone",
        "the ledger holds it before a message leaves",
    ),
    LOCAL: ("each client runs this code, and keeps its noise to itself",),
    DISTRIBUTED: (
        SUMS_ASSUMED,
        "clients run this code, and as many as were counted on keep their noise to themselves",
    ),
}
_BUT_THEM = {CLIENTS: ", but for those who were"}


def _client_sampler(plan: PrivacyPlan) -> str:
    level, cap = plan.client, plan.record.max_participations
    if level.cohort_size is not None:
        sampler = f"cohorts of {level.cohort_size} of {plan.clients} registered clients, without replacement"
    else:
        kept = "" if level.shares else ", empty ones included"
        sampler = f"Poisson cohorts of rate {level.rate:g} over {plan.clients} registered clients{kept}"
    if level.shares:
        sampler += f", aborted below {level.shares.minimum} survivors"
    if not level.cohorts_count:
        sampler += ", of which the bound makes no use"
    if level.separation > 1:
        sampler += f"; a client stays away for {level.separation - 1} rounds after each of its own"
    return sampler + ("" if cap >= plan.rounds else f"; a client that was in {cap} is left out of later ones")


def _delta_too_large(plan: PrivacyPlan, delta: float, unit: str) -> tuple[str, ...]:
    """A delta of one over the population lets a mechanism give one client away."""
    if unit != "client" or delta * plan.clients < 1.0:
        return ()
    return (
        f"a delta of {delta:g} is not below one over the {plan.clients} clients: one of them may be exposed",
    )


def _not_used(plan: PrivacyPlan) -> str:
    """What the accountant of the planned regime would say, had all of it been planned."""
    level = plan.client
    release = level.release(clients=plan.clients, rounds=plan.rounds, cap=plan.rounds)
    planned = account([release], level.delta)
    return (
        f", for whatever was chosen; had the even multiplier been fixed for all rounds, {planned.accountant} would say "
        f"{upper(planned.epsilon)}, which is not used, since it covers no choice"
    )


def _client_horizon(plan: PrivacyPlan) -> str:
    level = plan.client
    if level.mechanism == FILTERED:
        pays = level.filter()
        return (
            f"at most {plan.rounds} rounds, as long as a Rényi divergence of {pays.budget:.6g} at order "
            f"{pays.order:g}, fixed before the first one, pays for them, noise multipliers over the clip chosen "
            f"round by round ({level.noise:.6g} spends it evenly), clip {level.clip:g}"
        )
    one = f"{_participations(plan)} participations of one client"
    composed = f"{plan.rounds} rounds" if level.cohorts_count else one
    if level.mechanism == BANDED:
        composed = f"{plan.rounds} rounds as one release, with {one}"
    over = {
        LOCAL: "twice the clip",
        BANDED: "what one client moves all rounds by",
        DISTRIBUTED: "the bound on a rounded update",
    }.get(level.mechanism, "the clip")
    first = ", then one that follows the updates by noised counts" if level.mechanism == ADAPTIVE else ""
    return f"{composed}, noise multiplier {level.noise:g} over {over}, clip {level.clip:g}{first}"


def _client_arithmetic(plan: PrivacyPlan) -> str:
    level = plan.client
    if level.mechanism == DISTRIBUTED and level.shares is not None:
        return f"{level.shares.law} noise on whole numbers modulo 2^{level.shares.modulus}, drawn exactly"
    if level.mechanism in (CENTRAL, FILTERED, GROUPED):
        return f"Gaussian rounded to a grid of 2^-{level.grid_bits}"
    return "Gaussian rounded to a public grid"
