"""The section ``client``: what a client does with its records."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fedsafe.client import SGD, Adam, LocalTraining, Objective, Schedule, build_objective
from fedsafe.client.objectives import ROBUST
from fedsafe.data import Task
from fedsafe.errors import ConfigError
from fedsafe.privacy.levels import RecordPlan
from fedsafe.runs.sections import Count, Decay, NotNegative, Positive, Rate, Section, Share, own_keys

# Each optimiser has keys of its own; those that are left out have the defaults of ``client/optimizers.py``.
_OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": None, "nesterov": None},
    "adam": {"beta1": None, "beta2": None, "eps": None},
}


class ScheduleConfig(Section):
    """How the learning rate changes over all local steps of the run: after ``warmup``, down to ``final`` of itself."""

    name: Literal["constant", "linear", "cosine", "exponential"] = "constant"
    warmup: Decay = 0.0
    final: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, values: Any) -> Any:
        return {"name": values} if isinstance(values, str) else values

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.name == "exponential" and self.final == 0.0:
            raise ConfigError(
                "client.optimizer.schedule = exponential never reaches final = 0: set final to what shall be left of "
                'the learning rate, such as { name = "exponential", final = 0.1 }'
            )
        return self


class ClientOptimizerConfig(Section):
    """What a local step does with the noised gradient. Its state starts from nothing in each round."""

    name: Literal["sgd", "adam"] = "sgd"
    lr: Positive = 1.0
    weight_decay: NotNegative | None = None
    momentum: Decay | None = None
    nesterov: bool | None = None
    beta1: Decay | None = None
    beta2: Decay | None = None
    eps: Positive | None = None
    schedule: ScheduleConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _keys_of_the_named(cls, values: Any) -> Any:
        return own_keys("client.optimizer", _OPTIMIZERS, "sgd", values)

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ConfigError(
                "client.optimizer.nesterov = true needs a momentum: set client.optimizer.momentum too"
            )
        return self

    @property
    def made(self) -> SGD | Adam:
        """The optimiser."""
        options = self.model_dump(exclude_none=True, exclude={"name", "lr", "schedule"})
        return Adam(**options) if self.name == "adam" else SGD(**options)


class ObjectiveConfig(Section):
    """What each step lowers, and how the records' inputs are perturbed for it.

    ``adversarial``: the loss where ``steps`` of gradient ascent end, of ``step_size`` each, within a ``radius`` in a
    ``norm``; it has a ``weight`` beside the record's own loss. ``trades``: the own loss, and ``beta`` times the change
    that such an ascent finds. ``gaussian``: the loss at noise of deviation ``sigma``. ``ibp``: the worst loss that
    intervals allow, its ``radius`` and ``kappa`` (weight of the own loss) reached after ``warmup`` and ``ramp``, parts
    of the run's steps.
    """

    name: str
    radius: Positive | None = None
    norm: Literal["linf", "l2"] | None = None
    steps: Count | None = None
    step_size: Positive | None = None
    weight: Rate | None = None
    beta: NotNegative | None = None
    sigma: Positive | None = None
    kappa: Share | None = None
    warmup: Decay | None = None
    ramp: Share | None = None

    @model_validator(mode="before")
    @classmethod
    def _keys_of_the_named(cls, values: Any) -> Any:
        values = {"name": values} if isinstance(values, str) else values
        return own_keys("client.objective", {name: dict(keys) for name, keys in ROBUST.items()}, "", values)


class ClientConfig(Section):
    """Local training: ``steps`` Poisson batches of rate ``rate``; ``proximal`` is FedProx's mu.

    With ``batch_size``, each step takes so many records without replacement instead, which costs more privacy.

    With ``precision = "bfloat16"`` models that stack run forward and backward in it; clipping, noise and steps stay in
    single precision.

    The parameters, or modules, that ``local`` names stay with each client, which finds them anew in every round: by
    ``local_steps`` steps before the others, of which it keeps them alone. These steps read records too, and are
    counted like the others.
    """

    objective: ObjectiveConfig | None = None
    optimizer: ClientOptimizerConfig = ClientOptimizerConfig()
    steps: Count = 2
    rate: Rate = 0.5
    batch_size: Count | None = None
    proximal: NotNegative = 0.0
    precision: Literal["bfloat16"] | None = None
    local: list[str] | None = None
    local_steps: Count | None = None

    @model_validator(mode="after")
    def _local_steps_are_for_local_parameters(self) -> Self:
        if self.local_steps is not None and not self.local:
            raise ConfigError(
                f"client.local_steps = {self.local_steps} finds the parameters that client.local names, and it names "
                "none: name some, or leave it out"
            )
        return self

    @property
    def steps_for_local(self) -> int:
        """Steps in a round before those that train everything; as many if nothing is said."""
        return (self.local_steps or self.steps) if self.local else 0

    @property
    def all_steps(self) -> int:
        """Steps in a round, each of which reads records."""
        return self.steps + self.steps_for_local

    @property
    def plain_rate(self) -> float | None:
        """The learning rate of plain steps by the gradient, all alike; None where steps are something else."""
        schedule = self.optimizer.schedule
        alike = schedule is None or (schedule.name == "constant" and not schedule.warmup)
        return self.optimizer.lr if alike and self.optimizer.made.plain and not self.proximal else None


def objective_of(config: ClientConfig, task: Task) -> Objective:
    """What clients lower, on records of a task.

    Raises:
        ConfigError: The objective is unknown, or not defined for this task.
    """
    named = config.objective
    spec = None if named is None else named.model_dump(exclude_none=True)
    return build_objective(spec, task.kind, task.schema)


def local_training(config: ClientConfig, level: RecordPlan, rounds: int) -> LocalTraining:
    """How every client of a run trains, besides its steps for local parameters.

    Args:
        config: The configured optimiser.
        level: What the plan says of the rest.
        rounds: Of the run, for the schedule of the learning rate.
    """
    optimizer = config.optimizer
    schedule = Schedule() if optimizer.schedule is None else Schedule(**optimizer.schedule.model_dump())
    return LocalTraining(
        learning_rate=optimizer.lr,
        steps=level.steps - level.local_steps,
        rate=level.rate,
        clip=level.clip if level.private else math.inf,
        noise=level.noise,
        proximal=config.proximal,
        optimizer=optimizer.made,
        schedule=schedule,
        rounds=rounds,
        grid_bits=level.grid_bits,
        batch_size=level.batch_size,
    )
