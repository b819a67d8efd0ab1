"""What a question lacks, and what is wrong with it."""

import math

from fedsafe.errors import ConfigError
from fedsafe.privacy.planner_question import Question
from fedsafe.privacy.planner_search import MOST

# What the configuration of a run accepts, and what the accountant resolves.
_LEAST_DELTA = 1e-12
_LEAST_NOISE, _MOST_NOISE = 0.1, 1e5
_LEAST_RATE = 1e-12
_LEAST_EPSILON = 1e-6
_MOST_POPULATION = 10**12


def missing_of(question: Question) -> str:
    """The one thing that is missing.

    Raises:
        ConfigError: Nothing or too much is.
    """
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


def check(question: Question) -> None:
    """Refuse numbers out of range, those that contradict each other, and what a run would refuse.

    Raises:
        ConfigError: One line about the first.
    """
    option = question.option
    if not 0.0 < question.delta < 1.0:
        raise ConfigError(
            f"--delta {question.delta!r} is no probability: give one above 0 and below 1, such as 1e-5"
        )
    if question.delta < _LEAST_DELTA:
        raise ConfigError(f"--delta {question.delta!r} is refused by runs: give {_LEAST_DELTA:g} or more")
    if question.epsilon is not None and not 0.0 < question.epsilon < math.inf:
        raise ConfigError(f"{option('epsilon')} {question.epsilon!r} is no target: give a positive number")
    if question.epsilon is not None and question.epsilon < _LEAST_EPSILON:
        raise ConfigError(
            f"{option('epsilon')} {question.epsilon!r} is below what the accountant resolves: give "
            f"{_LEAST_EPSILON:g} or more"
        )
    if question.noise is not None and not 0.0 < question.noise < math.inf:
        raise ConfigError(
            f"{option('noise')} {question.noise!r} protects nothing: give a positive noise multiplier"
        )
    if question.noise is not None and not _LEAST_NOISE <= question.noise <= _MOST_NOISE:
        raise ConfigError(
            f"{option('noise')} {question.noise!r} is refused by runs: give a noise multiplier from "
            f"{_LEAST_NOISE:g} to {_MOST_NOISE:.0f}"
        )
    if question.rate is not None and not 0.0 < question.rate <= 1.0:
        raise ConfigError(
            f"{option('rate')} {question.rate!r} is no sampling rate: give one above 0, and at most 1"
        )
    if question.rate is not None and question.rate < _LEAST_RATE:
        raise ConfigError(
            f"{option('rate')} {question.rate!r} is below what the accountant resolves: give {_LEAST_RATE:g} or more"
        )
    for name in ("size", "population", "steps", "rounds", "per_round", "participation", "per_person"):
        value = getattr(question, name)
        most = _MOST_POPULATION if name in ("size", "population") else MOST
        if value is not None and value < 1:
            raise ConfigError(f"{option(name)} {value!r}: give a whole number, 1 or more")
        if value is not None and value > most:
            raise ConfigError(f"{option(name)} {value:.3g} is too many: give {most} or fewer")
    if question.epochs is not None and not 0.0 < question.epochs <= MOST:
        raise ConfigError(f"--epochs {question.epochs!r}: give a positive number, {MOST} or less")
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
        capped = question.participation is not None and (
            question.rounds is None or question.participation < question.rounds
        )
        if question.unit == "client" and capped:
            raise ConfigError(
                f"cohorts of a fixed size cannot leave a client out after {question.participation} rounds, since who "
                "is left out tells about the others: leave out --participation, or draw Poisson cohorts"
            )


def check_length(question: Question) -> None:
    """Refuse more releases than any run makes.

    Raises:
        ConfigError: There are more than 10^8.
    """
    if question.count > MOST:
        raise ConfigError(
            f"the {question.unit} level would take more than {MOST} steps: lower --rounds, --epochs or --local-steps"
        )
