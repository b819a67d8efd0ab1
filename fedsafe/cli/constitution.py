"""``fedsafe constitution check|ratify|guard``: read principles, vote on them, hold a text generator to them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsafe.errors import ConfigError

if TYPE_CHECKING:
    from fedsafe.alignment.constitution import Article, Constitution
    from fedsafe.alignment.ratification import Ratification, Tally
    from fedsafe.findings import Finding

constitution_app = typer.Typer(
    help="Check, ratify and enforce a list of principles (docs/alignment.md).", no_args_is_help=True
)
_File = Annotated[Path, typer.Argument(help="The constitution, a TOML file.", metavar="FILE")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@constitution_app.callback()
def _group() -> None:
    """Check, ratify and enforce a list of principles."""


@constitution_app.command("check")
def check_command(file: _File, as_json: _Json = False) -> None:
    """Read a constitution, with every checker and metric that it names; a fault ends with one line.

    The exit code is 1 if a principle was changed since it was ratified.
    """
    from fedsafe.alignment.constitution import read_constitution
    from fedsafe.alignment.ratified_file import rejected, stale
    from fedsafe.assess.constitution import constitution_requirements

    constitution = read_constitution(file)
    for scope in ("model", "response"):
        try:
            constitution_requirements(constitution, scope)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error
    changed = stale(constitution)
    if as_json:
        body = {
            **constitution.to_table(),
            "digest": constitution.digest,
            "changed_since_ratified": changed,
            "rejected": rejected(constitution),
        }
        typer.echo(json.dumps(body, allow_nan=False))
    else:
        title = f"{constitution.title}, " if constitution.title else ""
        typer.echo(f"{title}version {constitution.version}, digest {constitution.digest[:16]}")
        for article in constitution.articles:
            typer.echo(f"  {article.id}: {article.text}")
            typer.echo(f"    {_rule(article)}; {_standing(article, article.id in changed)}")
        for line in _rejected_lines(constitution):
            typer.echo(line)
    if changed:
        raise typer.Exit(1)


@constitution_app.command("ratify")
def ratify_command(
    file: _File,
    votes: Annotated[
        Path, typer.Option(metavar="CSV", help="A line for each voter, a column for each principle's id.")
    ],
    epsilon: Annotated[float, typer.Option(help="Of all that one voter sends.")] = 1.0,
    each: Annotated[int, typer.Option(help="Principles that each voter is asked about.")] = 1,
    groups: Annotated[str | None, typer.Option(metavar="COLUMN", help="Group of each voter.")] = None,
    passing: Annotated[bool, typer.Option("--passing", help="Voters may pass.")] = False,
    threshold: Annotated[float, typer.Option(help="Share that has to agree in every group.")] = 0.5,
    confidence: Annotated[float, typer.Option(help="Two-sided.")] = 0.95,
    seed: Annotated[
        int | None, typer.Option(help="Randomise from this seed: to be repeated, with no guarantee.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write here, not into the constitution itself.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Vote under local differential privacy, in a simulation of the voters, and write `ratified_by`.

    Only randomised answers are counted. Real voters call `fedsafe.alignment.vote` where they are.
    """
    from fedsafe.alignment.constitution import read_constitution
    from fedsafe.alignment.ratification import ratify
    from fedsafe.alignment.ratified_file import read_opinions, write_ratified
    from fedsafe.alignment.voting import Ballot, simulate_votes
    from fedsafe.privacy.claim import SEED_KEY
    from fedsafe.rng import GENERATOR, key_from_seed, new_key

    if not 0 < confidence < 1:
        raise ConfigError(f"--confidence {confidence} is not between 0 and 1; such as 0.95")
    constitution = read_constitution(file)
    ballot = Ballot.of(constitution, epsilon=epsilon, each=each, passing=passing)
    opinions = read_opinions(votes, ballot, groups)
    if seed is not None and seed < 0:
        raise ConfigError(f"--seed is {seed}; it is a whole number from 0")
    key = new_key() if seed is None else key_from_seed(seed)
    asked, answers = simulate_votes(ballot, opinions.positions, key)
    found = ratify(
        ballot,
        asked,
        answers,
        groups=opinions.groups,
        threshold=threshold,
        confidence=confidence,
        randomness=f"{GENERATOR}, one key of the operating system for all simulated voters"
        if seed is None
        else SEED_KEY,
    )
    tables = [principle.to_table(epsilon, found.voters) for principle in found.principles]
    target = write_ratified(file, tables, out)
    if as_json:
        typer.echo(json.dumps(_ratification(found, tables), allow_nan=False))
        return
    for line in _ratification_lines(found):
        typer.echo(line)
    typer.echo(f"written {target}")


@constitution_app.command("guard")
def guard_command(
    file: _File,
    prompts: Annotated[Path, typer.Option(metavar="FILE", help="One prompt a line.")],
    generator: Annotated[
        str, typer.Option(metavar="NAME", help="'stories', or 'module:function' of a generate(prompt).")
    ] = "stories",
    labelled: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Labelled texts, for the checkers' own errors.")
    ] = None,
    best_of: Annotated[int, typer.Option(help="Texts of one attempt.")] = 4,
    attempts: Annotated[int, typer.Option(help="Attempts before a refusal.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the first prompt; the next ones follow.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every response as a line of JSON.")
    ] = None,
    read: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Answers of this guard that somebody read and labelled."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Hold a text generator to a constitution over a list of prompts, and report what its answers keep.

    The true share of answers that break a principle is known where they were read: write them with --out, label a
    random part (columns prompt, text, and a principle's id or "any"), and give it as --read. The exit code is 1 if the
    bound of a "must" is not met, or not known to be.
    """
    import numpy as np

    from fedsafe.alignment.checker_errors import read_labelled
    from fedsafe.alignment.compliance import ANY, compliance
    from fedsafe.alignment.constitution import read_constitution
    from fedsafe.alignment.guard import GuardedGenerator, instruct, lead_in
    from fedsafe.alignment.stories import StoryWriter
    from fedsafe.assess.constitution import constitution_requirements
    from fedsafe.assess.requirements import judge
    from fedsafe.extensions import imported

    if seed < 0:
        raise ConfigError(f"--seed is {seed}; it is a whole number from 0")
    constitution = read_constitution(file)
    rules = constitution_requirements(constitution, "response")
    ids = [article.id for article in constitution.articles]
    texts = [] if labelled is None else read_labelled(labelled, ids)
    answers = [] if read is None else read_labelled(read, [*ids, ANY])
    asked = _prompts(prompts)
    own = generator == "stories"
    guard = GuardedGenerator(
        StoryWriter.load() if own else imported(generator, "generator"),
        constitution,
        best_of=best_of,
        attempts=attempts,
        restate=lead_in if own else instruct,
    )
    responses = [guard(prompt, seed=seed + number) for number, prompt in enumerate(asked)]
    findings = compliance(
        constitution,
        responses,
        texts,
        answers,
        rng=np.random.default_rng(seed),
        data=f"prompts of {prompts.name}",
    )
    verdicts = [judge(rule, findings) for rule in rules]
    if out is not None:
        lines = [json.dumps(response.to_json(), ensure_ascii=False) for response in responses]
        # Half of a pair of surrogates, which a generator may write, stays as JSON's own escape.
        out.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
    if as_json:
        body = {
            "constitution": constitution.digest,
            "findings": [finding.to_json() for finding in findings],
            "requirements": [verdict.to_json(0) for verdict in verdicts],
        }
        typer.echo(json.dumps(body, allow_nan=False))
    else:
        for line in _compliance_lines(findings):
            typer.echo(line)
        for verdict in verdicts:
            rule = verdict.requirement
            typer.echo(f"{rule.severity} {rule.principle}: {verdict.verdict} ({verdict.reason})")
        failures = sorted({line for response in responses for line in response.failures})
        for failure in failures:
            typer.echo(f"failed closed: {failure}")
        for line in _rejected_lines(constitution):
            typer.echo(line)
    if any(verdict.blocks for verdict in verdicts):
        raise typer.Exit(1)


def _rejected_lines(constitution: "Constitution") -> list[str]:
    from fedsafe.alignment.ratified_file import rejected

    return [
        f"warning: a vote has rejected {name}, and it is still kept to: remove it, or vote again"
        for name in rejected(constitution)
    ]


def _prompts(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the prompts {path} cannot be read: {error}") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise ConfigError(f"{path} holds no prompt; write one a line")
    return found


def _rule(article: "Article") -> str:
    if article.scope == "model":
        where = "".join(f", {key} {value}" for key, value in article.where.items())
        rule = f"{article.metric} {article.op} {article.threshold:g}{where}"
    else:
        checker = article.checker if isinstance(article.checker, str) else article.checker["name"]
        bound = "" if article.bound is None else f", at most {100 * article.bound:g} % of the answers"
        rule = f"{article.scope}: {checker}{bound}"
    return f"{article.severity} {article.action}, {rule}"


def _standing(article: "Article", changed: bool) -> str:
    if not article.ratified_by:
        return "not voted on"
    status = article.ratified_by.get("status", "voted on")
    return f"{status}, but changed since: vote again" if changed else str(status)


def _ratification(found: "Ratification", tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    claim = found.claim
    return {
        "voters": found.voters,
        "claim": {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(claim).items()
        },
        "principles": [
            {
                "id": principle.id,
                **table,
                "groups": {
                    name: {"votes": part.votes, "agree": part.agree, "interval": list(part.interval)}
                    for name, part in principle.groups.items()
                },
            }
            for principle, table in zip(found.principles, tables, strict=True)
        ],
    }


def _ratification_lines(found: "Ratification") -> list[str]:
    lines = []
    for principle in found.principles:
        lines.append(f"{principle.id}: {principle.status}; agree {_share(principle.everybody)}")
        for name, part in principle.groups.items():
            lines.append(f"    {name}: agree {_share(part)}")
        if principle.groups and principle.product is not None:
            value, (low, high) = principle.product
            lines.append(f"    consensus of the groups (product): {value:.3f} [{low:.3f}, {high:.3f}]")
        if principle.minority:
            lines.append(f"    the minority: {', '.join(principle.minority)}")
    claim = found.claim
    lines.append(
        f"epsilon {claim.epsilon:g} for each of {found.voters} voters, against {claim.adversary}; {claim.randomness}"
    )
    lines.append(f"not covered: {'; '.join(claim.not_covered)}")
    return lines


def _share(part: "Tally") -> str:
    low, high = part.interval
    value = "unknown" if part.agree is None else f"{min(1.0, max(0.0, part.agree)):.3f}"
    return f"{value} [{low:.3f}, {high:.3f}] at {100 * part.confidence:.4g} %, {part.votes} votes"


def _compliance_lines(findings: "Sequence[Finding]") -> list[str]:
    lines = []
    for finding in findings:
        where = ", ".join(str(value) for value in finding.where.values())
        name = f"{finding.metric.removeprefix('constitution.')} ({where})" if where else finding.metric
        if finding.value is None:
            lines.append(f"{name}: {finding.status}, {finding.reason}")
            continue
        ends = "" if finding.interval is None else " [{:.3f}, {:.3f}]".format(*finding.interval)
        lines.append(f"{name}: {finding.value:.3f}{ends}, n = {finding.n} {finding.n_unit}")
    return lines
