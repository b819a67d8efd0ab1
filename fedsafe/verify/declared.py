"""The claim that a target is held to: what its author declares, in numbers (``docs/verify.md``)."""

import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from fedsafe.errors import ConfigError
from fedsafe.privacy.accounting.banded import banded_sensitivity
from fedsafe.privacy.mechanisms import square_root_coefficients
from fedsafe.runs.sections import Count, NotNegative, Positive, Rate, Section


class AdaptiveClip(Section):
    """How the clip adapts (Andrew et al. 2021)."""

    quantile: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    learning_rate: Positive = 0.2
    noise: NotNegative


class Banded(Section):
    """Noise that is correlated over rounds by a banded matrix (Choquette-Choo et al. 2023)."""

    bands: Count | None = None
    coefficients: list[float] = Field(default_factory=list)
    separation: Count | None = None

    @property
    def column(self) -> tuple[float, ...]:
        """First column of the lower-triangular Toeplitz matrix C."""
        return tuple(self.coefficients) or square_root_coefficients(self.bands or 1)

    @property
    def apart(self) -> int:
        """The least distance of two rounds with the same client."""
        return self.separation or len(self.column)


class Distributed(Section):
    """Noise that the clients of a round add together."""

    minimum: Count
    corrupt: Annotated[int, Field(ge=0)] = 0
    rounded: Annotated[float, Field(ge=1.0)] = 1.0

    @property
    def honest(self) -> int:
        """Survivors whose shares are counted on."""
        return self.minimum - self.corrupt


class StrategyHooks(Section):
    """What belongs to a strategy besides itself."""

    mods: list[str] = Field(default_factory=list)


class ClientHooks(Section):
    """Where a ClientApp gets its records and its learning rate from."""

    data: str
    learning_rate_key: str | None = None


class DeclaredClaim(Section):
    """A claim; see ``docs/verify.md`` for each field."""

    level: Literal["client", "record"]
    mechanism: Literal["central", "local", "banded", "distributed"] = "central"
    adjacency: Literal["zero-out", "add/remove", "replace-one"] = "zero-out"
    clip: Positive
    noise: NotNegative
    sampler: Literal["poisson", "fixed", "all", "shuffle"]
    rate: Rate | None = None
    size: Count | None = None
    population: Count
    weights: Literal["uniform", "examples", "capped"] = "uniform"
    cap: Count | None = None
    mean_weight: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    divisor: Literal["expected", "realised"] = "expected"
    rounds: Count = 1
    participations: Count | None = None
    steps: Count = 1
    learning_rate: Positive | None = None
    epsilon: Positive | None = None
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    metrics: list[str] = Field(default_factory=list)
    epsilon_metric: str | None = None
    reply: Literal["model", "update"] = "model"
    model: str | None = None
    adaptive_clip: AdaptiveClip | None = None
    banded: Banded | None = None
    distributed: Distributed | None = None
    strategy: StrategyHooks = StrategyHooks()
    client: ClientHooks | None = None
    run_config: dict[str, Any] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.sampler == "poisson" and self.rate is None:
            raise ConfigError('a claim with sampler = "poisson" needs its rate')
        if self.sampler in ("fixed", "shuffle") and (self.size is None or self.size > self.population):
            raise ConfigError(
                f'a claim with sampler = "{self.sampler}" needs a size, at most population = {self.population}'
            )
        if (self.epsilon is None) != (self.delta is None):
            raise ConfigError("a claim names epsilon and delta together, or neither")
        if self.adaptive_clip is not None and 0.0 < 2.0 * self.adaptive_clip.noise <= self.noise:
            raise ConfigError(
                f"adaptive_clip.noise = {self.adaptive_clip.noise:g} must be above noise / 2 = {self.noise / 2:g}: the "
                "noisy count is paid for from noise"
            )
        self._fits_its_mechanism()
        return self

    def _fits_its_mechanism(self) -> None:
        if (self.weights == "capped") != (self.cap is not None):
            raise ConfigError('a claim with weights = "capped" needs its cap, and no other has one')
        for name in ("banded", "distributed"):
            if (self.mechanism == name) != (getattr(self, name) is not None):
                raise ConfigError(f'a claim with mechanism = "{name}" needs [{name}], and no other has one')
        if self.mechanism != "central" and (self.level == "record" or self.adaptive_clip is not None):
            raise ConfigError(f'mechanism = "{self.mechanism}" is one of the client level, with a fixed clip')
        if self.banded is not None and (self.banded.bands is None) == (not self.banded.coefficients):
            raise ConfigError("[banded] needs its bands or its coefficients, and not both")
        if self.banded is not None and self.banded.apart < len(self.banded.column):
            raise ConfigError(
                f"banded.separation = {self.banded.apart} is below the {len(self.banded.column)} bands: clients come "
                "back before their noise has passed; raise it"
            )
        if self.distributed is not None and self.distributed.honest < 1:
            raise ConfigError(
                f"distributed.corrupt = {self.distributed.corrupt} of minimum = {self.distributed.minimum} leaves "
                "nobody who adds noise: raise minimum"
            )

    @property
    def share(self) -> float:
        """The share of clients (or records) that is drawn at a time, in expectation."""
        if self.sampler == "all":
            return 1.0
        if self.rate is not None and self.sampler == "poisson":
            return self.rate
        return (self.size or self.population) / self.population

    @property
    def expected(self) -> float:
        """How many are drawn at a time, in expectation: the divisor that is public."""
        return self.share * self.population

    @property
    def update_noise(self) -> float:
        """Noise multiplier of the updates alone: the noisy count of an adaptive clip has had its part."""
        if self.adaptive_clip is None or not self.adaptive_clip.noise or not self.noise:
            return self.noise
        # Andrew et al. (2021), theorem 1.
        return float((self.noise**-2 - (2.0 * self.adaptive_clip.noise) ** -2) ** -0.5)

    @property
    def often(self) -> int:
        """Rounds that one client takes part in, at most."""
        apart = 1 if self.banded is None else self.banded.apart
        return min(self.participations or self.rounds, -(-self.rounds // apart))

    @property
    def rounded(self) -> float:
        """Clips that one client can move the sum by: more than one where updates are rounded before they are sent."""
        return 1.0 if self.distributed is None else self.distributed.rounded

    @property
    def least(self) -> int:
        """Clients that must survive a round for anything to be released."""
        return 0 if self.distributed is None else self.distributed.minimum

    def noise_of(self, present: float) -> float:
        """Standard deviation, in clips, of the noise in a sum of so many clients, in a first round."""
        if self.mechanism == "local":
            return 2.0 * self.noise * math.sqrt(present)
        if self.banded is not None:
            sensitivity = banded_sensitivity(
                self.banded.column,
                rounds=self.rounds,
                separation=self.banded.apart,
                participations=self.often,
            )
            return self.noise * sensitivity / self.banded.column[0]
        if self.distributed is not None:
            return self.noise * self.rounded * math.sqrt(present / self.distributed.honest)
        return self.update_noise

    def line(self) -> str:
        """What is claimed, on one line."""
        drawn = f"rate {self.rate:g}" if self.sampler == "poisson" else f"{self.expected:g} at a time"
        units = "clients" if self.level == "client" else "records"
        how = "" if self.mechanism == "central" else f", {self.mechanism} noise"
        bound = "" if self.epsilon is None else f", epsilon {self.epsilon:g} at delta {self.delta:g}"
        horizon = f"{self.rounds} rounds" + (f" of {self.steps} steps" if self.level == "record" else "")
        return (
            f"{self.level} level ({self.adjacency}): clip {self.clip:g}, noise multiplier {self.noise:g}{how}, "
            f"{self.sampler} sampling of {self.population} {units} ({drawn}), {horizon}{bound}"
        )


def read_claim(path: Path) -> DeclaredClaim:
    """A claim from a TOML file.

    Raises:
        ConfigError: The file is missing or not TOML, a key is unknown or lacking, or a value does not fit.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; name a claim as docs/verify.md describes"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return make_claim(values)


def make_claim(values: dict[str, Any]) -> DeclaredClaim:
    """A claim from plain values.

    Raises:
        ConfigError: A key is unknown or lacking, or a value does not fit.
    """
    try:
        claim = DeclaredClaim.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(
            f"claim: {where or 'the whole'}: {problem['msg']} (docs/verify.md lists the keys)"
        ) from None
    if claim.level == "record":
        lacking = [name for name in ("model", "client", "learning_rate") if getattr(claim, name) is None]
        lacking += [] if "steps" in values else ["steps"]
        if lacking:
            raise ConfigError(f'a claim with level = "record" needs {", ".join(lacking)} (docs/verify.md)')
    return claim
