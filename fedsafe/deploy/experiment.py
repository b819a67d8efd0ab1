"""The experiment that a server asks for, as the client reads it: what it may name, and what the client makes of it.

A configuration comes from the server as text. Nothing that it names is imported or opened unless the policy lists it,
and the sections that only a server acts on are put back to their defaults, so that they can name nothing here. What is
left decides the client's releases, and its digest recognises the experiment.
"""

import hashlib
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedsafe.aggregation import CHOICES, RULES, released_by
from fedsafe.aggregation.secure import SecureParameters
from fedsafe.client.objectives import OBJECTIVES, ROBUST
from fedsafe.data import Task
from fedsafe.data.deployed import HOLDER, NAME
from fedsafe.deploy.policy import Policy, require_allowed, require_secure
from fedsafe.deploy.refusals import Refusal, Refused
from fedsafe.errors import ConfigError, DataError, FedSafeError
from fedsafe.models import build_model
from fedsafe.models.zoo import ZOO
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.compose import Parts, aggregator_of, calibrate, compose
from fedsafe.runs.config import AssessConfig, CardConfig, Config, EngineConfig, make_config
from fedsafe.runs.secure import secure_parameters

# What a client loads from the text that a server sends is bounded before anything is made from it.
MOST_CHARACTERS = 2**16
MOST_RECORDS = 10**7
MOST_ROUNDS = 10**5
MOST_STEPS = 10**7

_TASK_KEYS = frozenset({"name", "schema", "schema_sha256", "clients", "evaluation"})
_SERVERS_OWN = {"assess": AssessConfig(), "sinks": [], "card": CardConfig(), "audit": None}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What a client takes part in, held to its policy.

    Args:
        digest: Of everything that decides its releases besides its records and its key.
        parts: Of the run, with this client's records at their place and nobody else's.
        plan: As this client calibrated it.
        client: Its number.
        epsilon: What it may release costs at the plan's delta, all rounds together.
        secure: Of its secure sums; None where it sends each update by itself.
    """

    digest: str
    parts: Parts
    plan: PrivacyPlan
    client: int
    epsilon: float
    secure: SecureParameters | None = None


def experiment_digest(text: str) -> str:
    """The digest of a configuration's text: what ``code.experiments`` of a policy lists.

    Raises:
        ConfigError: It is no configuration.
    """
    return config_digest(_for_client(make_config(_values(text))))


def read_experiment(text: str, policy: Policy) -> Config:
    """The part of a server's configuration that a client acts on.

    Raises:
        Refused: It names what the policy does not allow, or is no configuration.
    """
    try:
        config = _for_client(make_config(_values(text)))
    except (ConfigError, RecursionError) as error:
        raise _not_allowed(f"the configuration cannot be read: {error}") from error
    if policy.code.experiments and config_digest(config) not in policy.code.experiments:
        raise _not_allowed("it is none of code.experiments")
    if config.rounds > MOST_ROUNDS:
        raise _not_allowed(f"{config.rounds} rounds, at most {MOST_ROUNDS} are planned")
    if config.privacy.noise_key != "os":
        raise _not_allowed(
            "privacy.noise_key = 'seed': whoever knows the seed could remove this client's noise"
        )
    if config.byzantine is not None or config.federation.availability is not None:
        raise _not_allowed("byzantine and federation.availability are for simulations")
    _require_names(config, policy)
    _require_own_partition(config)
    return config


def compose_experiment(
    config: Config, policy: Policy, own: Callable[[Mapping[str, Any]], Task]
) -> Experiment:
    """Load the client's records, come to the plan, and hold it to the policy.

    Args:
        config: Of :func:`read_experiment`.
        policy: The client's own.
        own: The task with this client's records, of the configuration's table.

    Raises:
        Refused: The records are not what was agreed, or the policy does not allow the plan.
    """
    # A result must not depend on how many threads a machine has.
    torch.set_num_threads(1)
    spec = config.task if isinstance(config.task, dict) else {}
    try:
        task = own(spec)
    except (DataError, ConfigError) as error:
        raise Refused(Refusal.DATA_NOT_AS_AGREED, str(error)) from error
    parameters = _parameters(config, task)
    if parameters > policy.model.most_parameters:
        raise Refused(
            Refusal.MODEL_TOO_LARGE, f"{parameters} parameters, {policy.model.most_parameters} allowed"
        )
    _require_figures(config, policy)
    try:
        parts = compose(config, data=task)
        client = _number(parts, policy.client)
        plan = calibrate(parts)
        released = released_by(config.server.aggregator)
        secure = sums_of(parts, plan)
    except FedSafeError as error:
        if isinstance(error, Refused):
            raise
        raise _not_allowed(f"it cannot be composed: {error}") from error
    require_secure(policy, secure)
    epsilon = require_allowed(policy, plan, client=client, parameters=parts.layout.total, released=released)
    return Experiment(
        digest=config_digest(config), parts=parts, plan=plan, client=client, epsilon=epsilon, secure=secure
    )


def sums_of(parts: Parts, plan: PrivacyPlan) -> SecureParameters | None:
    """Of the secure sums of a run, the same at all parties; None where each update is sent by itself."""
    section = parts.config.aggregation
    return (
        secure_parameters(section, aggregator_of(parts, plan), parts.layout.total) if section.secure else None
    )


def _values(text: str) -> dict[str, Any]:
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"it has {len(text)} characters, at most {MOST_CHARACTERS} are read")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"it is not valid TOML: {error}") from error


def _for_client(config: Config) -> Config:
    return config.model_copy(update={**_SERVERS_OWN, "engine": EngineConfig(name="flower", workers=1)})


def config_digest(config: Config) -> str:
    """The digest of a configuration that :func:`read_experiment` gave."""
    return hashlib.sha256(config.to_toml().encode()).hexdigest()


def _require_names(config: Config, policy: Policy) -> None:
    """Refuse names that lead to code or files outside of FedSafe."""
    imports = set(policy.code.imports)
    model = _name_of(config.model)
    if model not in imports and not (model in ZOO and model in policy.model.names):
        raise _not_allowed(f"model {model!r} is neither in model.names nor in code.imports")
    aggregator = _name_of(config.server.aggregator)
    if aggregator not in imports and aggregator not in RULES:
        raise _not_allowed(f"server.aggregator {aggregator!r} is not FedSafe's own, nor in code.imports")
    if isinstance(config.server.aggregator, dict):
        choice = config.server.aggregator.get("choose")
        if choice is not None and choice not in CHOICES and choice not in imports:
            raise _not_allowed(
                f"server.aggregator.choose {choice!r} is not FedSafe's own, nor in code.imports"
            )
    objective = config.client.objective
    if objective is not None and objective.name not in {*OBJECTIVES, *ROBUST, *imports}:
        raise _not_allowed(f"client.objective {objective.name!r} is not FedSafe's own, nor in code.imports")
    for where in ("model", "server", "client", "data", "federation"):
        for value in _texts(config.model_dump(include={where}, exclude_none=True)):
            if value not in imports and any(sign in value for sign in ":/\\"):
                raise _not_allowed(f"{where} has {value!r}, a path that is not in code.imports")


def _require_figures(config: Config, policy: Policy) -> None:
    """Refuse what the policy refuses of any plan, before one is calibrated, which takes long for long runs."""
    allowed, client = policy.mechanism, config.client
    if client.batch_size is None and client.rate > allowed.largest_rate:
        raise Refused(
            Refusal.RATE_TOO_HIGH, f"sampling rate {client.rate:g}, {allowed.largest_rate:g} allowed"
        )
    if client.all_steps > allowed.largest_steps_per_round:
        raise Refused(
            Refusal.RATE_TOO_HIGH,
            f"{client.all_steps} steps a round, {allowed.largest_steps_per_round} allowed",
        )
    delta, own = config.privacy.record.delta, policy.budget.record.delta
    if not delta <= own:
        raise Refused(Refusal.BUDGET_SPENT, f"planned at delta {delta:g}, {own:g} allowed")
    if config.rounds * client.all_steps > MOST_STEPS:
        raise _not_allowed(
            f"{config.rounds} rounds of {client.all_steps} steps, at most {MOST_STEPS} steps are planned"
        )


def _require_own_partition(config: Config) -> None:
    """Every client's records are its own, all of them."""
    spec, federation = config.task, config.federation
    if not isinstance(spec, dict) or spec.get("name") != NAME:
        raise _not_allowed(
            f"task {_name_of(spec)!r} is not {NAME!r}: a client trains on its own records alone"
        )
    if unknown := set(spec) - _TASK_KEYS:
        raise _not_allowed(f"task has the unknown key {sorted(unknown)[0]!r}")
    counts = spec.get("clients")
    if not isinstance(counts, dict) or not all(type(count) is int and count > 0 for count in counts.values()):
        raise _not_allowed("task.clients does not say how many records each client has")
    if sum(counts.values()) > MOST_RECORDS:
        raise _not_allowed(
            f"task.clients has {sum(counts.values())} records, at most {MOST_RECORDS} are planned"
        )
    by = federation.partition.get("by", HOLDER)
    if (
        federation.partition.get("name") != "natural"
        or by != HOLDER
        or set(federation.partition) - {"name", "by"}
    ):
        raise _not_allowed('federation.partition is not "natural"')
    if federation.held_out or config.data.evaluation != "test":
        raise _not_allowed("records of clients would be moved: federation.held_out or data.evaluation is set")


def _parameters(config: Config, task: Task) -> int:
    """How many the model has, without the memory for one of them."""
    name = _name_of(config.model)
    if name not in ZOO:
        return 0  # listed in the policy by its import path; it is counted once it is made
    try:
        with torch.device("meta"):
            module = build_model(config.model, signature=task.signature, seed=config.seed)
    except FedSafeError as error:
        raise _not_allowed(f"the model cannot be made: {error}") from error
    return sum(math.prod(values.shape) for values in module.parameters())


def _number(parts: Parts, client: str) -> int:
    names = parts.federated.names or ()
    if client not in names:
        raise _not_allowed(f"it has no client {client!r}, only {', '.join(names)}")
    return names.index(client)


def own_rows(experiment: Experiment) -> Iterator[np.ndarray[Any, Any]]:
    """Everything of this client's that its releases depend on, in a fixed order, to recognise it again."""
    train, federated = experiment.parts.task.train, experiment.parts.federated
    for rows in (federated.records[experiment.client], federated.validation[experiment.client]):
        yield train.x[rows]
        yield train.y[rows]


def _name_of(spec: object) -> str:
    return str(spec.get("name")) if isinstance(spec, Mapping) else str(spec)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _not_allowed(detail: str) -> Refused:
    return Refused(Refusal.EXPERIMENT_NOT_ALLOWED, detail)
