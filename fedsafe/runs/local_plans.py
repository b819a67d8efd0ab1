"""What a client's own training costs: the plans of training alone, of the federation, and of fine-tuning its model.

All three are made by the same code for the same record-level target. A client that trains alone has a plan of its own
rounds. One that fine-tunes has a plan of all rounds together, its own after the federation's, with one noise multiplier
that is larger than without: a sampled Gaussian mechanism of so many steps in all
(`fedsafe.privacy.levels.RecordPlan.mechanism`), and nothing is added up.
"""

import math
from dataclasses import dataclass, replace

from fedsafe.client import LocalTraining
from fedsafe.errors import ConfigError
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.client_config import ClientOptimizerConfig, local_training
from fedsafe.runs.compose import Parts, calibrate
from fedsafe.runs.config import Config, make_config
from fedsafe.runs.stacked_runs import PreparedRun

FEDERATED, ALONE, FINE_TUNED = "federated", "alone", "fine-tuned"
ARMS = (ALONE, FEDERATED, FINE_TUNED)


@dataclass(frozen=True, kw_only=True)
class OwnTraining:
    """What a client does by itself: plain steps on its own records, with the rate and clip of the federation.

    Args:
        rounds: Rounds' worth of steps, from 1.
        lr: Learning rate, above 0.
        momentum: Of the steps, in [0, 1).

    Raises:
        ConfigError: A number is out of range.
    """

    rounds: int
    lr: float
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"a client's own training of {self.rounds} rounds: give a whole number from 1")
        if not (math.isfinite(self.lr) and self.lr > 0.0):
            raise ConfigError(f"a client's own learning rate of {self.lr}: give a number above 0")
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"a client's own momentum of {self.momentum}: give a number in [0, 1)")

    def training(self, parts: Parts, plan: PrivacyPlan) -> LocalTraining:
        """As the trainer wants it: one long round, with the noise of a plan."""
        if parts.config.client.local:
            raise ConfigError("a client that trains alone shares nothing: leave client.local out")
        optimizer = ClientOptimizerConfig(name="sgd", lr=self.lr, momentum=self.momentum)
        config = parts.config.client.model_copy(update={"optimizer": optimizer, "proximal": 0.0})
        return replace(local_training(config, plan.record, 1), steps=self.rounds * plan.record.steps)


@dataclass(frozen=True, kw_only=True)
class Plans:
    """What each way releases of one record.

    Args:
        federated: The federation's rounds.
        alone: Those of a client that trains alone.
        fine_tuned: The federation's rounds and then the client's own.
        shared: The federation's part of the last one: as many rounds as ``federated``, with the noise of
            ``fine_tuned``.
    """

    federated: PrivacyPlan
    alone: PrivacyPlan
    fine_tuned: PrivacyPlan
    shared: PrivacyPlan

    def of(self, arm: str) -> PrivacyPlan:
        """The plan whose epsilon is that of one of the three ways."""
        return {FEDERATED: self.federated, ALONE: self.alone, FINE_TUNED: self.fine_tuned}[arm]


def plans_of(run: PreparedRun, alone: OwnTraining, fine_tuned: OwnTraining) -> Plans:
    """Plans that each meet the run's record-level target.

    Raises:
        ConfigError: The configuration has what these plans do not count.
        CalibrationError: The target cannot be met.
    """
    parts, plan = run.parts, run.plan
    _refuse(parts.config)
    whole = plan_of(parts, plan.record.max_participations + fine_tuned.rounds)
    return Plans(
        federated=plan,
        alone=plan_of(parts, alone.rounds),
        fine_tuned=whole,
        shared=replace(plan, record=replace(plan.record, noise=whole.record.noise)),
    )


def plan_of(parts: Parts, rounds: int) -> PrivacyPlan:
    """The plan of a client that takes part in so many rounds, and in no other.

    Raises:
        CalibrationError: The target cannot be met.
    """
    values = parts.config.model_dump(exclude_none=True)
    values["rounds"] = rounds
    values["privacy"]["record"].pop("max_participations", None)
    return calibrate(replace(parts, config=make_config(values)))


def _refuse(config: Config) -> None:
    record = config.privacy.record
    reasons = {
        "privacy.client.epsilon: who trains alone has no client-level guarantee; set it to inf": math.isfinite(
            config.privacy.client.epsilon
        ),
        "privacy.record.noise: the noise follows from the target here; leave it out": record.noise
        is not None,
        "privacy.record.budgets: every client has the same target here; leave it out": bool(record.budgets),
        "federation.evaluation: its releases are not counted here; leave it out": config.federation.evaluation
        is not None,
        "federation.partition: clients need evaluation records of their own; use a natural one": (
            config.federation.partition.get("name") != "natural"
        ),
    }
    for reason, there in reasons.items():
        if there:
            raise ConfigError(f"training alone is not compared with {reason}")
