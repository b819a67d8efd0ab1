"""``fedsafe budget``: what a plan costs, or what meets a target, before anything is trained."""

import json
import math
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsafe.errors import ConfigError

if TYPE_CHECKING:
    from fedsafe.privacy.accounting import Adjacency
    from fedsafe.privacy.planner import Plan, Question


class Unit(StrEnum):
    """What epsilon protects."""

    RECORD = "record"
    CLIENT = "client"
    BOTH = "both"


class Sampling(StrEnum):
    """How records enter a batch, or clients a cohort."""

    POISSON = "poisson"
    FIXED = "fixed"
    NONE = "none"


class Neighbours(StrEnum):
    """What differs between neighbouring data sets."""

    ZERO_OUT = "zero-out"
    ADD_REMOVE = "add/remove"
    REPLACE_ONE = "replace-one"


_LEVEL = "One level"
_RECORDS = "Records"
_CLIENTS = "Clients"
_LENGTH = "Length"


def budget_command(
    unit: Annotated[Unit, typer.Option(help="What epsilon protects.")] = Unit.RECORD,
    epsilon: Annotated[float | None, typer.Option(help="The target.", rich_help_panel=_LEVEL)] = None,
    noise: Annotated[
        float | None,
        typer.Option(help="Noise multiplier: standard deviation over the clip.", rich_help_panel=_LEVEL),
    ] = None,
    delta: Annotated[
        float, typer.Option(help="Probability that the bound fails.", rich_help_panel=_LEVEL)
    ] = 1e-5,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Sampling rate of records in a step, or clients in a round.", rich_help_panel=_LEVEL
        ),
    ] = None,
    sampler: Annotated[
        Sampling,
        typer.Option(
            help="Poisson, of fixed size without replacement, or seen by the adversary.",
            rich_help_panel=_LEVEL,
        ),
    ] = Sampling.POISSON,
    adjacency: Annotated[
        Neighbours | None,
        typer.Option(help="What differs; zero-out unless sizes are fixed.", rich_help_panel=_LEVEL),
    ] = None,
    per_person: Annotated[
        int | None,
        typer.Option(
            help="Records in one client, or clients, of one person; epsilon is for all. 1 by default.",
            rich_help_panel=_LEVEL,
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Records in a batch, on average.", rich_help_panel=_RECORDS)
    ] = None,
    records: Annotated[
        int | None, typer.Option(help="Records of the client.", rich_help_panel=_RECORDS)
    ] = None,
    records_per_person: Annotated[
        int | None,
        typer.Option(help="With --unit both: records of one person in one client.", rich_help_panel=_RECORDS),
    ] = None,
    cohort: Annotated[
        int | None, typer.Option(help="Clients in a cohort, on average.", rich_help_panel=_CLIENTS)
    ] = None,
    clients: Annotated[int | None, typer.Option(help="Registered clients.", rich_help_panel=_CLIENTS)] = None,
    clients_per_person: Annotated[
        int | None, typer.Option(help="With --unit both: clients of one person.", rich_help_panel=_CLIENTS)
    ] = None,
    client_epsilon: Annotated[
        float | None, typer.Option(help="With --unit both: the clients' target.", rich_help_panel=_CLIENTS)
    ] = None,
    client_noise: Annotated[
        float | None, typer.Option(help="With --unit both: the server's noise.", rich_help_panel=_CLIENTS)
    ] = None,
    client_rate: Annotated[
        float | None, typer.Option(help="With --unit both: the rate of clients.", rich_help_panel=_CLIENTS)
    ] = None,
    client_delta: Annotated[
        float | None,
        typer.Option(
            help="With --unit both: the clients' delta, by default --delta.", rich_help_panel=_CLIENTS
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of DP-SGD in all.", rich_help_panel=_LENGTH)
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds.", rich_help_panel=_LENGTH)] = None,
    local_steps: Annotated[
        int | None, typer.Option(help="Steps in a round.", rich_help_panel=_LENGTH)
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(help="Local epochs in a round; in all, without --rounds.", rich_help_panel=_LENGTH),
    ] = None,
    participation: Annotated[
        int | None,
        typer.Option(
            help="Rounds that one client may take part in; all by default.", rich_help_panel=_LENGTH
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw epsilon along the run and against noise (SVG, PNG or PDF)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Give all but one of epsilon, noise, sampling, length and participation; the missing one is solved for.

    Without --epsilon, it prints what the plan costs.
    """
    from fedsafe.privacy.planner import Question, solve, solve_both

    both = unit is Unit.BOTH
    neighbours: Adjacency | None = None if adjacency is None else adjacency.value
    _refuse(
        unit,
        of_clients={"--cohort": cohort, "--client-epsilon": client_epsilon, "--client-noise": client_noise,
                    "--client-rate": client_rate, "--client-delta": client_delta},
        of_records={"--batch": batch, "--records": records, "--steps": steps, "--local-steps": local_steps,
                    "--epochs": epochs},
        per_person={"--per-person": per_person, "--records-per-person": records_per_person,
                    "--clients-per-person": clients_per_person},
    )  # fmt: skip
    if plot is not None:
        from fedsafe.cli.budget_plot import require_place

        require_place(plot)
    record = Question(
        unit="record", delta=delta, epsilon=epsilon, noise=noise, rate=rate, size=batch, population=records,
        steps=steps, rounds=rounds, per_round=local_steps, epochs=epochs, participation=participation,
        sampler=sampler.value, adjacency=neighbours,
        per_person=(records_per_person if both else per_person) or 1,
    )  # fmt: skip
    one = client_epsilon, client_noise, client_rate, client_delta
    central = (
        (epsilon, noise, rate, delta)
        if not both
        else (*one[:3], delta if client_delta is None else client_delta)
    )
    client = Question(
        unit="client", epsilon=central[0], noise=central[1], rate=central[2], delta=central[3], size=cohort,
        population=clients, rounds=rounds, participation=participation, sampler=sampler.value,
        adjacency=neighbours, per_person=(clients_per_person if both else per_person) or 1,
    )  # fmt: skip
    plans = list(solve_both(record, client)) if both else [solve(record if unit is Unit.RECORD else client)]
    if plot is not None:
        from fedsafe.cli.budget_plot import draw

        draw(plans, plot)
    if as_json:
        typer.echo(json.dumps(_summary(plans, plot), allow_nan=False))
    else:
        _print(plans, plot)


def _refuse(
    unit: Unit, of_clients: dict[str, Any], of_records: dict[str, Any], per_person: dict[str, Any]
) -> None:
    """Options of the other level, which would otherwise go unnoticed."""
    for name, value in per_person.items():
        if value is None:
            continue
        if (name == "--per-person") == (unit is Unit.BOTH):
            right = (
                "--records-per-person or --clients-per-person"
                if unit is Unit.BOTH
                else "--per-person instead"
            )
            raise ConfigError(f"{name} cannot be given with --unit {unit.value}: give {right}")
        if value < 1:
            raise ConfigError(f"{name} {value!r}: give a whole number, 1 or more")
    wrong = {
        Unit.RECORD: of_clients,
        Unit.CLIENT: {
            **of_records,
            **{name: value for name, value in of_clients.items() if name.startswith("--client-")},
        },
        Unit.BOTH: {"--steps": of_records["--steps"]},
    }[unit]
    given = [name for name, value in wrong.items() if value is not None]
    if given:
        advice = {
            Unit.RECORD: "they are for --unit client or both",
            Unit.CLIENT: "use --epsilon, --noise, --rate and --delta, and --rounds for the length",
            Unit.BOTH: "use --rounds with --local-steps or --epochs, so that both levels have the same rounds",
        }[unit]
        raise ConfigError(f"{', '.join(given)} cannot be given with --unit {unit.value}: {advice}")


def _summary(plans: "list[Plan]", plot: Path | None) -> dict[str, Any]:
    """One level's object; for both, one inside another, by unit."""
    levels: dict[str, dict[str, Any]] = {plan.question.unit: _level(plan) for plan in plans}
    drawn = {} if plot is None else {"plot": str(plot)}
    if len(plans) == 1:
        return {**next(iter(levels.values())), **drawn}
    return {
        "unit": "both",
        "epsilon": {unit: level["epsilon"] for unit, level in levels.items()},
        "claims": [level["claim"] for level in levels.values()],
        **levels,
        **drawn,
    }


def _level(plan: "Plan") -> dict[str, Any]:
    from fedsafe.privacy.planner_claims import claim_json, warnings_of

    return {
        "unit": plan.question.unit,
        "solved_for": plan.solved,
        "epsilon": plan.epsilon if math.isfinite(plan.epsilon) else None,
        "per_person": plan.question.per_person,
        **_numbers(plan.question),
        "accountant": plan.accounted.accountant,
        "fallback": plan.accounted.fallback,
        "delta_checked": plan.question.population is not None,
        "warnings": warnings_of(plan),
        "claim": claim_json(plan),
    }


def _numbers(question: "Question") -> dict[str, Any]:
    """Everything that was given or found, under the names of the field."""
    names = {"record": ("batch", "records"), "client": ("cohort", "clients")}[question.unit]
    return {
        "target": question.epsilon,
        "delta": question.delta,
        "noise": question.noise,
        "rate": question.sampled,
        names[0]: question.size,
        names[1]: question.population,
        "steps": question.count,
        "rounds": question.rounds,
        "participation": question.participation,
    }


def _print(plans: "list[Plan]", plot: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from fedsafe.privacy.planner_claims import statement_of, warnings_of

    table = Table("", *(plan.question.unit for plan in plans), box=None, pad_edge=False)
    rows: dict[str, list[str]] = {}
    for plan in plans:
        solved = plan.question.option(plan.solved).removeprefix("--").replace("-", " ")
        cells = {
            "solved for": solved,
            "epsilon": _bound(plan.epsilon),
            "epsilon for two of one person": "" if plan.group_epsilon is None else _bound(plan.group_epsilon),
            "per person": "" if plan.question.per_person == 1 else str(plan.question.per_person),
            **{name: _shown(value) for name, value in _numbers(plan.question).items()},
            "adjacency": plan.accounted.adjacency,
            "accountant": plan.accounted.accountant,
        }
        for name, value in cells.items():
            rows.setdefault(name, [""] * len(plans))[plans.index(plan)] = value
    for name, values in rows.items():
        if any(values):
            table.add_row(name, *values)
    Console(file=sys.stdout, width=140).print(table)
    for plan in plans:
        typer.echo(f"\n{statement_of(plan)}")
        for warning in warnings_of(plan):
            typer.echo(f"warning ({plan.question.unit}): {warning}")
    if plot is not None:
        typer.echo(f"\nplot    {plot}")


def _bound(value: float) -> str:
    from fedsafe.privacy.claim import upper

    return upper(value) if math.isfinite(value) else "no finite bound found"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
