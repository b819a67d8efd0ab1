"""A comparison of privacy budgets: which runs it stands for.

Cells of one seed share partition and initial model; only the budget, and what a grid names, differs. Each cell is a run
(``runs/comparison_cell.py``), trained with others in one stack and kept (``runs/cells.py``).
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from fedsafe.aggregation import RULES
from fedsafe.errors import ConfigError
from fedsafe.runs.config import Config, apply_override, make_config

Unit = Literal["record", "client", "both"]

CLIPPED = 1e300
"""Stands as the budget of a run whose levels clip and add no noise: what clipping alone costs."""

DEFAULT_EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0, math.inf)
DEFAULT_SEEDS = 5

UNIT = "unit"
"""Key of a grid that is no key of a configuration: which level the budgets of a series are for."""

# What has an option of its own, or is not for comparing.
_NOT_FOR_GRIDS = {
    "seed": "use --seeds",
    "task": "budgets are compared on one task; make a comparison for each",
    "data": "cells are judged on the same records; make a comparison for each",
    "audit": "every cell is audited alike",
    "privacy.noise_key": "use --reproducible",
    "privacy.paired": "use --paired",
    "privacy.record.epsilon": "use --epsilon with --unit record",
    "privacy.client.epsilon": "use --epsilon with --unit client",
    "engine": "it cannot change a result",
    "sinks": "it cannot change a result",
    "card": "it cannot change a result",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a comparison.

    Args:
        epsilon: Target of the units that are compared; infinite without privacy, ``CLIPPED`` without noise.
        series: What else differs: key to value as text, in the grid's order.
        seed: Of partition, weights, and of the noise where runs are reproducible.
        config: Resolved.
    """

    epsilon: float
    series: Mapping[str, str]
    seed: int
    config: Config


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared.

    Args:
        base: Everything that does not differ.
        epsilons: Budgets, each above 0; infinity removes clip and noise, ``CLIPPED`` the noise alone.
        seeds: How many runs each cell of the grid stands for.
        unit: Which level the budgets are for; by default each that has one in the configuration. The other level stays
            as it is configured.
        grid: Key of the configuration, or ``"unit"``, to its values, as text: a series of budgets for each combination.
        paired: Runs of a seed share cohorts, batches and noise at the scale of each, as ``privacy.paired`` says.

    Raises:
        ConfigError: An axis is empty or out of range, a key is not for comparing, or pairing would give secrets away.
    """

    base: Config
    epsilons: Sequence[float] = DEFAULT_EPSILONS
    seeds: int = DEFAULT_SEEDS
    unit: Unit | None = None
    grid: Mapping[str, Sequence[str]] = field(default_factory=dict)
    paired: bool = False

    def __post_init__(self) -> None:
        """Refuse what could not be compared."""
        if not self.epsilons:
            raise ConfigError("--epsilon is empty: name at least one budget")
        for epsilon in self.epsilons:
            if not epsilon > 0.0:
                raise ConfigError(
                    f"--epsilon {epsilon:g}: a budget is above 0; inf is no privacy, clipped is no noise"
                )
            # Two that have one name could not be told apart in any table.
            if [budget_name(other) for other in self.epsilons].count(budget_name(epsilon)) > 1:
                raise ConfigError(f"--epsilon names {budget_name(epsilon)} twice: leave one out")
        if self.seeds < 1:
            raise ConfigError(f"--seeds {self.seeds}: give a whole number from 1")
        if self.unit is not None:
            _require_unit("--unit", self.unit)
        if self.base.engine.name == "flower":
            raise ConfigError(
                "engine.name = 'flower' trains on nodes, one run at a time: use 'ray' or 'inline'"
            )
        if self.base.privacy.paired:
            object.__setattr__(self, "paired", True)
        if self.paired and self.base.privacy.noise_key != "seed":
            raise ConfigError(
                "--paired shares noise between runs, which gives their updates away: add --reproducible, so that no "
                "guarantee is claimed"
            )
        for key, values in self.grid.items():
            self._check_axis(key, values)

    def _check_axis(self, key: str, values: Sequence[str]) -> None:
        for name, remedy in _NOT_FOR_GRIDS.items():
            if key == name or key.startswith(f"{name}."):
                raise ConfigError(f"--grid {key}: {remedy}")
        if not values:
            raise ConfigError(f"--grid {key} has no values: give {key}=a,b")
        repeated = named_twice(values)
        if repeated is not None:
            raise ConfigError(f"--grid {key} names {repeated}: leave one out")
        if key == UNIT:
            if self.unit is not None:
                raise ConfigError(f"--unit {self.unit} and --grid {UNIT} say the same thing: leave one out")
            for value in values:
                _require_unit(f"--grid {UNIT} =", value)

    @property
    def levels(self) -> tuple[str, ...]:
        """Which levels the budgets of any series are for."""
        named = {level for series in self.series for level in self.levels_of(series)}
        return tuple(level for level in ("record", "client") if level in named)

    @property
    def series(self) -> list[dict[str, str]]:
        """What tells the series of budgets apart: one, of nothing, without a grid."""
        return [
            dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())
        ]

    def levels_of(self, series: Mapping[str, str]) -> tuple[str, ...]:
        """Which levels the budgets of a series are for."""
        unit = series.get(UNIT, self.unit)
        if unit is None:
            privacy = self.base.privacy
            private = tuple(
                unit for unit in ("record", "client") if math.isfinite(getattr(privacy, unit).epsilon)
            )
            return private or ("record",)
        return ("record", "client") if unit == "both" else (unit,)

    def cells(self) -> Iterator[Cell]:
        """Every cell: seeds inside budgets, budgets inside series.

        Raises:
            ConfigError: A cell's configuration contradicts itself, or a key of the grid is unknown.
        """
        seeds = range(self.base.seed, self.base.seed + self.seeds)
        for series, epsilon, seed in itertools.product(self.series, self.epsilons, seeds):
            yield Cell(epsilon=epsilon, series=series, seed=seed, config=self._config(series, epsilon, seed))

    def _config(self, series: Mapping[str, str], epsilon: float, seed: int) -> Config:
        values = self.base.model_dump(exclude_none=True)
        levels = self.levels_of(series)
        for key, value in series.items():
            if key == UNIT:
                continue
            try:
                apply_override(values, f"{key}={value}")
            except ConfigError as error:
                raise ConfigError(str(error).replace("--set", "--grid", 1)) from error
        values |= {"seed": seed, "sinks": []}
        values["engine"] |= {"name": "inline"}
        privacy: dict[str, Any] = values["privacy"]
        privacy["paired"] = self.paired
        for level in levels:
            self._set_budget(privacy[level], level, epsilon)
        if epsilon == CLIPPED:
            values.pop("audit", None)  # no plan has such a level, and so no audit either
        if all(math.isinf(privacy[level]["epsilon"]) for level in ("record", "client")):
            # A noised evaluation has nothing to noise for.
            values["federation"].pop("evaluation", None)
        aggregator = values["server"]["aggregator"]
        name = aggregator if isinstance(aggregator, str) else aggregator.get("name")
        if (
            math.isinf(privacy["client"]["epsilon"])
            and name in RULES
            and RULES[name].proven_sensitivity
            and name != "grouped_mean"
        ):
            # Rules that are made of noise have no other meaning without: the plain mean is what they would be.
            values["server"]["aggregator"] = "noisy_mean"
        if epsilon == CLIPPED and "client" in levels and name != "noisy_mean":
            raise ConfigError(
                f"--epsilon clipped takes the noise out of a noisy mean, and server.aggregator is {name!r}: leave "
                "clipped out, or compare the record level alone (--unit record)"
            )
        return make_config(values)

    def _set_budget(self, section: dict[str, Any], level: str, epsilon: float) -> None:
        bounded = math.isfinite(epsilon) and epsilon != CLIPPED
        if f"privacy.{level}.noise" not in self.grid or not bounded:
            section.pop("noise", None)
        section.pop("budgets", None)
        section["epsilon"] = epsilon
        if not bounded:
            section.pop("arithmetic", None)


def _require_unit(option: str, unit: str) -> None:
    if unit not in get_args(Unit):
        raise ConfigError(f"{option} {unit!r} is no unit of privacy: use {', '.join(get_args(Unit))}")


def named_twice(values: Sequence[str]) -> str | None:
    """Which value is there twice, in words: of numbers, ``1`` and ``1.0`` are one; None where all differ."""
    seen: dict[float | str, str] = {}
    for value in values:
        try:
            number: float | str = float(value)
        except ValueError:
            number = value
        if number in seen:
            known = seen[number]
            return f"{value} twice" if known == value else f"one number twice, as {known} and {value}"
        seen[number] = value
    return None


def budget_name(epsilon: float) -> str:
    """``"inf"``, ``"clipped"``, or the number."""
    if math.isinf(epsilon):
        return "inf"
    return "clipped" if epsilon == CLIPPED else f"{epsilon:g}"


def read_budget(text: str) -> float:
    """The budget of such a name.

    Raises:
        ConfigError: It is neither a number nor one of the two names.
    """
    if text == "clipped":
        return CLIPPED
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise ConfigError(
            f"--epsilon {text!r} is not a number: give numbers with commas between them; inf is no privacy, clipped "
            "is no noise"
        )
    return number
