"""What a plan would let a run claim, and what the planner could not check."""

import math
from typing import Any

from fedsafe.privacy.claim import Claim
from fedsafe.privacy.planner import Plan
from fedsafe.privacy.planner_question import LONGEST, Question, long

_ADVERSARY = {
    "record": "the server and all other clients, who see each update of the client and when it took part",
    "client": "an outsider who sees every broadcast model, accepted or not, but neither cohorts nor updates",
}
_KNOWN = {
    "record": "anyone who sees each update of the client, and which records each batch had",
    "client": "an outsider who sees every broadcast model and every cohort, but no update",
}
_DIFFERENCE = {
    ("record", "zero-out"): "one record replaced by nothing; the number of records of each client is public",
    ("record", "add/remove"): "one record more or less; rates and divisors do not depend on their number",
    ("record", "replace-one"): "one record replaced by any other",
    ("client", "zero-out"): "one client's updates replaced by zero; the registered population is public",
    ("client", "add/remove"): "one client more or less; rates and divisors do not depend on their number",
    (
        "client",
        "replace-one",
    ): "one client's updates replaced by any others; the registered population is public",
}
_PLURAL = {"record": "records in one client", "client": "clients"}
_ASSUMED = {
    "record": (
        "each client runs DP-SGD as planned, and keeps its batches and noise to itself",
        "preprocessing uses the public schema alone",
    ),
    "client": ("the server is trusted: it sees each update and adds the noise",),
}
_NOT_COVERED = (
    "whether a run does what is planned here: its own claim says what was executed",
    "other runs on the same records, each of which has a budget of its own",
    "the choice of hyper-parameters, if earlier runs on the same records guided it",
    "metrics and counts that are released without noise",
)


def claim_of(plan: Plan) -> Claim:
    """The claim of a run that does as the plan says."""
    asked, accounted = plan.question, plan.accounted
    unit, persons = asked.unit, asked.per_person
    assumed = f"at most {persons} {_PLURAL[unit]} per person" if persons > 1 else f"one {unit} per person"
    known = not asked.amplified
    secret = unit == "client" and not known
    return Claim(
        unit=unit,
        epsilon=plan.epsilon,
        delta=asked.delta,
        adjacency=f"{accounted.adjacency} ({_difference(asked, accounted.adjacency)})",
        adversary=(_KNOWN if known else _ADVERSARY)[unit],
        cohort_secret=secret,
        release={
            "record": "every update that one client uploads, and so every model",
            "client": "every broadcast model",
        }[unit],
        sampler=_sampler(asked, known=known),
        accountant=accounted.accountant
        if persons == 1
        else f"{accounted.accountant}, for a group of {persons}",
        horizon=_horizon(asked, known=known),
        regime="planned",
        randomness="to be stated by the run; this figure takes it as ideal",
        arithmetic="to be stated by the run; this figure takes it as exact",
        assumptions=(assumed, *_ASSUMED[unit]),
        not_covered=_NOT_COVERED,
        group_epsilon=plan.group_epsilon if unit == "record" else None,
        known_cohorts_epsilon=asked.known_cost() if secret else None,
    )


def statement_of(plan: Plan) -> str:
    """The claim as a paragraph; or, where there is no bound, that none was found: there was noise all the same."""
    if math.isfinite(plan.epsilon):
        return claim_of(plan).statement()
    asked = plan.question
    many = f" for {asked.per_person} {_PLURAL[asked.unit]} of one person" if asked.per_person > 1 else ""
    return (
        f"At the {asked.unit} level, no finite bound on epsilon was found{many} at delta {asked.delta!r}, although "
        f"noise is added: {_horizon(asked, known=not asked.amplified)}. Plan more noise, fewer releases or a "
        "larger delta" + (", or let one person have less." if many else ".")
    )


def claim_json(plan: Plan) -> dict[str, Any]:
    """The claim as plain values; an infinite epsilon becomes null."""
    return {**claim_of(plan).to_json(), "statement": statement_of(plan)}


def warnings_of(plan: Plan) -> list[str]:
    """What whoever defends this epsilon will be asked about."""
    asked, found = plan.question, []
    name = {"record": "--records", "client": "--clients"}[asked.unit]
    if asked.population is None:
        found.append(f"delta was not checked: give {name} to compare it with 1/n")
    elif asked.delta >= 1.0 / asked.population:
        found.append(
            f"delta {asked.delta:g} is not below 1/{asked.population}: releasing one {asked.unit} outright would pass; "
            f"take {_below(asked.population):g} or less"
        )
    if plan.accounted.reason:
        found.append(f"the bound is {plan.accounted.accountant}: {plan.accounted.reason}")
    if asked.sampler != "none" and not asked.amplified:
        found.append(
            "the bound that makes no use of sampling is the smaller one, and is given: it holds although who takes "
            "part be known"
        )
    if plan.solved in ("steps", "rounds", "per_round", "participation") and asked.count == _last_short(asked):
        found.append(
            f"{plan.solved} stop short of {LONGEST} releases, beyond which the bound is a looser one by RDP: a few "
            "more may fit"
        )
    if math.isinf(plan.epsilon):
        found.append("no finite bound on epsilon was found: this is not a plan to defend")
    elif plan.epsilon >= 10.0:
        found.append(
            f"epsilon {plan.epsilon:.3g} is a weak promise: odds may change by a factor of exp({plan.epsilon:.3g})"
        )
    return found


def _below(population: int) -> float:
    """The largest power of ten below 1/n."""
    exponent = 0
    while 10.0**exponent >= 1.0 / population:
        exponent -= 1
    return float(10.0**exponent)


def _difference(question: Question, adjacency: str) -> str:
    one = _DIFFERENCE[question.unit, adjacency]
    return one if question.per_person == 1 else f"{question.per_person} times this, for one person: {one}"


def _last_short(question: Question) -> int:
    """The most releases that a PLD still counts, in whole rounds."""
    whole = 1 if question.steps is not None else question.steps_per_round
    return 0 if long(question.release()) else LONGEST // whole * whole


def _sampler(question: Question, *, known: bool) -> str:
    what = {"record": "batches", "client": "cohorts"}[question.unit]
    where = {"record": " inside the client", "client": ""}[question.unit]
    if question.sampler == "none":
        return f"{what} that are known, so that nothing is amplified"
    if question.sampler == "fixed":
        drawn = f"{what} of {question.size} out of {question.population}, without replacement{where}"
    else:
        drawn = f"Poisson {what} of rate {question.sampled:g}{where}, empty ones included"
    return f"{drawn}, of which the bound makes no use" if known else drawn


def _horizon(question: Question, *, known: bool) -> str:
    noise = f"noise multiplier {question.noise:g}"
    if question.unit == "client":
        return f"{question.participations if known else question.count} rounds, {noise}"
    if question.steps is not None or (question.rounds is None and question.participation is None):
        return f"{question.count} steps, {noise}"
    rounds = str(question.count // question.steps_per_round)
    return f"{rounds} participations of {question.steps_per_round} steps, {noise}"
