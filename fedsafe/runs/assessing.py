"""Judge a model apart from the rounds of a run: the released one of a run folder, or any module by import path."""

import copy
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedsafe.assess import (
    DEFAULT,
    Assessor,
    Requirement,
    Subject,
    Tier,
    Verdict,
    judge,
    ready_assessors,
    run_assessors,
)
from fedsafe.assess.calling import check_fit
from fedsafe.assess.privacy.visible import rounds_before
from fedsafe.data import Task, load_task
from fedsafe.errors import ConfigError, ModelError, RecordError
from fedsafe.extensions import call, search
from fedsafe.findings import Finding
from fedsafe.params import fingerprint
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.records import Round, Start
from fedsafe.runs.compose import compose
from fedsafe.runs.config import AssessConfig, Config, EngineConfig, parse_config
from fedsafe.runs.given import GIVEN_IN_PYTHON, IMPORT_FOLDERS
from fedsafe.runs.judge import Judge, assessor_names, read_requirements
from fedsafe.store import RunFolder


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What is to be judged, and how it would be if nothing else is said.

    Attributes:
        name: Of the run folder, or the import path.
        subject: The model and what judging it needs.
        assessors: Of the run's configuration, or those that a run has by default.
        requirements: Of the run's configuration; none for a module.
        seed: Of the public randomness.
        folder: The run folder; None for a module.
    """

    name: str
    subject: Subject
    assessors: Sequence[Assessor]
    requirements: Sequence[Requirement] = ()
    seed: int = 0
    folder: Path | None = None

    @property
    def model(self) -> nn.Module:
        """The model, in evaluation mode."""
        return self.subject.model


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What was found.

    Attributes:
        findings: By assessor.
        verdicts: One for each requirement, each at the requirement's own confidence: this is one look.
        seconds: That each assessor took.
    """

    findings: dict[str, list[Finding]]
    verdicts: list[Verdict]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every `must` passed: what is undecided or unmeasured did not."""
        return not any(verdict.blocks for verdict in self.verdicts)

    def lines(self, round: int) -> list[dict[str, Any]]:
        """The verdicts as lines of ``requirements.jsonl``."""
        return [verdict.to_json(round) for verdict in self.verdicts]


def open_subject(
    path: Path | str, round: int | None = None, *, model: nn.Module | None = None, data: Task | None = None
) -> Opened:
    """A model of a run folder, finished or not, or of a shared copy without ``private/``.

    It is compared with the model that was accepted before it.

    Args:
        path: The run folder.
        round: Whose model; the accepted one if left out.
        model: The module, if the run was started with one.
        data: The task, if the run was started with one.

    Raises:
        RecordError: It is not a run folder, no model was accepted, or the round has no checkpoint.
        ConfigError: The configuration is not the one that the run began with, or an object is missing.
    """
    torch.set_num_threads(1)
    folder = RunFolder.open(path)
    lines = folder.record()
    rounds = [line for line in lines if isinstance(line, Round)]
    if not rounds or not isinstance(lines[0], Start):
        raise RecordError(f"{path} has no complete round: there is no model to judge")
    number = _chosen(folder, rounds, round)
    start, config = lines[0], _config_of(folder, lines[0])
    for line in folder.read(IMPORT_FOLDERS):
        search(line.get("folders", ()))
    for option, given, setting in (("model", model, config.model), ("data", data, config.task)):
        if given is None and setting == GIVEN_IN_PYTHON:
            raise ConfigError(
                f"{path} was started from Python with {option}=...: judge it with "
                f"fedsafe.assess(fedsafe.open_run({str(path)!r}).model(module=..., data=...), data)"
            )
    # The model is judged here, whatever clients trained on.
    here = config.model_copy(update={"engine": EngineConfig(name="inline", device="cpu")})
    parts = compose(here, model=model, data=data)
    parameters = folder.read_checkpoint(number)[0]["parameters"]
    if fingerprint(parameters) != rounds[number - 1].parameters_sha256:
        raise RecordError(f"the checkpoint of round {number} is not the one in the record: it was replaced")
    before = rounds[number - 2].accepted if number > 1 else None
    previous = None if before is None else folder.read_checkpoint(before)[0]["parameters"]
    judge_of_run = Judge(parts, start.claims, PrivacyPlan.from_numbers(start.plan))
    subject = judge_of_run.subject(number, parameters, previous)
    kept = tuple(folder.read_checkpoint(r)[0]["parameters"] for r in rounds_before(number))
    return Opened(
        name=folder.path.resolve().name,
        subject=replace(subject, federation=replace(subject.federation, broadcast=kept))
        if subject.federation is not None
        else subject,
        assessors=ready_assessors(assessor_names(config.assess)),
        requirements=read_requirements(config.assess),
        seed=config.seed,
        folder=folder.path,
    )


def _config_of(folder: RunFolder, start: Start) -> Config:
    """The run's own configuration: what another one asks for is neither looked for nor reported."""
    try:
        config = parse_config(folder.config)
    except ConfigError as error:
        raise ConfigError(
            f"{folder.path}/config.toml is not the one that the run began with: {error}; restore it"
        ) from error
    if config.digest != start.settings_sha256:
        raise ConfigError(f"config.toml is not the one that {folder.path} began with: restore it")
    return config


def _chosen(folder: RunFolder, rounds: Sequence[Round], round: int | None) -> int:
    if round is not None:
        if not 1 <= round <= len(rounds):
            raise RecordError(f"{folder.path} has rounds 1 to {len(rounds)}, and no round {round}")
        return round
    accepted = rounds[-1].accepted
    if accepted is not None:
        return accepted
    if any(line.get("blocks") for line in folder.read("requirements.jsonl")):
        raise RecordError(
            f"{folder.path} accepted no model: each failed a requirement; name one by --round, 1 to {len(rounds)}"
        )
    return len(rounds)  # assessed by an older version, or not yet


def open_module(target: str, task: str | None, seed: int = 0) -> Opened:
    """A module of one's own, which no federation has trained.

    Args:
        target: Import path of a function without arguments that returns the module, or of the module itself.
        task: Name of a task, import path of one's own, or a TOML file with the table ``task`` of a configuration.
        seed: Of the public randomness.

    Raises:
        ConfigError: Nothing is found there, or no task is named.
        DataError: The data cannot be used.
        ModelError: It is no module, or does not fit the task.
    """
    torch.set_num_threads(1)
    if task is None:
        raise ConfigError(
            f"{target} is a model and not a run: name the data to judge it on with --task, for example --task adult"
        )
    found = call(target, "model")
    if not isinstance(found, nn.Module):
        raise ModelError(
            f"{target} returned {type(found).__name__}, not a torch.nn.Module: name a function that returns the model"
        )
    data = load_task(_task(task))
    module = copy.deepcopy(found).eval()
    check_fit(module, data)
    return Opened(
        name=target,
        subject=Subject.outside(module, data),
        assessors=ready_assessors(DEFAULT),
        seed=seed,
    )


def _task(spec: str) -> Any:
    """What `load_task` takes, from a name, an import path or a TOML file."""
    if not spec.endswith(".toml"):
        return spec
    try:
        content = tomllib.loads(Path(spec).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--task {spec} cannot be read: {error}") from error
    if "task" not in content:
        raise ConfigError(f"--task {spec} has no `task`; found {sorted(content) or 'nothing'}")
    search([Path(spec).parent])
    return content["task"]


def judge_subject(
    opened: Opened,
    *,
    assessors: Sequence[Assessor] | None = None,
    requirements: Sequence[Requirement] | None = None,
    tier: Tier = "full",
) -> Judged:
    """Run assessors on a subject, and judge requirements once.

    Args:
        opened: What is judged.
        assessors: Others than its own.
        requirements: Others than its own.
        tier: "cheap" or "full".
    """
    seconds: dict[str, float] = {}
    chosen = opened.assessors if assessors is None else assessors
    findings = run_assessors(
        opened.subject, chosen, rng_seed=opened.seed, tier=tier, timed=seconds.__setitem__
    )
    everything = [finding for group in findings.values() for finding in group]
    rules = opened.requirements if requirements is None else requirements
    return Judged(findings=findings, verdicts=[judge(rule, everything) for rule in rules], seconds=seconds)


def requirements_of(path: Path) -> tuple[Requirement, ...]:
    """The requirements of a TOML file of tables ``[[require]]``.

    Raises:
        ConfigError: The file cannot be read, or a requirement is not valid: a metric is unknown, for example.
    """
    return read_requirements(AssessConfig(require=str(path)))
