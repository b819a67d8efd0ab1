"""A grid of runs under attack: attacks, rules, shares of adversaries, record-level budgets and partitions.

Simulation alone: adversaries are the simulation's own choice, and nothing of a grid is a release. Each cell is a run
(``runs/byzantine_cell.py``), trained with others in one stack and kept (``runs/cells.py``).
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from fedsafe.aggregation import RULES, check_aggregator, folds_rows
from fedsafe.aggregation.attacks import ATTACKS, attack_name, build_attack
from fedsafe.aggregation.attacks.attacked import require_rows
from fedsafe.aggregation.mixing import MIXINGS
from fedsafe.client.poisoning import POISONS
from fedsafe.errors import ConfigError
from fedsafe.extensions import resolve
from fedsafe.runs.config import Config, make_config

NO_ATTACK = "none"
"""Stands as the attack of a run that nobody attacks."""

DEFAULT_ATTACKS = ("sign_flip", "alie", "ipm", "min_max", "label_flip")
DEFAULT_AGGREGATORS = (
    "mean",
    "median",
    "trimmed_mean",
    "geometric_median",
    "multi_krum",
    "centred_clipping",
)
DEFAULT_SHARES = (0.1, 0.2, 0.3)
DEFAULT_EPSILONS = (math.inf, 8.0, 3.0)
PARTITIONS = ("iid", "skewed")

# Where the configuration's own partition is even, what "skewed" means.
_SKEWED = {"name": "dirichlet", "by": "label", "alpha": 0.3}
_EVEN = {"iid", "contiguous"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a grid.

    Args:
        attack: As asked for; ``NO_ATTACK`` without one.
        aggregator: As asked for.
        share: Of the clients who are adversaries; without an attack, what the rule allows for.
        epsilon: Of the record level.
        partition: ``"iid"`` or ``"skewed"``.
        seed: Of partition, weights, and of who is an adversary.
        config: Resolved.
    """

    attack: str
    aggregator: str
    share: float
    epsilon: float
    partition: str
    seed: int
    config: Config


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is attacked, and how.

    Args:
        base: Everything that the axes do not change. Options of an attack, a poison or a rule are taken from it where
            it names the same one.
        attacks: Names of attacks on the aggregation and of poisons, or import paths of attacks.
        aggregators: Names of rules, ``NAME+MIXING`` with what is done to the rows before, or import paths. A rule that
            asks how many adversaries there are is told the truth.
        shares: Of the clients who are adversaries, in (0, 0.5).
        epsilons: Of the record level; infinite for none.
        partitions: Of ``PARTITIONS``.
        seeds: How many runs each cell stands for.

    Raises:
        ConfigError: A name is not known, an axis is empty or out of range, or an attack needs the rows of a rule that
            has none.
    """

    base: Config
    attacks: Sequence[str] = DEFAULT_ATTACKS
    aggregators: Sequence[str] = DEFAULT_AGGREGATORS
    shares: Sequence[float] = DEFAULT_SHARES
    epsilons: Sequence[float] = DEFAULT_EPSILONS
    partitions: Sequence[str] = ("iid",)
    seeds: int = 1

    def __post_init__(self) -> None:
        """Refuse what could not be simulated."""
        for axis in ("attacks", "aggregators", "shares", "epsilons", "partitions"):
            values = list(getattr(self, axis))
            if not values:
                raise ConfigError(f"--{axis} is empty: name at least one")
            repeated = [value for value in values if values.count(value) > 1]
            if repeated:
                raise ConfigError(f"--{axis} names {repeated[0]} twice: leave one out")
        if self.seeds < 1:
            raise ConfigError(f"--seeds {self.seeds}: give a whole number from 1")
        for share in self.shares:
            self._check_share(share)
        for epsilon in self.epsilons:
            if not epsilon > 0.0:
                raise ConfigError(
                    f"--epsilon {epsilon:g}: a budget is above 0; inf is no privacy at the record level"
                )
        for partition in self.partitions:
            if partition not in PARTITIONS:
                near = get_close_matches(partition, PARTITIONS, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"use {' or '.join(PARTITIONS)}"
                raise ConfigError(f"--partition {partition!r} is not known: {hint}")
        for aggregator in self.aggregators:
            check_aggregator(
                self._aggregator(aggregator, min(self.shares)), client_private=False, record_private=False
            )
        for attack in self.attacks:
            self._check_attack(attack)

    def _check_share(self, share: float) -> None:
        clients = self.base.federation.clients
        count = None if clients is None else share * clients
        if count is not None and share >= 1.0:
            raise ConfigError(
                f"--shares {share:g} asks for {count:g} adversaries of {clients} clients: a share is below 0.5, such "
                "as 0.3"
            )
        if not 0.0 < share < 0.5:
            raise ConfigError(
                f"--shares {share:g}: a share is above 0 and below 0.5; no rule can tell adversaries from the others "
                "where they are half"
            )
        if count is not None and round(count) < 1:
            raise ConfigError(f"--shares {share:g} of {clients} clients is no adversary: raise it")

    def _check_attack(self, attack: str) -> None:
        section = self._section(attack, min(self.shares))
        if section is None or "attack" not in section:
            return
        build_attack(section["attack"])
        if attack_name(section["attack"]) == "model_replacement" and "poison" not in section:
            raise ConfigError(
                "--attacks model_replacement magnifies what poisoned records taught: set byzantine.poison in the "
                "configuration, such as a backdoor, too"
            )
        for aggregator in self.aggregators:
            rule, rows = folds_rows(self._aggregator(aggregator, min(self.shares)))
            require_rows(rule, rows, attack)

    def cells(self) -> Iterator[Cell]:
        """Every cell, those without attack first in each group.

        Those of rules that do not ask for the number of adversaries are the same run for every share.

        Raises:
            ConfigError: A cell's configuration contradicts itself.
        """
        for partition, epsilon, share, aggregator, attack, seed in itertools.product(
            self.partitions,
            self.epsilons,
            self.shares,
            self.aggregators,
            (NO_ATTACK, *self.attacks),
            range(self.base.seed, self.base.seed + self.seeds),
        ):
            yield Cell(
                attack=attack,
                aggregator=aggregator,
                share=share,
                epsilon=epsilon,
                partition=partition,
                seed=seed,
                config=self._config(attack, aggregator, share, epsilon, partition, seed),
            )

    def _config(
        self, attack: str, aggregator: str, share: float, epsilon: float, partition: str, seed: int
    ) -> Config:
        values = self.base.model_dump(exclude_none=True)
        values |= {"seed": seed, "sinks": [], "assess": {"assessors": []}}
        values["engine"] |= {"name": "inline"}
        values["federation"]["partition"] = self._partition(partition)
        values["federation"].pop("evaluation", None)
        values["server"]["aggregator"] = self._aggregator(aggregator, share)
        # No rule that withstands adversaries has a proven sensitivity.
        values["privacy"]["client"] = {"epsilon": math.inf, "clip": values["privacy"]["client"]["clip"]}
        record = values["privacy"]["record"]
        for key in ("noise", "budgets"):
            record.pop(key, None)
        record["epsilon"] = epsilon
        if math.isinf(epsilon):
            record.pop("arithmetic", None)
        values.pop("audit", None)
        values.pop("byzantine", None)
        section = self._section(attack, share)
        return make_config(values if section is None else {**values, "byzantine": section})

    def _partition(self, name: str) -> dict[str, Any]:
        own = dict(self.base.federation.partition)
        if name == "skewed":
            return _SKEWED if own.get("name") in _EVEN else own
        if self.base.federation.clients is None:
            raise ConfigError(
                "--partition iid needs federation.clients, which a natural partition has not: set it, or use skewed"
            )
        return own if own.get("name") == "iid" else {"name": "iid"}

    def _aggregator(self, asked: str, share: float) -> str | dict[str, Any]:
        """The rule with its options, the configuration's own where it names the same rule."""
        name, plus, before = asked.partition("+")
        own = self.base.server.aggregator
        options = dict(own) if isinstance(own, dict) and own.get("name") == name else {}
        for key in ("share", "adversaries", "name"):
            options.pop(key, None)
        if plus:
            options["before"] = before
        mixing = options.get("before")
        mixed = mixing.get("name") if isinstance(mixing, Mapping) else mixing
        rule = resolve("aggregator", name, RULES)
        if getattr(rule, "counts", False) or (mixed in MIXINGS and MIXINGS[mixed].counts):
            options["share"] = share
        return {"name": name, **options} if options else name

    def _section(self, attack: str, share: float) -> dict[str, Any] | None:
        """The section ``byzantine``; None without an attack."""
        if attack == NO_ATTACK:
            return None
        own = self.base.byzantine
        poison = None if own is None else own.poison
        if attack in POISONS:
            return {"poison": _same(poison, attack), "share": share}
        resolve("attacker", attack, {**ATTACKS, **POISONS})
        section = {"attack": _same(None if own is None else own.attack, attack), "share": share}
        # The one that is about what poisoned records taught.
        with_poison = attack == "model_replacement" and poison is not None
        return {**section, "poison": poison} if with_poison else section


def _same(own: str | dict[str, Any] | None, name: str) -> str | dict[str, Any]:
    """The configuration's own, with its options, if it has that name."""
    return own if isinstance(own, dict) and own.get("name") == name else name
