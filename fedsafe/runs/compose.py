"""Turn a configuration into the parts of a run, checking everything that can be checked before it starts."""

import functools
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsafe.aggregation import (
    SERVER_OPTIMIZERS,
    Aggregator,
    Membership,
    ServerOptimizer,
    build_aggregator,
    check_aggregator,
    mechanics_of,
)
from fedsafe.client import (
    ClientJob,
    LocalParameters,
    ReconstructingTrainer,
    Trainer,
    build_trainer,
    choose_trainer,
    layout_of,
    precompute,
    record_grid_bits,
    refuse_precision,
)
from fedsafe.data import ClientRows, Examples, Federated, Task, federate, load_task
from fedsafe.data.mapped import let_go
from fedsafe.engine import Availability, ClientApps, require_device
from fedsafe.engine.traces import Trace
from fedsafe.errors import ConfigError
from fedsafe.federation import ClientRuntime, ModuleMeasure
from fedsafe.models import build_model
from fedsafe.params import Layout, Vector, fingerprint
from fedsafe.privacy.calibration import make_plan
from fedsafe.privacy.levels import Mechanics
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream, StreamId, new_key
from fedsafe.runs.adaptive import check_adaptive
from fedsafe.runs.adversaries import under_attack, with_poisoned_records
from fedsafe.runs.availability import build_availability
from fedsafe.runs.client_config import local_training, objective_of
from fedsafe.runs.config import Config
from fedsafe.runs.evaluation_check import check_evaluation
from fedsafe.runs.grouping import membership_of
from fedsafe.runs.local_parameters import SharedOnly, local_parameters
from fedsafe.runs.secure import secure_graph, simulated_clients


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a run is made of, before any noise is calibrated.

    Args:
        config: The configuration.
        federated: The task, cut into clients.
        module: The model, with its initial weights.
        trainer: ``"stacked"``, ``"vmap"`` or ``"opacus"``.
        layout: Of the model's parameters.
        availability: Which clients are there when they are asked; None where all are.
        groups: Which group each client is in, for an aggregator that weighs them; None for the others.
    """

    config: Config
    federated: Federated
    module: nn.Module
    trainer: str
    layout: Layout
    availability: Availability | None = None
    groups: Membership | None = None

    @property
    def task(self) -> Task:
        """Data and schema."""
        return self.federated.task

    @property
    def records(self) -> ClientRows:
        """Rows of the training data that each client trains on."""
        return self.federated.records

    @property
    def local(self) -> LocalParameters | None:
        """What stays with the clients."""
        return local_parameters(self.config, self.layout)

    @property
    def initial(self) -> Vector:
        """The model before round 1."""
        trainable = {n: p.detach().numpy() for n, p in self.module.named_parameters() if p.requires_grad}
        return self.layout.join(trainable)

    def arrays(self) -> Iterator[NDArray[Any]]:
        """Everything that training and judging read, for recognising it again."""
        yield np.frombuffer(self.task.description.encode(), np.uint8)  # the public bounds that encode records
        for examples in (self.task.train, self.task.evaluation):
            yield examples.x
            yield examples.y
            yield from (examples.groups[name] for name in sorted(examples.groups))
        if self.federated.unseen is not None:
            yield from (self.federated.unseen.x, self.federated.unseen.y)
        if self.groups is not None:
            yield self.groups.of
        for rows in (self.records, self.federated.validation, self.federated.shards):
            if rows is not None:
                yield from rows.arrays()


def compose(config: Config, *, model: nn.Module | None = None, data: Task | None = None) -> Parts:
    """Load the data, cut the federation, build the model and probe it.

    Args:
        config: The configuration.
        model: A module to train in place of ``config.model``.
        data: A task to train on in place of ``config.task``.

    Raises:
        ConfigError: A name is unknown, or a robust aggregator meets a client-level target.
        DataError: The data cannot be used.
        ModelError: The model mixes examples, or cannot be trained privately.
    """
    check_aggregator(
        config.server.aggregator,
        client_private=math.isfinite(config.privacy.client.epsilon),
        record_private=math.isfinite(config.privacy.record.epsilon),
        learning_rate=config.client.plain_rate,
    )
    check_adaptive(config)
    if config.privacy.paired and config.engine.name == "flower":
        raise ConfigError(
            "privacy.paired = true is for simulations that are compared, and engine.name = 'flower' trains on nodes: "
            "leave one of the two out"
        )
    if config.federation.clients is not None:
        secure_graph(config, config.federation.clients)  # refused before anything is loaded
    task = load_task(config.task) if data is None else data
    objective = objective_of(config.client, task)
    federation = config.federation
    federated = federate(
        task,
        clients=federation.clients,
        partition=federation.partition,
        held_out=federation.held_out,
        client_validation=federation.client_validation,
        evaluation=config.data.evaluation,
        validation_fraction=config.data.validation_fraction,
        seed=config.seed,
    )
    check_evaluation(config)
    federated = with_poisoned_records(config, federated)
    task = federated.task
    module = build_model(config.model if model is None else model, signature=task.signature, seed=config.seed)
    trainer = choose_trainer(module, objective, task.signature)
    if config.client.precision is not None:
        if trainer != "stacked":
            raise ConfigError(
                f"client.precision = {config.client.precision!r} is for models that stack, and this one trains by "
                f"{trainer}: leave it out"
            )
        refuse_precision(module, objective, task.signature, torch.bfloat16)
    layout = layout_of(module)
    local_parameters(config, layout)  # refused now rather than in a round
    secure_graph(config, len(federated.records))
    return Parts(
        config=config,
        federated=federated,
        module=module,
        trainer=trainer,
        layout=layout,
        availability=build_availability(config, federated),
        groups=membership_of(config, federated),
    )


def calibrate(parts: Parts) -> PrivacyPlan:
    """The privacy plan of a run: noise that meets both targets.

    Raises:
        CalibrationError: A target cannot be met.
    """
    config = parts.config
    privacy, evaluation = config.privacy, config.federation.evaluation
    return make_plan(
        clients=len(parts.records),
        rounds=config.rounds,
        cohort_rate=config.federation.cohort.rate_of(len(parts.records)),
        record_epsilon=privacy.record.epsilon,
        record_delta=privacy.record.delta,
        record_clip=privacy.record.clip,
        record_rate=config.client.rate,
        steps=config.client.all_steps,
        local_steps=config.client.steps_for_local,
        max_participations=privacy.record.max_participations,
        client_epsilon=privacy.client.epsilon,
        client_delta=privacy.client.delta,
        client_clip=privacy.client.clip,
        program=program_digest(parts),
        evaluate_every=evaluation.every if evaluation else None,
        evaluation_epsilon=evaluation.epsilon if evaluation and evaluation.noised else math.inf,
        record_noise=privacy.record.noise,
        record_grid_bits=record_grid_bits(privacy.record.clip, parts.layout.total)
        if privacy.record.arithmetic == "grid"
        else None,
        record_batch=config.client.batch_size,
        least_records=_least_records(parts),
        client_noise=privacy.client.noise,
        record_group=privacy.record.max_records_per_person,
        client_group=privacy.client.max_clients_per_person,
        budgets=_budgets(config, len(parts.records)),
        mechanics=_mechanics(parts),
    )


def _least_records(parts: Parts) -> int:
    """Of any client.

    Raises:
        ConfigError: A batch of a fixed size would be larger.
    """
    least, size = int(parts.records.sizes.min()), parts.config.client.batch_size
    if size is not None and size > least:
        raise ConfigError(
            f"client.batch_size = {size}, and a client has {least} records: lower it, give every client as many, or "
            "use client.rate"
        )
    return least


def _mechanics(parts: Parts) -> Mechanics:
    """How the client level releases."""
    config, clients = parts.config, len(parts.records)
    cohort = config.federation.cohort
    spec = config.server.aggregator
    named = spec.get("name") if isinstance(spec, dict) else spec
    if config.engine.name == "flower" and named == "distributed_mean" and not config.aggregation.secure:
        raise ConfigError(
            'server.aggregator = "distributed_mean" needs secure aggregation, which a simulation stands in for and '
            "nodes have with aggregation.secure = true alone: set it, or use local_gaussian or noisy_mean"
        )
    found = mechanics_of(
        config.server.aggregator, cohort=cohort.rate_of(clients) * clients, parameters=parts.layout.total
    )
    return replace(found, cohort_size=cohort.size)


def _budgets(config: Config, clients: int) -> dict[int, float]:
    """Record-level budgets of single clients.

    Raises:
        ConfigError: There is no such client.
    """
    budgets = {int(client): epsilon for client, epsilon in config.privacy.record.budgets.items()}
    for client in budgets:
        if client >= clients:
            raise ConfigError(
                f"privacy.record.budgets names client {client}; there are {clients}, numbered from 0"
            )
    return budgets


def program_digest(parts: Parts) -> str:
    """Digest of what decides a client's release besides the plan's numbers and its records."""
    settings = parts.config.model_dump(
        include={"task", "model", "seed", "data", "federation", "client", "server", "byzantine"},
        exclude_none=True,
    )
    if parts.config.aggregation.secure:  # a sum behind masks is another release than each update
        settings["aggregation"] = parts.config.aggregation.model_dump()
    described = [settings, parts.trainer, repr(parts.module), fingerprint(parts.initial)]
    if parts.availability is not None and isinstance(parts.availability.schedule, Trace):
        described.append(parts.availability.schedule.digest)  # the settings name a file, which may change
    if parts.groups is not None:
        described.append(repr((parts.groups.names, parts.groups.of.tolist())))
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def aggregator_of(parts: Parts, plan: PrivacyPlan) -> Aggregator:
    """The aggregator, the same at workers and server."""
    config = parts.config
    rule = build_aggregator(
        config.server.aggregator, plan, learning_rate=config.client.plain_rate, membership=parts.groups
    )
    return under_attack(config, rule, len(parts.records))


def server_optimizer_of(parts: Parts) -> ServerOptimizer:
    """What moves the model by the averaged update."""
    options = parts.config.server.optimizer.model_dump(exclude_none=True, exclude={"name", "lr"})
    config, local = parts.config.server.optimizer, parts.local
    made = SERVER_OPTIMIZERS[config.name](learning_rate=config.lr, **options)
    return made if local is None else SharedOnly(inside=made, local=local.mask)


def client_cost(parts: Parts, records: int) -> float:
    """About how many seconds a client takes, for cutting a cohort into chunks of equal work."""
    client, row = 2e-4, 1e-6  # streams and sampling; gathering a record
    # Six operations for each parameter and row, forward and backward, at the speed of small products.
    row += parts.layout.total * 6.0 / 1e10
    return client + parts.config.client.all_steps * parts.config.client.rate * records * row


def client_apps(parts: Parts, plan: PrivacyPlan, key: bytes) -> Callable[[], ClientApps]:
    """A factory of the client app, small enough to send to a worker together with the data."""
    return functools.partial(_make_apps, parts, plan, key)


def _make_apps(parts: Parts, plan: PrivacyPlan, key: bytes) -> ClientApps:
    runtime = client_runtime(parts, plan, key)
    if parts.config.aggregation.secure:
        return simulated_clients(runtime, parts.config.aggregation, plan, key)
    return ClientApps(one=runtime.answer, batch=runtime.answer_chunk)


def client_runtime(
    parts: Parts, plan: PrivacyPlan, key: bytes, *, trainer: Trainer | None = None
) -> ClientRuntime:
    """What trains clients, with its first use behind it; a trainer that is given is not built again."""
    config = parts.config
    training = local_training(config.client, plan.record, config.rounds)
    objective = objective_of(config.client, parts.task)
    module, x = precompute(parts.module, _shared(parts.task.train.x), objective)
    y = _shared(parts.task.train.y)
    if trainer is None:
        trainer = build_trainer(
            parts.trainer,
            module,
            objective,
            x,
            y,
            training,
            # Here, in the worker: a machine of a cluster may have a GPU where another has none.
            device=require_device(config.engine.device),
            precision=torch.bfloat16 if config.client.precision == "bfloat16" else None,
            stack=config.engine.stack,
        )
        if parts.local is not None:
            steps = plan.record.local_steps
            trainer = ReconstructingTrainer(trainer, parts.local, steps=steps, training=training)
        _warm_up(trainer, parts)
    aggregator, evaluation = aggregator_of(parts, plan), plan.evaluation
    measures = aggregator.needs_losses or evaluation is not None
    return ClientRuntime(
        trainer=trainer,
        aggregator=aggregator,
        records=parts.records,
        key=key,
        plan=plan.hash,
        measure=ModuleMeasure(module, objective, parts.task.kind, x, y) if measures else None,
        validation=parts.federated.validation if evaluation is not None else None,
        evaluation=evaluation,
        between=functools.partial(_let_go_of, parts.task.train),
        paired=config.privacy.paired,
    )


def _let_go_of(records: Examples) -> None:
    """Of records in a file, what clients read would otherwise stay mapped in a worker until the run ends."""
    let_go(records.x)
    let_go(records.y)


def _shared(array: NDArray[Any]) -> Tensor:
    """A tensor on the array's own memory: the workers of a machine hold the records once.

    The memory of the object store, or of a file, is read-only, which torch warns of. Nobody writes to it: a batch is
    gathered into memory of its own.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _warm_up(trainer: Trainer, parts: Parts) -> None:
    """Train one client for nothing: first calls of numerical kernels are slow, and no round should wait for them.

    The result is thrown away, and its randomness comes from a key that nothing else uses.
    """
    key = new_key()
    streams = [
        Stream(key, StreamId(purpose=purpose, client=0, round=0, digest=b""))
        for purpose in ("batches", "record noise")
    ]
    job = ClientJob(client=0, records=parts.records[0], batches=streams[0], noise=streams[1])
    trainer.train(parts.initial, [job])
