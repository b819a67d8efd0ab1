"""What a plan would let a run claim, and what the planner could not check."""

from fedsafe.privacy.accounting import account
from fedsafe.privacy.claim import Claim
from fedsafe.privacy.planner import Plan, Question

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
    plural = {"record": "records in one client", "client": "clients"}[unit]
    assumed = f"at most {persons} {plural} per person" if persons > 1 else f"one {unit} per person"
    secret = unit == "client" and asked.sampler != "none"
    return Claim(
        unit=unit,
        epsilon=plan.epsilon,
        delta=asked.delta,
        adjacency=f"{accounted.adjacency} ({_difference(asked, accounted.adjacency)})",
        adversary=(_KNOWN if asked.sampler == "none" else _ADVERSARY)[unit],
        cohort_secret=secret,
        release={
            "record": "every update that one client uploads, and so every model",
            "client": "every broadcast model",
        }[unit],
        sampler=_sampler(asked),
        accountant=accounted.accountant
        if persons == 1
        else f"{accounted.accountant}, for a group of {persons}",
        horizon=_horizon(asked),
        regime="planned",
        randomness="to be stated by the run; this figure takes it as ideal",
        arithmetic="to be stated by the run; this figure takes it as exact",
        assumptions=(assumed, *_ASSUMED[unit]),
        not_covered=_NOT_COVERED,
        group_epsilon=plan.group_epsilon if unit == "record" else None,
        known_cohorts_epsilon=known_cohorts_epsilon(asked) if secret and persons == 1 else None,
    )


def known_cohorts_epsilon(question: Question) -> float:
    """What is left for a client that takes part as often as it may, if cohorts became known: nothing is amplified."""
    seen = Question(
        unit="client",
        delta=question.delta,
        noise=question.noise,
        rounds=question.rounds,
        participation=question.participation,
        sampler="none",
    )
    return account([seen.release()], question.delta).epsilon


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
    if plan.epsilon >= 10.0:
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


def _sampler(question: Question) -> str:
    what = {"record": "batches", "client": "cohorts"}[question.unit]
    where = {"record": " inside the client", "client": ""}[question.unit]
    if question.sampler == "none":
        return f"{what} that are known, so that nothing is amplified"
    if question.sampler == "fixed":
        return f"{what} of {question.size} out of {question.population}, without replacement{where}"
    return f"Poisson {what} of rate {question.sampled:g}{where}, empty ones included"


def _horizon(question: Question) -> str:
    noise = f"noise multiplier {question.noise:g}"
    if question.unit == "client":
        rounds = f"{question.count} rounds" if question.sampler == "none" else f"{question.rounds} rounds"
        return f"{rounds}, {noise}"
    if question.steps is not None or (question.rounds is None and question.participation is None):
        return f"{question.count} steps, {noise}"
    rounds = str(question.count // question.steps_per_round)
    return f"{rounds} participations of {question.steps_per_round} steps, {noise}"
