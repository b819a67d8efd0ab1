"""Judge the global model on the evaluation records: a few figures each round, the assessors every few."""

import copy
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedsafe.alignment.constitution import parse_constitution
from fedsafe.assess import (
    DEFAULT,
    Assessor,
    ClientRecords,
    Cost,
    Federation,
    Requirement,
    Subject,
    Tier,
    Verdict,
    evidence_of,
    find_assessor,
    judge,
    parse_requirements,
    plan_assessors,
    run_assessors,
)
from fedsafe.assess.base import Share
from fedsafe.assess.constitution import constitution_requirements
from fedsafe.data import Federated
from fedsafe.errors import ConfigError
from fedsafe.findings import Evidence, Finding, confidence_of_look, due_rounds
from fedsafe.params import Vector
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.client_config import local_training, objective_of
from fedsafe.runs.compose import Parts
from fedsafe.runs.config import AssessConfig
from fedsafe.runs.metrics import RoundMetrics
from fedsafe.runs.retraining import train_again


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What the assessors found in one round.

    Args:
        round: The round.
        findings: By assessor.
        verdicts: One for each requirement.
        evidence: What was found example by example, for comparing a later model with this one.
        accepted: Whether every ``must`` that binds passed; None where the assessors did not run.
    """

    round: int
    findings: Mapping[str, list[Finding]]
    verdicts: Sequence[Verdict]
    evidence: Mapping[Share, Evidence] = field(default_factory=dict)
    accepted: bool | None = None


class Judge:
    """Measures models of one run.

    Args:
        parts: Of the run.
        claims: The run's claims, as plain values.
        plan: The run's privacy plan, for training clients again in a simulation; None before there is one.

    Raises:
        ConfigError: An assessor or a requirement is not known.
    """

    def __init__(
        self, parts: Parts, claims: Sequence[Mapping[str, Any]], plan: PrivacyPlan | None = None
    ) -> None:
        self._parts = parts
        self._plan = plan
        self._claims = tuple(claims)
        self._assessors, self._requirements = read_assessment(parts.config.assess)
        rounds = parts.config.rounds if plan is None else plan.rounds
        self._due = due_rounds(rounds, parts.config.assess.every)
        objective = objective_of(parts.config.client, parts.task)
        self._metrics = RoundMetrics(parts.module, parts.task, objective)
        self._model = copy.deepcopy(parts.module).eval()
        self._trainable = [p for p in self._model.parameters() if p.requires_grad]

    def metrics(self, parameters: Vector) -> dict[str, float]:
        """The figures of a round, see :class:`RoundMetrics`."""
        return self._metrics(parameters)

    def planned(self) -> dict[str, Any]:
        """How models will be judged and what each assessor plans to spend each time, as plain values."""
        config = self._parts.config.assess
        return {
            **_constitution_of(config),
            "tier": config.tier,
            "every": config.every,
            "looks": len(self._due),
            "on_failure": config.on_failure,
            "alpha_spending": config.alpha_spending,
            "max_share": config.max_share,
            "assessors": {name: asdict(cost) for name, cost in self.plan().items()},
        }

    def plan(self, assessors: Sequence[Assessor] | None = None, tier: Tier | None = None) -> dict[str, Cost]:
        """What each assessor would spend, before anything is spent.

        Args:
            assessors: Others than those of the configuration.
            tier: Another than that of the configuration.
        """
        if self._parts.task.unjudged:
            return {}
        subject = self.subject(max(self._due), self._parts.initial)
        chosen = self._assessors if assessors is None else assessors
        return plan_assessors(subject, chosen, self._parts.config.assess.tier if tier is None else tier)

    def assess(
        self,
        round: int,
        parameters: Vector,
        previous: Vector | None = None,
        also: Mapping[str, list[Finding]] | None = None,
        *,
        earlier: Mapping[Share, Evidence] | None = None,
        timed: Callable[[str, float], None] | None = None,
    ) -> Assessment:
        """Run every assessor and judge every requirement, at the confidence that this round may spend.

        Args:
            round: The round.
            parameters: Of its model.
            previous: Those of the last accepted model; None before there is one.
            also: Findings of this round that are no assessor's, by name, for requirements to judge too.
            earlier: What was found of the last accepted model, example by example.
            timed: Told what each assessor took, in seconds.
        """
        config = self._parts.config
        findings: dict[str, list[Finding]] = {}
        # Without records to judge on every requirement is unmeasured, which is no pass.
        if not self._parts.task.unjudged:
            subject = self.subject(round, parameters, previous, earlier)
            findings = run_assessors(
                subject, self._assessors, rng_seed=config.seed, tier=config.assess.tier, timed=timed
            )
        evidence = evidence_of(findings)
        for name, group in (also or {}).items():
            findings[name] = [*findings.get(name, ()), *group]
        everything = [finding for group in findings.values() for finding in group]
        verdicts = [
            judge(
                requirement,
                everything,
                confidence=confidence_of_look(
                    round, self._due, requirement.confidence, config.assess.alpha_spending
                ),
            )
            for requirement in self._requirements
        ]
        return Assessment(
            round=round,
            findings=findings,
            verdicts=verdicts,
            evidence=evidence,
            accepted=not any(verdict.blocks for verdict in verdicts),
        )

    def subject(
        self,
        round: int,
        parameters: Vector,
        previous: Vector | None = None,
        earlier: Mapping[Share, Evidence] | None = None,
    ) -> Subject:
        """What is judged in a round; see `assess`."""
        task, federated = self._parts.task, self._parts.federated
        config = self._parts.config
        accepted = None if previous is None else copy.deepcopy(self._with(previous))
        has_validation = bool(federated.validation.sizes.any())
        return Subject(
            model=self._with(parameters),
            task=task,
            evaluation=task.evaluation,
            evaluation_name=task.evaluation_name,
            shards=federated.shards,
            claims=self._claims,
            round=round,
            training=ClientRecords(examples=task.train, rows=federated.records),
            validation=ClientRecords(examples=task.train, rows=federated.validation)
            if has_validation
            else None,
            unseen=unseen_clients(federated, config.federation.partition.get("by")),
            federation=self._federation(round),
            previous=accepted,
            earlier=earlier or {},
        )

    def _federation(self, round: int) -> Federation | None:
        """How the clients train up to this round; None before there is a plan."""
        parts, plan = self._parts, self._plan
        if plan is None:
            return None
        level, config = plan.record, parts.config
        expected = math.ceil(plan.client.rate * round)
        return Federation(
            training=local_training(config.client, level, config.rounds),
            trainer=parts.trainer,
            objective=objective_of(config.client, parts.task),
            initial=parts.initial,
            participations=max(1, min(level.max_participations, expected)),
            delta=level.delta if level.private else None,
            own=own_records(parts.federated),
            local=tuple(config.client.local or ()),
            again=partial(train_again, parts, plan),
        )

    def _with(self, parameters: Vector) -> nn.Module:
        nn.utils.vector_to_parameters(torch.from_numpy(parameters.copy()), self._trainable)
        return self._model


def read_assessment(config: AssessConfig) -> tuple[list[Assessor], tuple[Requirement, ...]]:
    """The assessors and the requirements that are configured.

    Raises:
        ConfigError: An assessor is not known or named twice, or a requirement is not valid.
    """
    assessors = [find_assessor(name) for name in assessor_names(config)]
    names = [assessor.name for assessor in assessors]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f"assess.assessors names {repeated[0]!r} twice: leave one out")
    return assessors, read_requirements(config)


def assessor_names(config: AssessConfig) -> list[str | dict[str, Any]]:
    """The assessors that are configured, or those of `fedsafe.assess.DEFAULT`."""
    return list(DEFAULT) if config.assessors is None else config.assessors


def own_records(federated: Federated) -> ClientRecords | None:
    """What each client judges on: its validation records, else its shard of the evaluation records; or None."""
    task = federated.task
    if federated.validation.sizes.any():
        return ClientRecords(examples=task.train, rows=federated.validation)
    if federated.shards is None or federated.names is not None or len(federated.shards) != federated.clients:
        return None  # these shards may be other holders', or those of held-out clients
    if task.evaluation is federated.unseen:
        return None
    return ClientRecords(examples=task.evaluation, rows=federated.shards)


def unseen_clients(federated: Federated, by: str | None) -> ClientRecords | None:
    """Records of clients who take no part, by client, where it is known who holds which; or None.

    They are held-out clients, or else the holders of the evaluation records, if none of these trains.

    Args:
        federated: The federation.
        by: Column of holders of a natural partition; None where there is one column only.
    """
    unseen, task = federated.unseen, federated.task
    if unseen is not None and task.evaluation is unseen and federated.shards is not None:
        return ClientRecords(examples=unseen, rows=federated.shards)
    examples = task.evaluation if unseen is None else unseen
    if federated.names is None or (by is None and len(examples.holders) != 1):
        return None
    holders = examples.holders.get(next(iter(examples.holders)) if by is None else by)
    if holders is None or not set(np.unique(holders)).isdisjoint(federated.names):
        return None
    rows = tuple(np.flatnonzero(holders == owner) for owner in np.unique(holders))
    return ClientRecords(examples=examples, rows=rows)


def _constitution_of(config: AssessConfig) -> dict[str, Any]:
    """Which constitution a run is held to, if any, for its record."""
    if config.constitution is None:
        return {}
    constitution = parse_constitution(config.constitution)
    named = {"title": constitution.title, "version": constitution.version, "sha256": constitution.digest}
    return {"constitution": named}


def read_requirements(config: AssessConfig) -> tuple[Requirement, ...]:
    """The requirements of a configuration, or of the TOML file that it names (tables ``[[require]]``).

    Those of the constitution's principles about models follow.

    Raises:
        ConfigError: The file cannot be read, or a requirement is not valid.
    """
    tables: Any = config.require
    if isinstance(tables, str):
        try:
            content = tomllib.loads(Path(tables).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"assess.require = {config.require!r} cannot be read: {error}") from error
        tables = content.get("require")
        if set(content) != {"require"} or not isinstance(tables, list) or not tables:
            raise ConfigError(
                f"{config.require} must hold tables [[require]] and nothing else; found {sorted(content) or 'nothing'}"
            )
    rules = parse_requirements(tables)
    if config.constitution is None:
        return rules
    return (*rules, *constitution_requirements(parse_constitution(config.constitution)))
