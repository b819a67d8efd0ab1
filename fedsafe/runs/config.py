"""The configuration of a run: strict, with every default written out in the run's ``config.toml``."""

import hashlib
import os
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from fedsafe.errors import ConfigError
from fedsafe.extensions import search
from fedsafe.findings import Spending
from fedsafe.runs.attack_config import ByzantineConfig
from fedsafe.runs.audit_config import AuditConfig
from fedsafe.runs.availability_config import AvailabilityConfig
from fedsafe.runs.client_config import ClientConfig
from fedsafe.runs.constitution_config import ConstitutionTable
from fedsafe.runs.privacy_config import CohortConfig, PrivacyConfig
from fedsafe.runs.sections import Count, Decay, Positive, Section
from fedsafe.runs.secure_config import AggregationConfig, with_shared_noise


class DataConfig(Section):
    """What the model is judged on.

    ``"test"`` is the task's own evaluation split; ``"validation"`` is held out of its training split;
    ``"held_out_clients"`` are the records of clients who take no part (``federation.held_out``), and
    ``"client_validation"`` what clients keep for their own validation (``federation.client_validation``).
    """

    evaluation: Literal["test", "validation", "held_out_clients", "client_validation"] = "test"
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2


def _table_of_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class EvaluationConfig(Section):
    """Federated evaluation: a cohort of its own scores the model on its validation records every few rounds.

    With ``noised`` the scores are noised at client and server and charged: of each level's target, they may cost
    ``epsilon``. Without it they leave as they are, and each claim says so.
    """

    every: Count = 10
    noised: bool = True
    epsilon: Positive = 1.0


class FederationConfig(Section):
    """Who the clients are.

    A natural partition has one client for each holder of records, so that ``clients`` is left out there, and some of
    Flower's partitioners know how many there are; elsewhere it is 300 by default.
    """

    clients: Count | None = None
    partition: Annotated[dict[str, Any], BeforeValidator(_table_of_name)] = Field(
        default_factory=lambda: {"name": "iid"}
    )
    cohort: CohortConfig = CohortConfig()
    held_out: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    client_validation: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    evaluation: EvaluationConfig | None = None
    availability: AvailabilityConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_clients(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("clients") is not None:
            return values
        partition = _table_of_name(values.get("partition", "iid"))
        name = str(partition.get("name")) if isinstance(partition, dict) else ""
        known = name == "natural" or name.startswith("flwr:")
        return values if known else {**values, "clients": 300}


# Reddi et al. (2021) found tau = 1e-3 to do well nearly everywhere.
_ADAPTIVE = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}
_SERVER_OPTIMIZERS: dict[str, dict[str, float]] = {
    "sgd": {"lr": 1.0, "momentum": 0.8},
    "adam": _ADAPTIVE,
    "yogi": _ADAPTIVE,
}


class ServerOptimizerConfig(Section):
    """What moves the model by the averaged update; each optimiser has keys and defaults of its own."""

    name: Literal["sgd", "adam", "yogi"] = "sgd"
    lr: Positive = 1.0
    momentum: Decay | None = None
    beta1: Decay | None = None
    beta2: Decay | None = None
    tau: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _keys_of_the_named(cls, values: Any) -> Any:
        name = str(values.get("name", "sgd")) if isinstance(values, dict) else ""
        own = _SERVER_OPTIMIZERS.get(name)
        if own is None:
            return values
        for key in values:
            owners = [name for name, keys in _SERVER_OPTIMIZERS.items() if key in keys]
            if owners and key not in own:
                raise ConfigError(
                    f"server.optimizer.{key} belongs to {' and '.join(owners)}, not to {name!r}, which has "
                    f"{', '.join(own)}: name {' or '.join(owners)}, or leave it out by setting the whole table, "
                    f'server.optimizer = {{ name = "{name}", lr = {own["lr"]} }}'
                )
        return {**own, **values}


class ServerConfig(Section):
    """How updates become a model."""

    aggregator: str | dict[str, Any] = "noisy_mean"
    optimizer: ServerOptimizerConfig = ServerOptimizerConfig()


class AssessConfig(Section):
    """When and how the global model is judged.

    Where a `must` fails, ``on_failure = "keep"`` leaves the last accepted model as the one to release, and ``"stop"``
    ends the run. ``alpha_spending`` is how a requirement's confidence is shared by the rounds that it is judged in.
    The period doubles where assessments take more than ``max_share`` of the run's time. ``constitution`` names a file
    of principles; those about models are requirements, too.
    """

    every: Count = 10
    tier: Literal["cheap", "full"] = "cheap"
    assessors: list[str | dict[str, Any]] | None = None
    require: list[dict[str, Any]] | str = Field(default_factory=list)
    constitution: ConstitutionTable = None
    on_failure: Literal["keep", "stop"] = "keep"
    alpha_spending: Spending = "half_last"
    max_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2


class EngineConfig(Section):
    """Where clients run. Flower's own runtimes set ``"flower"`` by themselves.

    ``address`` joins a Ray cluster; ``gpus`` is each worker's part of a GPU. Nothing here but the device changes a
    result, and that only in the last bits.
    """

    name: Literal["ray", "inline", "flower"] = "ray"
    workers: Count = Field(default_factory=lambda: os.cpu_count() or 1)
    chunk: Count | None = None
    stack: Count | None = None
    address: Annotated[str, Field(min_length=1)] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpus: Annotated[float, Field(ge=0.0, le=64.0)] | None = None


class CardConfig(Section):
    """What only people can say of a model, for its card; what is empty is "not stated" there."""

    developers: str = ""
    contact: str = ""
    licence: str = ""
    intended_use: str = ""
    intended_users: str = ""
    out_of_scope: str = ""
    ethical_considerations: str = ""
    recommendations: str = ""


class Config(Section):
    """A whole run."""

    task: str | dict[str, Any] = "adult"
    model: str | dict[str, Any] = "logistic"
    rounds: Count = 40
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataConfig = DataConfig()
    federation: FederationConfig = FederationConfig(clients=300)
    client: ClientConfig = ClientConfig()
    server: ServerConfig = ServerConfig()
    aggregation: AggregationConfig = AggregationConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    assess: AssessConfig = AssessConfig()
    audit: AuditConfig | None = None
    byzantine: ByzantineConfig | None = None
    engine: EngineConfig = EngineConfig()
    sinks: list[str | dict[str, Any]] = Field(default_factory=list)
    card: CardConfig = CardConfig()

    @model_validator(mode="before")
    @classmethod
    def _noise_of_secure_sums(cls, values: Any) -> Any:
        return with_shared_noise(values)

    @property
    def digest(self) -> str:
        """SHA-256 of everything but the engine, the sinks and the card, which cannot change a result."""
        left_out: dict[str, Any] = {"engine": True, "sinks": True, "card": True}
        # As in folders of runs that are older than these settings.
        if not self.privacy.paired:
            left_out["privacy"] = {"paired"}
        if not self.aggregation.secure:
            left_out["aggregation"] = True
        settings = tomli_w.dumps(self.model_dump(exclude=left_out, exclude_none=True))
        return hashlib.sha256(settings.encode()).hexdigest()

    def to_toml(self) -> str:
        """As TOML, defaults included; what is unset is left out."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def default_source() -> str:
    """The TOML of the experiment that runs when no configuration is named."""
    return resources.files("fedsafe.runs").joinpath("default.toml").read_text(encoding="utf-8")


def read_config(source: Path | str | None, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file, or the default experiment, and apply ``a.b=c`` overrides.

    The import paths of a file may name modules of its own folder.

    Raises:
        ConfigError: The file is missing or not TOML, a key is unknown, or a value does not fit.
    """
    if source is None:
        values = tomllib.loads(default_source())
    else:
        path = Path(source)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}; name a TOML file") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
        search([path.parent])
    for override in overrides:
        apply_override(values, override)
    return make_config(values)


def parse_config(text: str) -> Config:
    """A configuration from TOML text, such as a run's ``config.toml``.

    Raises:
        ConfigError: It is not TOML, a key is unknown, or a value does not fit.
    """
    try:
        return make_config(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration is not valid TOML: {error}") from error


def make_config(values: Mapping[str, Any]) -> Config:
    """A configuration from plain values.

    Raises:
        ConfigError: A key is unknown, or a value does not fit.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one value of a configuration's plain values, in place, as ``a.b=c`` says.

    Raises:
        ConfigError: It is not of that form, or a section is a value.
    """
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise ConfigError(f"--set {override!r} is not of the form a.b=value")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string, so that quotes need no quoting in a shell
    target = values
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override!r}: {key!r} is a value, not a section")
    target[keys[-1]] = value


def _explain(error: ValidationError) -> str:
    """The first problem as one line: where, what, and what to write instead."""
    problem = error.errors()[0]
    parts = _known_path([str(part) for part in problem["loc"]])
    where = ".".join(parts)
    if problem["type"] == "extra_forbidden":
        *section, key = parts
        known = _fields(section)
        near = get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"did you mean {'.'.join([*section, *near])!r}?" if near else f"known here: {', '.join(known)}"
        return f"unknown configuration key {where!r}: {hint}"
    value = problem["input"]
    shown = f" = {value!r}" if not isinstance(value, dict | list) or len(str(value)) < 60 else ""
    if problem["type"] == "model_type":
        off = "; leave it out to have none" if _optional(parts) else ""
        return f"configuration {where}{shown}: it is a section with the keys {', '.join(_fields(parts))}{off}"
    off = "; inf turns this level off" if parts[-1] == "epsilon" else ""
    return f"configuration {where}{shown}: {_lower(problem['msg'])}{off}"


def _known_path(parts: list[str]) -> list[str]:
    """The path without what pydantic adds for the branches of a union, such as ``task.str``."""
    for depth in range(1, len(parts)):
        if not _fields(parts[:depth]):
            return parts[:depth]
    return parts


def _fields(path: Sequence[str]) -> list[str]:
    section: type[BaseModel] = Config
    for name in path:
        if name not in section.model_fields:
            return []
        found = _section_of(section.model_fields[name].annotation)
        if found is None:
            return []
        section = found
    return list(section.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, or may hold where it can be left out."""
    for branch in get_args(annotation) or (annotation,):
        if isinstance(branch, type) and issubclass(branch, BaseModel):
            return branch
    return None


def _optional(path: Sequence[str]) -> bool:
    """Whether a section may be absent, which turns off what it is about."""
    section: Any = Config
    for name in path[:-1]:
        section = _section_of(section.model_fields[name].annotation)
    return type(None) in get_args(section.model_fields[path[-1]].annotation)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
