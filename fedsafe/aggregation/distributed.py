"""Distributed differential privacy, simulated: shares of noise from the clients, and a sum that alone is seen."""

import inspect
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, Rule, Updates
from fedsafe.aggregation.options import require_number
from fedsafe.errors import ConfigError, EngineError
from fedsafe.privacy.accounting.distributed import DistributedNoise
from fedsafe.privacy.clipping import clip_rows
from fedsafe.privacy.levels import DISTRIBUTED, Mechanics, Shares
from fedsafe.privacy.mechanisms import DistributedMechanism, Grid, Law, from_grid, rotate_back, wrap
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream


@final
class DistributedMean(Rule):
    """The distributed discrete Gaussian (Kairouz et al., 2021) or Skellam (Agarwal et al., 2021) mechanism.

    The server sees the sum of what clients send, modulo a power of two, as secure aggregation would show it; the masks
    are left out, so this is a simulation of what would be released. The noise holds for the clients that survive: below
    a minimum of them, a round is aborted before its sum is looked at.

    Args:
        mechanism: What a client does.
        divisor: The public constant.

    Guarantees:
        ==============  =======================================================
        update          what the client sends
        ==============  =======================================================
        all zeros       its share of noise
        non-finite      its share of noise
        norm above clip just under ``clip`` in length, rounded, and its share
        absent          nothing, and its share is missing too
        ==============  =======================================================

        The sum of all clients does not wrap around, but for the probability of
        :func:`~fedsafe.privacy.mechanisms.overflow_probability` (below 10^-15 for a million values, since the grid
        leaves room for ten deviations of the noise); a sum that does spoils the round's model and costs no privacy.
    """

    name: ClassVar[str] = "distributed_mean"
    proven_sensitivity: ClassVar[bool] = True
    mechanism: ClassVar[str] = DISTRIBUTED
    needs_draws: ClassVar[bool] = True

    def __init__(self, *, mechanism: DistributedMechanism, divisor: float) -> None:
        self._client = mechanism
        self._divisor = divisor

    @classmethod
    def from_plan(
        cls,
        plan: PrivacyPlan,
        *,
        minimum: int | None = None,
        corrupt: int = 0,
        modulus: int = 32,
        law: Law = "discrete gaussian",
        rotated: bool = True,
    ) -> Self:
        """Clip, noise and divisor of the plan, on the finest grid that the modulus and the sampler hold.

        Args:
            plan: The calibrated plan.
            minimum: Clients that must survive a round; half of the expected cohort, rounded up, by default.
            corrupt: Clients, of those, whose shares the adversary may know.
            modulus: Bits of the sum of all clients.
            law: Of the noise.
            rotated: Whether updates are rotated.

        Raises:
            ConfigError: An option is out of range.
        """
        shares = _shares(
            cohort=plan.divisor,
            parameters=0,
            minimum=minimum,
            corrupt=corrupt,
            modulus=modulus,
            law=law,
            rotated=rotated,
        )
        mechanism = DistributedMechanism(
            clip=plan.client.clip,
            noise=plan.client.noise,
            bits=0,
            modulus=shares.modulus,
            minimum=shares.minimum,
            corrupt=shares.corrupt,
            law=shares.law,
            rotated=shares.rotated,
        )
        return cls(mechanism=mechanism.on_finest_grid(plan.clients), divisor=plan.divisor)

    @classmethod
    def mechanics(cls, *, cohort: float, parameters: int, options: Mapping[str, Any]) -> Mechanics:
        """What clients add together, which the plan accounts for."""
        known = set(inspect.signature(_shares).parameters)
        chosen = {name: value for name, value in options.items() if name in known}
        return Mechanics(
            mechanism=cls.mechanism, shares=_shares(cohort=cohort, parameters=parameters, **chosen)
        )

    @property
    def client(self) -> DistributedMechanism:
        """What a client does."""
        return self._client

    def released(self, parameters: int, rounds: int) -> DistributedNoise:
        """What is accounted for.

        Args:
            parameters: Values of the model.
            rounds: That one client takes part in.
        """
        return DistributedNoise(
            law=self._client.law,
            share=self._client.share(parameters),
            honest=self._client.honest,
            l2=self._client.bound(parameters),
            l1=self._client.sum_bound(parameters),
            dimension=self._client.length(parameters),
            rounds=rounds,
        )

    def zero(self, parameters: int) -> Fold:
        """The sum over no client."""
        return Fold(
            arrays={
                "total": np.zeros(self._client.length(parameters), np.int64),
                "clients": np.zeros(1, np.int64),
                "parameters": np.array([parameters], np.int64),
            }
        )

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """What each client sends, summed modulo a power of two.

        Raises:
            EngineError: The clients were given nothing to draw from.
        """
        if len(updates.rows) != len(updates.draws or ()):
            raise EngineError(f"the aggregator {self.name} needs a stream for each client, and got none")
        total = fold.arrays["total"].copy()
        for row, stream in zip(updates.rows, updates.draws or (), strict=True):
            total = wrap(total + self.share_of(row, stream), self._client.modulus)
        return Fold(
            arrays={
                "total": total,
                "clients": fold.arrays["clients"] + len(updates.rows),
                "parameters": fold.arrays["parameters"],
            }
        )

    def share_of(self, row: NDArray[np.float64], stream: Stream) -> Grid:
        """``(length,)`` what one client sends: clipped, on the grid, with its share of the noise.

        Args:
            row: ``(parameters,)`` its update.
            stream: Of its own.
        """
        return self._client.sent(clip_rows(row[np.newaxis], self._client.clip)[0], stream)

    def fold_of(self, total: Grid, clients: int, parameters: int) -> Fold:
        """The fold of a sum that secure aggregation has shown.

        Args:
            total: ``(length,)`` modulo ``2^modulus``.
            clients: How many it is of.
            parameters: Values of the model.
        """
        return Fold(
            arrays={
                "total": total,
                "clients": np.array([clients], np.int64),
                "parameters": np.array([parameters], np.int64),
            }
        )

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The sum over both."""
        a, b = first.arrays, second.arrays
        return Fold(
            arrays={
                "total": wrap(a["total"] + b["total"], self._client.modulus),
                "clients": a["clients"] + b["clients"],
                "parameters": a["parameters"],
            }
        )

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """Unmask, rotate back, and divide by the public constant; the server adds no noise.

        Raises:
            EngineError: Too few clients are left for the noise that was planned.
        """
        clients, least = int(fold.arrays["clients"][0]), self._client.minimum
        if clients < least:
            raise EngineError(
                f"{clients} clients of the round are left, and the planned noise needs {least}: the sum stays masked "
                "and the round is aborted; let more clients take part, or plan for a smaller minimum"
            )
        total = from_grid(fold.arrays["total"].astype(np.int64, copy=False), self._client.bits)
        if self._client.rotated:
            total = rotate_back(total, int(fold.arrays["parameters"][0]))
        return total / self._divisor


def _shares(
    *,
    cohort: float,
    parameters: int,
    minimum: int | None = None,
    corrupt: int = 0,
    modulus: int = 32,
    law: Law = "discrete gaussian",
    rotated: bool = True,
) -> Shares:
    """The options, checked, with their defaults.

    Raises:
        ConfigError: An option is out of range.
    """
    least = max(1, math.ceil(cohort / 2.0)) if minimum is None else minimum
    name = DistributedMean.name
    for option, value in (("minimum", least), ("corrupt", corrupt), ("modulus", modulus)):
        require_number(name, option, value)
        if value != int(value):
            raise ConfigError(f"server.aggregator ({name}): {option} = {value!r}; it is a whole number")
    return Shares(
        law=law,
        minimum=int(least),
        corrupt=int(corrupt),
        modulus=int(modulus),
        rotated=rotated,
        parameters=parameters,
    )
