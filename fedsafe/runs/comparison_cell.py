"""What a comparison keeps of each of its runs: findings on its last model, claims, what it released, and time."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from fedsafe.data import Task
from fedsafe.findings import Finding
from fedsafe.params import Vector, fingerprint
from fedsafe.privacy.accounting import FixedSizeGaussian, SampledGaussian
from fedsafe.privacy.levels import ADAPTIVE, BANDED, CENTRAL, GROUPED, LOCAL
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.records import headline_metric, to_plain
from fedsafe.runs.audit import RunAudit
from fedsafe.runs.byzantine_cell import plain_release
from fedsafe.runs.cells import Result
from fedsafe.runs.comparison import CLIPPED
from fedsafe.runs.compose import Parts
from fedsafe.runs.config import Config, make_config
from fedsafe.runs.judge import Judge
from fedsafe.runs.planning import plan_and_claims
from fedsafe.runs.stacked_runs import PreparedRun, prepare_runs, stacked_runs, trainers_of

# Ways to release whose events compose as Gaussian releases do.
_COMPOSED = (CENTRAL, ADAPTIVE, GROUPED, LOCAL, BANDED)


def comparison_cells(
    configs: Sequence[Config], *, model: nn.Module | None = None, data: Task | None = None
) -> Iterator[tuple[int, Result]]:
    """Train and judge cells in one stack; see `fedsafe.runs.cells.Work`.

    Args:
        configs: Of the cells.
        model: A module to train in place of the configured one.
        data: A task in place of the configured one.

    Yields:
        Which cell, and what is kept of it, as plain values.
    """
    began = time.process_time()
    prepared = prepare_runs(configs, model=model, data=data)
    runs = [replace(run, plan=without_noise(run.plan)) for run in prepared]
    trainers = trainers_of(runs)
    ready = time.process_time()
    last: dict[int, Vector] = {}
    for number, outcome in stacked_runs(runs, trainers):
        last[number] = outcome.parameters
    shares = {
        "preparing": (ready - began) / len(runs),
        "training": (time.process_time() - ready) / len(runs),
    }
    claims = _Claims()
    for number, run in enumerate(runs):
        yield number, _kept(run, last.pop(number), claims, shares)


def without_noise(plan: PrivacyPlan) -> PrivacyPlan:
    """The plan, but for the noise of levels whose budget stands for clipping alone."""
    record, client = plan.record, plan.client
    if record.epsilon == CLIPPED:
        record = replace(record, noise=0.0, grid_bits=None)
    if client.epsilon == CLIPPED:
        client = replace(client, noise=0.0)
    return replace(plan, record=record, client=client)


class _Claims:
    """Claims of runs, each kind made once: accounting takes longer than training a small model."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], list[dict[str, Any]]] = {}

    def of(self, run: PreparedRun) -> list[dict[str, Any]]:
        """The headline claim of each unit, as plain values; none of a level that only clips."""
        config = run.parts.config
        # Neither the seed nor the program is in a claim's numbers.
        key = (
            replace(run.plan, program=""),
            config.model_copy(update={"seed": 0}).digest,
            len(run.parts.records),
        )
        if key not in self._made:
            planned = plan_and_claims(_unclaimed(run), key_from_seed=config.privacy.noise_key == "seed")
            self._made[key] = [
                {**claim, "statement": _only_clipped(claim["unit"])}
                if getattr(run.plan, claim["unit"]).epsilon == CLIPPED
                else claim
                for claim in planned.claims
            ]
        return self._made[key]


def _unclaimed(run: PreparedRun) -> Parts:
    """The run's parts, where a level that only clips has no target: for claiming, it is a level without noise."""
    values = run.parts.config.model_dump(exclude_none=True)
    clipped = [unit for unit in ("record", "client") if getattr(run.plan, unit).epsilon == CLIPPED]
    for unit in clipped:
        values["privacy"][unit]["epsilon"] = math.inf
    return replace(run.parts, config=make_config(values)) if clipped else run.parts


def _only_clipped(unit: str) -> str:
    return f"No {unit}-level differential privacy is claimed: this level clipped, and added no noise."


def _kept(run: PreparedRun, parameters: Vector, claims: _Claims, shares: dict[str, float]) -> Result:
    parts, plan = run.parts, run.plan
    began = time.process_time()
    claimed = claims.of(run)
    accounted = time.process_time()
    seconds: dict[str, float] = {}
    judge = Judge(parts, claimed, plan)
    assessment = judge.assess(plan.rounds, parameters, timed=seconds.__setitem__)
    measured = time.process_time() - accounted
    audited = _audited(run)
    auditing = time.process_time() - accounted - measured
    task = parts.task
    found: Result = {
        "metric": headline_metric(task.kind),
        "metrics": judge.metrics(parameters),
        "parameters_sha256": fingerprint(parameters),
        "findings": [plain_finding(finding) for group in assessment.findings.values() for finding in group]
        + [plain_finding(finding) for finding in audited],
        "accepted": assessment.accepted,
        "failed": [
            {"metric": verdict.requirement.metric, "verdict": verdict.verdict}
            for verdict in assessment.verdicts
            if verdict.verdict != "pass"
        ],
        "claims": claimed,
        "releases": released(plan),
        # Of one person, for all of whose records or clients the claim is.
        "groups": {"record": plan.record.group, "client": plan.client.group},
        "noise": {"record": plan.record.noise, "client": plan.client.noise},
        "clients": len(parts.records),
        "rounds": plan.rounds,
        "parameters": parts.layout.total,
        "evaluation": task.evaluation_name,
        "evaluation_records": len(task.evaluation.y),
        "seconds": {
            **shares,
            "accounting": accounted - began,
            "judging": measured,
            "auditing": auditing,
            "assessors": dict(seconds),
        },
    }
    plain: Result = to_plain(found)
    return plain


def _audited(run: PreparedRun) -> list[Finding]:
    """What the look after the last round finds, as in a run alone; nothing where the configuration asks for none."""
    section = run.parts.config.audit
    if section is None:
        return []
    audit = RunAudit(section, run.parts, run.plan, run.key)
    try:
        return audit.after(run.plan.rounds)
    finally:
        audit.close()


def plain_finding(finding: Finding) -> dict[str, Any]:
    """What a comparison keeps of a finding."""
    return {
        "metric": finding.metric,
        "where": dict(finding.where),
        "status": finding.status,
        "value": finding.value,
        "interval": finding.interval,
        "n": finding.n,
        "reason": finding.reason,
    }


def released(plan: PrivacyPlan) -> dict[str, list[dict[str, Any]] | None]:
    """What one record, and one client, takes part in: for each unit, releases that compose; None where none do."""
    return {"record": _released_by_record(plan), "client": _released_by_client(plan)}


def _released_by_record(plan: PrivacyPlan) -> list[dict[str, Any]] | None:
    """What one record takes part in; None where it has no guarantee."""
    level, evaluation = plan.record, plan.evaluation
    if not level.noise:
        return None
    parts = [level.mechanism()]
    if evaluation is not None and evaluation.noised:
        # A record trains or validates: which of the two costs more is not asked, both are counted.
        parts.append(evaluation.of_record(plan.rounds))
    return [plain_release(part) for part in parts]


def _released_by_client(plan: PrivacyPlan) -> list[dict[str, Any]] | None:
    """What one client takes part in; None without a guarantee, or where releases do not compose as Gaussian ones."""
    level, evaluation = plan.client, plan.evaluation
    if not level.noise or level.mechanism not in _COMPOSED:
        return None
    release = level.release(clients=plan.clients, rounds=plan.rounds, cap=plan.record.max_participations)
    parts: list[SampledGaussian | FixedSizeGaussian] = [release]
    if evaluation is not None and evaluation.noised:
        parts.append(evaluation.of_client(plan.rounds, release.adjacency))
    return [plain_release(part) for part in parts]
