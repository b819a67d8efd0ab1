"""What a client could have had alone: its own training, and fine-tuning of the federation's model, at the same cost.

Three ways to a model for one client, of which each costs a record the same epsilon at the same delta:

``federated``   the federation's model, after all its rounds;
``alone``       a model of the client's own, from the initial parameters;
``fine-tuned``  the federation's model, trained on by the client on its own records.

What they cost is decided in `fedsafe.runs.local_plans`.

This is simulation: every model would have to be meant for release, and publishing several of them composes.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.client import ClientJob, Trainer
from fedsafe.errors import ConfigError
from fedsafe.params import Vector, fingerprint
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream, StreamId
from fedsafe.runs.cells import Result
from fedsafe.runs.compose import Parts
from fedsafe.runs.config import Config
from fedsafe.runs.judge import Judge
from fedsafe.runs.local_plans import ALONE, FEDERATED, FINE_TUNED, OwnTraining, Plans, plans_of
from fedsafe.runs.stacked_runs import PreparedRun, prepare_runs, stacked_runs, trainers_of


def local_cells(
    configs: Sequence[Config], *, alone: OwnTraining, fine_tuned: OwnTraining
) -> Iterator[tuple[int, Result]]:
    """Train the three ways for every client, all configurations together; see `fedsafe.runs.cells.Work`.

    Args:
        configs: Of the federation: budgets and seeds of one task.
        alone: How a client trains that is alone.
        fine_tuned: How a client trains the federation's model on.

    Yields:
        Which configuration, and what is kept of it: ``clients`` (names), ``records`` (training records of each), and
        for each way ``epsilon`` (None without a guarantee), ``delta``, ``noise`` (multiplier), ``steps`` and
        ``scores`` (for each client one score in [0, 1] for each of its evaluation records); and the same scores of
        ``majority``, which always answers the client's most frequent class.

    Raises:
        ConfigError: A configuration has what is not compared, or a client has no evaluation records.
    """
    runs = prepare_runs(configs)
    plans = [plans_of(run, alone, fine_tuned) for run in runs]
    trainers = trainers_of(runs)
    # Without privacy both plans of the federation are the same one, which is trained once.
    wanted = [
        (number, plan)
        for number, found in enumerate(plans)
        for plan in dict.fromkeys((found.federated, found.shared))
    ]
    last: dict[int, Vector] = {}
    for place, outcome in stacked_runs(
        [replace(runs[number], plan=plan) for number, plan in wanted],
        [trainers[number] for number, _ in wanted],
    ):
        last[place] = outcome.parameters
    models = {(number, plan.hash): last[place] for place, (number, plan) in enumerate(wanted)}
    shared = [models[number, found.shared.hash] for number, found in enumerate(plans)]
    own = {
        ALONE: train_own(
            runs,
            trainers,
            [found.alone for found in plans],
            alone,
            [run.parts.initial for run in runs],
            ALONE,
        ),
        FINE_TUNED: train_own(
            runs, trainers, [found.fine_tuned for found in plans], fine_tuned, shared, FINE_TUNED
        ),
    }
    for number, (run, found) in enumerate(zip(runs, plans, strict=True)):
        clients = len(run.parts.records)
        models_of = {
            FEDERATED: [models[number, found.federated.hash]] * clients,
            **{arm: list(rows[number]) for arm, rows in own.items()},
        }
        yield number, _kept(run, found, models_of)


def train_own(
    runs: Sequence[PreparedRun],
    trainers: Sequence[Trainer],
    plans: Sequence[PrivacyPlan],
    own: OwnTraining,
    starts: Sequence[Vector],
    purpose: str,
) -> list[NDArray[np.float32]]:
    """Each client's model after its own steps, of all runs in one call for each trainer.

    Args:
        runs: Whose clients train.
        trainers: Of the runs.
        plans: With the noise of each.
        own: How clients train.
        starts: ``(parameters,)`` where the clients of each run start.
        purpose: Names the streams of their batches and noise, which no other training shares.

    Returns:
        For each run ``(clients, parameters)``.
    """
    jobs: dict[int, list[ClientJob]] = {}
    places: dict[int, list[int]] = {}
    for number, (run, trainer, plan, start) in enumerate(zip(runs, trainers, plans, starts, strict=True)):
        training = own.training(run.parts, plan)
        digest = _digest(start, plan, own)
        for client, rows in enumerate(run.parts.records):
            batches, noise = (
                Stream(run.key, StreamId(purpose=f"{purpose}: {what}", client=client, round=0, digest=digest))
                for what in ("batches", "record noise")
            )
            jobs.setdefault(id(trainer), []).append(
                ClientJob(
                    client=client, records=rows, batches=batches, noise=noise, training=training, start=start
                )
            )
            places.setdefault(id(trainer), []).append(number)
    found: list[list[NDArray[np.float32]]] = [[] for _ in runs]
    for trainer in {id(trainer): trainer for trainer in trainers}.values():
        trained = trainer.train(starts[0], jobs[id(trainer)])
        for number, row in zip(places[id(trainer)], trained, strict=True):
            found[number].append(row)
    return [np.stack(rows) for rows in found]


def _digest(start: Vector, plan: PrivacyPlan, own: OwnTraining) -> bytes:
    """Of what a stream meets, so that the same noise never meets other inputs."""
    return hashlib.sha256(f"{fingerprint(start)} {plan.hash} {asdict(own)}".encode()).digest()


def _kept(run: PreparedRun, plans: Plans, models: Mapping[str, Sequence[Vector]]) -> Result:
    parts = run.parts
    names, shards = _shards(parts)
    judge = Judge(parts, [], run.plan)
    evaluation = parts.task.evaluation
    scores: dict[str, list[list[float]]] = {}
    for arm, rows in models.items():
        scores[arm] = []
        for shard, parameters in zip(shards, rows, strict=True):
            subject = judge.subject(run.plan.rounds, parameters)
            scores[arm].append(subject.per_record(evaluation.take(shard))[1].tolist())
    return {
        "clients": names,
        "records": [len(rows) for rows in parts.records],
        "evaluation": parts.task.evaluation_name,
        "majority": _majority(parts, shards),
        "arms": {arm: {**_cost(plans.of(arm)), "scores": found} for arm, found in scores.items()},
    }


def _cost(plan: PrivacyPlan) -> dict[str, Any]:
    """Of one record, in all rounds of a plan."""
    level = plan.record
    rounds = level.max_participations
    return {
        "epsilon": plan.record_epsilon(plan.rounds, rounds) if level.private else None,
        "delta": level.delta,
        "noise": level.noise,
        "steps": rounds * level.steps,
    }


def _shards(parts: Parts) -> tuple[list[str], list[NDArray[np.int64]]]:
    """Names of the clients, and rows of the evaluation records that are each one's own.

    Raises:
        ConfigError: Not every client has some.
    """
    names, shards = parts.federated.names, parts.federated.shards
    by = parts.config.federation.partition.get("by")
    if names is not None and shards is not None and len(shards) == len(names):
        holders = parts.task.evaluation.holders
        column = holders.get(by) if by is not None else next(iter(holders.values()), None)
        rows = [np.asarray(shard) for shard in shards]
        if column is not None and all(
            len(shard) and set(column[shard]) == {name} for name, shard in zip(names, rows, strict=True)
        ):
            return list(names), rows
    raise ConfigError(
        f"the evaluation records of {parts.task.name!r} are not those of the clients that train: a client's own model "
        "would be judged on somebody else's; use a task whose evaluation records name their holder"
    )


def _majority(parts: Parts, shards: Sequence[NDArray[np.int64]]) -> list[list[float]]:
    """Scores of always answering the class that most of a client's own training records have."""
    if parts.task.kind not in ("binary", "multiclass"):
        raise ConfigError(f"training alone is compared by accuracy, and {parts.task.name!r} has no classes")
    found = []
    for rows, shard in zip(parts.records, shards, strict=True):
        most = int(np.bincount(parts.task.train.y[rows]).argmax())
        found.append((parts.task.evaluation.y[shard] == most).astype(float).tolist())
    return found
