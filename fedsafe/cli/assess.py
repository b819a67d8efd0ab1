"""``fedsafe assess RUN|MODEL``: judge a model apart from the rounds of a run, with an exit code for a pipeline."""

import json
import sys
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsafe.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedsafe.assess import Assessor, Cost, Requirement
    from fedsafe.runs.assessing import Judged, Opened
    from fedsafe.runs.suites import Suites

_REQUIREMENT_FAILED = 3
_MARKS = {
    "pass": "green",
    "fail": "red",
    "undecided": "yellow",
    "unmeasured": "yellow",
    "unreliable": "yellow",
}


class TierName(StrEnum):
    """How much is spent."""

    CHEAP = "cheap"
    FULL = "full"


def assess_command(
    target: Annotated[
        str,
        typer.Argument(
            help="A run folder, or 'module:function' that returns a torch.nn.Module.", metavar="RUN|MODEL"
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="What to judge a MODEL on: a name, an import path, or a TOML file with `task`.",
        ),
    ] = None,
    round: Annotated[
        int | None, typer.Option(help="Whose model of a RUN; the accepted one if left out.")
    ] = None,
    tier: Annotated[TierName, typer.Option(help="How much to spend.")] = TierName.FULL,
    only: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="These assessors, in place of the configured ones.")
    ] = None,
    require: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Requirements: a TOML file of tables [[require]]; a RUN's own if left out."
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Suites: adversarial, bias, privacy, alignment, all, a TOML file or an import path. --require FILE "
            "replaces their thresholds.",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the suites' cases here, as JUnit XML.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the public randomness, for a MODEL.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write findings and a page here; RUN/assessments/... if left out."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be spent, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Judge the accepted model of a run, or any module, and hold it to requirements.

    The exit code is 3 where a `must` is not met: failed, undecided or unmeasured. Of a suite, what is not there, such
    as a column of that name, is skipped, but a suite of which everything is skipped is not passed.
    """
    if suite is not None and only is not None:
        raise ConfigError("--suite names its own assessors: leave --only out")
    if junit is not None and suite is None:
        raise ConfigError(
            "--junit writes the cases of a suite: name one with --suite, for example --suite all"
        )
    # What the target prints is no part of the result.
    with redirect_stdout(sys.stderr):
        from fedsafe.runs.assessing import judge_subject, requirements_of

        rules = None if require is None else requirements_of(require)
        named = None if only is None else _named(only)
        suites = None if suite is None else _suites(suite, rules)
        opened = _open(target, task, round, seed)
        chosen = opened.assessors if named is None else named
        chosen = chosen if suites is None else suites.assessors
        if not plan:
            judged = (
                judge_subject(opened, assessors=chosen, requirements=rules, tier=tier.value)
                if suites is None
                else suites.judge(opened, tier.value)
            )
    if plan:
        _say_plan(opened, chosen, tier, as_json=as_json)
        return
    folder = _folder(opened, out, tier, "" if suites is None else suites.label)
    body = _body(opened, judged, tier)
    if folder is not None:
        _write(folder, body)
    if junit is not None:
        _write_junit(junit, opened, body)
    if as_json:
        typer.echo(json.dumps({**body, "written": None if folder is None else str(folder)}, allow_nan=False))
    else:
        _show(body)
        if folder is not None:
            typer.echo(f"written  {folder}")
    blocking = [verdict for verdict in body["requirements"] if verdict["blocks"]]
    if blocking:
        first = blocking[0]
        sys.stderr.write(
            f"fedsafe: {len(blocking)} requirement(s) not met, first: {first['metric']} {first['op']} "
            f"{first['threshold']:g} is {first['verdict']} ({first['reason']})\n"
        )
        sys.exit(_REQUIREMENT_FAILED)


def _open(target: str, task: str | None, round: int | None, seed: int) -> "Opened":
    from fedsafe.runs.assessing import open_module, open_subject

    if Path(target).exists() or ":" not in target:
        if task is not None:
            raise ConfigError(f"{target} is a run, which has its own task: leave out --task")
        return open_subject(target, round)
    if round is not None:
        raise ConfigError(f"{target} is a model, and has no rounds: leave out --round")
    return open_module(target, task, seed)


def _named(only: str) -> "list[Assessor]":
    from fedsafe.assess import ready_assessors

    names = [name.strip() for name in only.split(",") if name.strip()]
    if not names:
        raise ConfigError("--only names no assessor, for example --only performance,fairness")
    return ready_assessors(names)


def _suites(named: str, rules: "Sequence[Requirement] | None") -> "Suites":
    from fedsafe.assess.suites import ALL, find_suites
    from fedsafe.runs.suites import Suites

    return Suites.of(find_suites(named), rules, together=ALL in named.split(","))


def _write_junit(path: Path, opened: "Opened", body: dict[str, Any]) -> None:
    from fedsafe.report.junit import render_junit
    from fedsafe.runs.suites import model_digest

    suites: dict[str, list[dict[str, Any]]] = {}
    for line in body["requirements"]:
        suites.setdefault(line["suite"], []).append(line)
    claims = [
        f"epsilon {claim['epsilon']} at delta {claim['delta']} for one {claim['unit']}, against {claim['adversary']}"
        for claim in opened.subject.claims
    ]
    about = {
        "model": model_digest(opened),
        "target": body["target"],
        "round": body["round"],
        "tier": body["tier"],
        "task": body["task"],
        "claim": " | ".join(claims) or "none",
    }
    text = render_junit(suites, properties=about, seconds=sum(body["seconds"].values()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _say_plan(opened: "Opened", chosen: "Any", tier: TierName, *, as_json: bool) -> None:
    from dataclasses import asdict

    from fedsafe.assess import plan_assessors

    costs: dict[str, Cost] = plan_assessors(opened.subject, chosen, tier.value)
    if as_json:
        plain = {name: asdict(cost) for name, cost in costs.items()}
        typer.echo(json.dumps({"target": opened.name, "tier": tier.value, "plan": plain}))
        return
    for name, cost in costs.items():
        passes = f"{cost.forward:,} forward and {cost.backward:,} backward passes of an example"
        typer.echo(f"{name:<18}{passes}")
        typer.echo(f"{'':<18}{cost.description}")


def _folder(opened: "Opened", out: Path | None, tier: TierName, suites: str) -> Path | None:
    if out is not None or opened.folder is None:
        return out
    return opened.folder / "assessments" / f"round-{opened.subject.round:05d}-{tier.value}{suites}"


def _body(opened: "Opened", judged: "Judged", tier: TierName) -> dict[str, Any]:
    from fedsafe.findings import brackets
    from fedsafe.records import to_plain

    number = opened.subject.round
    findings = [
        {"round": number, "assessor": name, **finding.to_json()}
        for name, group in judged.findings.items()
        for finding in group
    ]
    # An assessor may read more than the evaluation records.
    released = sorted({str(finding["released"]) for finding in findings if finding["released"]})
    body: dict[str, Any] = to_plain(
        {
            "target": opened.name,
            "round": number,
            "tier": tier.value,
            "task": opened.subject.task.name,
            "evaluation": opened.subject.evaluation_name,
            "released": "; ".join(released) or None,
            "passed": judged.passed,
            "requirements": judged.lines(number),
            "brackets": [bracket.to_json() for bracket in brackets(findings)],
            "seconds": judged.seconds,
            "findings": findings,
        }
    )
    return body


def _write(folder: Path, body: dict[str, Any]) -> None:
    from fedsafe.records import dumps
    from fedsafe.report.assessment import render_assessment

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {folder} is a file: name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("findings", "requirements"):
        text = "".join(f"{dumps(line)}\n" for line in body[name])
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    rest = {key: entry for key, entry in body.items() if key not in ("findings", "requirements")}
    (folder / "assessment.json").write_text(f"{json.dumps(rest, indent=1)}\n", encoding="utf-8")
    of_round = f", round {body['round']}" if body["round"] else ""
    page = render_assessment(
        f"{body['target']}{of_round}",
        f"{body['tier'].capitalize()} tier, on {body['evaluation']}.",
        body["findings"],
        body["requirements"],
    )
    (folder / "assessment.html").write_text(page, encoding="utf-8")


def _case(verdict: dict[str, Any]) -> str:
    principle = f"[{verdict['principle']}] " if verdict.get("principle") else ""
    return f"[{verdict['suite']}: {verdict['case']}] " if "case" in verdict else principle


def _show(body: dict[str, Any]) -> None:
    """A scorecard: brackets first, then every finding, then the requirements."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fedsafe.report.assessment import bracket_rows, finding_lines

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(f"{body['target']}: {body['task']}, {body['tier']} tier, on {body['evaluation']}")
    rows = bracket_rows(body["findings"])
    if rows:
        table = Table("bracket", "at least", "at most", "clean", "", box=None, title_justify="left")
        for row in rows:
            crossed = "the ends cross; " if row.status == "fail" else ""
            table.add_row(row.what, row.low, row.high, row.clean, Text(crossed + row.note, style="dim"))
        console.print(table)
    table = Table("assessor", "finding", "value", "", box=None)
    last = ""
    for assessor, what, value, detail, status in finding_lines(body["findings"]):
        shown = value if status == "measured" else status.replace("_", " ")
        style = _MARKS.get(status, "")
        table.add_row(
            assessor if assessor != last else "", what, Text(shown, style=style), Text(detail, style="dim")
        )
        last = assessor
    console.print(table)
    if body["released"]:
        console.print(f"let out of private data, and in no claim: {body['released']}", soft_wrap=True)
    for verdict in body["requirements"]:
        console.print(
            Text.assemble(
                f"{verdict['severity']} {_case(verdict)}{verdict['metric']} {verdict['op']} "
                f"{verdict['threshold']:g}: ",
                ("skipped", "dim")
                if verdict.get("result") == "skip"
                else (verdict["verdict"], _MARKS.get(verdict["verdict"], "")),
                (f"  {verdict['reason']}", "dim"),
            ),
            soft_wrap=True,
        )
    total = sum(body["seconds"].values())
    slowest = sorted(body["seconds"].items(), key=lambda item: -item[1])[:3]
    named = ", ".join(f"{name} {spent:.1f}" for name, spent in slowest)
    console.print(f"{total:.1f} s in all ({named})")
