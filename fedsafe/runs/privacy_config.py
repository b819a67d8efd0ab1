"""The section ``privacy``, and how cohorts are drawn, on which it rests."""

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from fedsafe.errors import ConfigError
from fedsafe.runs.sections import Budget, Clip, Count, Delta, Noise, Rate, Section


class CohortConfig(Section):
    """How clients are sampled: each by a draw of its own, or so many without replacement, which costs more."""

    name: Literal["poisson", "fixed"] = "poisson"
    rate: Rate | None = None
    size: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _rate_or_size(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        fixed = values.get("name") == "fixed"
        wanted, other = ("size", "rate") if fixed else ("rate", "size")
        if values.get(other) is not None:
            raise ConfigError(
                f"federation.cohort.{other} = {values[other]!r} is no key of federation.cohort.name = "
                f"{values.get('name', 'poisson')!r}, which has a {wanted}: set the whole table, "
                'federation.cohort = { name = "fixed", size = 100 } or { name = "poisson", rate = 0.3 }'
            )
        if fixed and values.get("size") is None:
            raise ConfigError(
                'federation.cohort: name = "fixed" needs size, the number of clients in a cohort'
            )
        return values if fixed else {"rate": 0.3, **values}

    def rate_of(self, clients: int) -> float:
        """The probability of each client to be in a cohort.

        Args:
            clients: How many there are.

        Raises:
            ConfigError: A cohort is larger than that.
        """
        if self.size is None:
            return 0.3 if self.rate is None else self.rate
        if self.size > clients:
            raise ConfigError(
                f"federation.cohort.size = {self.size} of {clients} clients: lower it, or have more clients"
            )
        return self.size / clients


class RecordPrivacyConfig(Section):
    """Target of DP-SGD at each client; ``epsilon = inf`` removes clip and noise.

    With ``noise`` given, the target is a budget, and a client takes part in as many rounds as it pays for. ``budgets``
    are smaller ones of single clients, by number. With ``arithmetic = "grid"`` noise is added exactly on a public grid.
    """

    epsilon: Budget = 3.0
    delta: Delta = 1e-5
    clip: Clip = 1.0
    max_participations: Count | None = None
    noise: Noise | None = None
    arithmetic: Literal["float32", "grid"] = "float32"
    max_records_per_person: Count = 1
    budgets: dict[str, Budget] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _about_noise(self) -> "RecordPrivacyConfig":
        for option in ("noise", "budgets"):
            if getattr(self, option) and math.isinf(self.epsilon):
                raise ConfigError(
                    f"privacy.record.{option} is set, and privacy.record.epsilon = inf adds no noise: set a target, or "
                    f"leave {option} out"
                )
        if self.arithmetic == "grid" and math.isinf(self.epsilon):
            raise ConfigError(
                'privacy.record.arithmetic = "grid" is about noise, and privacy.record.epsilon = inf adds none: leave '
                "it out"
            )
        return self

    @model_validator(mode="after")
    def _numbered(self) -> "RecordPrivacyConfig":
        for client in self.budgets:
            if not client.isdecimal():
                raise ConfigError(f"privacy.record.budgets: {client!r} is no number of a client, from 0")
        return self


class ClientPrivacyConfig(Section):
    """Target of the noisy average; ``epsilon = inf`` means plain FedAvg.

    With ``noise`` given, the target is a budget, and the run ends before it is overspent.
    """

    epsilon: Budget = 8.0
    delta: Delta = 1e-3
    clip: Clip = 1.0
    noise: Noise | None = None
    max_clients_per_person: Count = 1

    @model_validator(mode="after")
    def _about_noise(self) -> "ClientPrivacyConfig":
        if self.noise is not None and math.isinf(self.epsilon):
            raise ConfigError(
                "privacy.client.noise is set, and privacy.client.epsilon = inf adds no noise: set a target, or leave "
                "noise out"
            )
        return self


class PrivacyConfig(Section):
    """Both levels. Privacy is on unless it is turned off by name.

    Runs that are ``paired`` share cohorts, batches and noise, at the scale of each, with every other such run of the
    seed: for differences between simulations. Two of them give the updates away.
    """

    noise_key: Literal["os", "seed"] = "os"
    paired: bool = False
    record: RecordPrivacyConfig = RecordPrivacyConfig()
    client: ClientPrivacyConfig = ClientPrivacyConfig()

    @model_validator(mode="after")
    def _paired_without_a_guarantee(self) -> "PrivacyConfig":
        if self.paired and self.noise_key != "seed":
            raise ConfigError(
                "privacy.paired = true shares noise between runs, which gives their updates away: add --reproducible "
                "(privacy.noise_key = 'seed'), so that no guarantee is claimed"
            )
        return self
