"""``fedsafe audit CONFIG``: train with canaries in it, and set what they prove beside what is accounted for."""

import json
import sys
from collections.abc import Callable
from decimal import ROUND_FLOOR
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedsafe.audit import AuditReport, Look


class CanaryKind(StrEnum):
    """What the canaries are."""

    GRADIENT = "gradient"
    INPUT = "input"
    CLIENT = "client"


_ALARM = 4


def audit_command(
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file; the default experiment if left out.")
    ] = None,
    kind: Annotated[
        CanaryKind, typer.Option(help="Records with a chosen gradient, mislabelled records, or clients.")
    ] = CanaryKind.GRADIENT,
    canaries: Annotated[int, typer.Option(help="How many; each is in with probability one half.")] = 1000,
    every: Annotated[
        int | None,
        typer.Option(help="Rounds between two looks; assess.every by default, 0 for the end alone."),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of all bounds together.")] = 0.95,
    delta: Annotated[
        float | None, typer.Option(help="At which bounds are compared; the plan's, or 0.01/canaries if less.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override an option.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of partition and initial weights.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Train a configured run with canaries in it: a lower bound on epsilon beside the accounted upper bound.

    Nothing is released or recorded. The exit code is 4 where the two cross.
    """
    from fedsafe.runs.config import read_config

    overrides = [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]
    resolved = read_config(config, overrides)
    every = resolved.assess.every if every is None else every or None

    from fedsafe.audit import audit_run
    from fedsafe.report.formats import epsilon
    from fedsafe.runs.audit_setting import setting_of
    from fedsafe.runs.compose import compose
    from fedsafe.runs.planning import plan_and_claims

    say: Callable[[str], None] = (lambda text: None) if as_json else typer.echo
    say("reading data, calibrating noise ...")
    parts = compose(resolved)
    planned = plan_and_claims(parts, key_from_seed=False)
    rounds = planned.plan.rounds

    def on_look(look: "Look") -> None:
        say(f"round {look.round:3d}/{rounds}  {_line(look, epsilon)}")

    report = audit_run(
        setting_of(parts, planned.plan),
        kind=kind.value,
        canaries=canaries,
        every=every,
        confidence=confidence,
        delta=delta,
        seed=resolved.seed,
        on_look=on_look,
    )
    alarm = report.alarm()
    if as_json:
        claims = [claim | {"audit": report.warning} for claim in planned.claims]
        typer.echo(json.dumps({**report.to_json(), "claims": claims}, allow_nan=False))
    else:
        _close(report)
    if alarm is not None:
        sys.stderr.write(f"fedsafe: {alarm}\n")
        sys.exit(_ALARM)


def _line(look: "Look", epsilon: Callable[..., str]) -> str:
    found = look.bound
    cosines = look.cosines
    estimate = "" if cosines is None else f", cosine estimate {epsilon(cosines.sum_of_rounds.epsilon)}"
    guessed = f"{found.right} of {found.guesses} guesses right" if found.guesses else "nothing proved"
    return (
        f"epsilon > {epsilon(found.epsilon, ROUND_FLOOR)} ({guessed}), accounted {epsilon(look.accounted)}{estimate}"
        + ("  ALARM" if look.crossed else "")
    )


def _close(report: "AuditReport") -> None:
    from fedsafe.report.formats import epsilon

    last = report.looks[-1]
    at = "" if report.delta == report.claimed_delta else f" (the plan's is {report.claimed_delta:g})"
    typer.echo(
        f"audited    epsilon per {report.unit} at delta {report.delta:g}{at}, against {report.adversary}"
    )
    typer.echo(
        f"lower      {epsilon(last.bound.epsilon, ROUND_FLOOR)} with confidence {report.confidence:g} over all looks"
    )
    typer.echo(
        f"           {epsilon(last.gaussian, ROUND_FLOOR)} if the trade-off curve is a Gaussian mechanism's"
    )
    typer.echo(f"           {epsilon(last.membership, ROUND_FLOOR)} if the canaries' scores are independent")
    if last.cosines is not None:
        summed, largest = last.cosines.sum_of_rounds, last.cosines.largest_of_rounds
        typer.echo(
            f"           {epsilon(last.cosines.bound, ROUND_FLOOR)} if the canaries' cosines are independent"
        )
        typer.echo(
            f"estimates  {epsilon(summed.epsilon)} by the cosine with all rounds, {epsilon(largest.epsilon)} by the "
            "largest with one: neither bound"
        )
    typer.echo(f"upper      {epsilon(last.accounted)} accounted for")
    typer.echo(f"This was {report.warning}.")
