"""Judge the global model on the evaluation records: two figures each round, the assessors every few."""

import copy
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedsafe.assess import (
    ASSESSORS,
    Requirement,
    Subject,
    Verdict,
    find_assessor,
    judge,
    parse_requirements,
    run_assessors,
)
from fedsafe.client import build_objective
from fedsafe.errors import ConfigError
from fedsafe.findings import Finding
from fedsafe.params import Vector
from fedsafe.runs.compose import Parts
from fedsafe.runs.config import AssessConfig
from fedsafe.runs.metrics import RoundMetrics


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What the assessors found in one round.

    Args:
        round: The round.
        findings: By assessor.
        verdicts: One for each requirement.
    """

    round: int
    findings: Mapping[str, list[Finding]]
    verdicts: Sequence[Verdict]


class Judge:
    """Measures models of one run.

    Args:
        parts: Of the run.
        claims: The run's claims, as plain values.

    Raises:
        ConfigError: An assessor or a requirement is not known.
    """

    def __init__(self, parts: Parts, claims: Sequence[Mapping[str, Any]]) -> None:
        self._parts = parts
        self._claims = tuple(claims)
        config = parts.config.assess
        self._assessors = [find_assessor(name) for name in assessor_names(config)]
        names = [assessor.name for assessor in self._assessors]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ConfigError(f"assess.assessors names {repeated[0]!r} twice: leave one out")
        self._requirements = read_requirements(config)
        objective = build_objective(parts.config.client.objective, parts.task.kind)
        self._metrics = RoundMetrics(parts.task, objective)
        self._model = copy.deepcopy(parts.module).eval()
        self._trainable = [p for p in self._model.parameters() if p.requires_grad]

    def metrics(self, parameters: Vector) -> dict[str, float]:
        """The figures of a round, see :class:`RoundMetrics`."""
        return self._metrics(self._with(parameters))

    def assess(self, round: int, parameters: Vector) -> Assessment:
        """Run every assessor and judge every requirement."""
        task = self._parts.task
        config = self._parts.config
        subject = Subject(
            model=self._with(parameters),
            task=task,
            evaluation=task.evaluation,
            evaluation_name=task.evaluation_name,
            shards=self._parts.federated.shards,
            claims=self._claims,
            round=round,
        )
        findings = run_assessors(subject, self._assessors, rng_seed=config.seed, tier=config.assess.tier)
        everything = [finding for group in findings.values() for finding in group]
        verdicts = [judge(requirement, everything) for requirement in self._requirements]
        return Assessment(round=round, findings=findings, verdicts=verdicts)

    def _with(self, parameters: Vector) -> nn.Module:
        nn.utils.vector_to_parameters(torch.from_numpy(parameters.copy()), self._trainable)
        return self._model


def assessor_names(config: AssessConfig) -> list[str]:
    """The assessors that are configured, all of FedSafe's by default."""
    return list(ASSESSORS) if config.assessors is None else config.assessors


def read_requirements(config: AssessConfig) -> tuple[Requirement, ...]:
    """The requirements of a configuration, or of the TOML file that it names (tables ``[[require]]``).

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
    return parse_requirements(tables)
