"""The client that pays most, and a bound for every other, when clients differ in rate, noise or steps.

A federation's record-level number is the largest of its clients': their records are disjoint, so nothing adds up and
nothing may be averaged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import ConfigError
from fedsafe.privacy.accounting.accounted import Accounted, account
from fedsafe.privacy.accounting.curves import FINE
from fedsafe.privacy.accounting.releases import Adjacency, SampledGaussian
from fedsafe.privacy.accounting.rough import rough_epsilon

# A bound may lie 2 % above the exact figure: so much for the bucket, the rest for the wider interval.
SLACK = 0.02
_BUCKET = 0.015
# Exact figures that one report computes; each takes up to a second.
MOST_EXACT = 40

# How much each of rate, steps and noise weighs in a bucket: about how fast epsilon follows it.
_WEIGHTS = np.array([1.0, 0.5, 2.0])


@dataclass(frozen=True, kw_only=True)
class ClientSpend:
    """What one record of one client takes part in, all rounds together.

    Args:
        rate: Poisson rate of its records in a step; with batches of B out of n records, B/n.
        noise: Noise multiplier.
        steps: Steps in all rounds that the client may take part in.
    """

    rate: float
    noise: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class WorstClient:
    """What the clients of a federation pay.

    Args:
        epsilon: Upper bound for the worst client, and so for the federation.
        client: Its position; the first where several pay the same.
        delta: Probability that a bound fails.
        bounds: ``(clients,)`` upper bound for each.
        exact: ``(clients,)`` whether it is the figure at interval 1e-4; every other is at most 2 % above that.
        front: How many different clients no other one exceeds in all of rate, steps and lack of noise.
        accountant: Of the worst client's figure.
    """

    epsilon: float
    client: int
    delta: float
    bounds: NDArray[np.float64]
    exact: NDArray[np.bool_]
    front: int
    accountant: str

    def to_json(self) -> dict[str, Any]:
        """The distribution, without saying which client pays what."""
        quantiles = np.quantile(self.bounds, (0.0, 0.25, 0.5, 0.75, 1.0), method="higher")
        names = ("least", "quarter", "median", "three_quarters", "most")
        return {
            "epsilon": float(self.epsilon),
            "delta": self.delta,
            "clients": int(self.bounds.size),
            "exact": int(self.exact.sum()),
            "front": self.front,
            "accountant": self.accountant,
            "quantiles": {name: float(value) for name, value in zip(names, quantiles, strict=True)},
        }


def worst_client(
    clients: Sequence[ClientSpend],
    delta: float,
    adjacency: Adjacency = "zero-out",
    most_exact: int = MOST_EXACT,
) -> WorstClient:
    """Epsilon of the worst client by PLD, and bounds at most 2 % above theirs for the others.

    A client costs more with a larger rate, more steps and less noise. So the worst one is on the Pareto front, whose
    clients get exact figures, the ones that may be the worst first. Others share the figure of the worst corner of
    their bucket, which is made small enough that its best corner costs no more than 1.5 % less.

    Args:
        clients: At least one.
        delta: Probability that a bound fails, the same for all.
        adjacency: What differs between neighbouring data sets.
        most_exact: Exact figures to compute. A front that has more keeps bounds for those that cannot be the worst, and
            in the end for the cheapest.

    Raises:
        ConfigError: There are no clients, or one of their numbers is out of range.
    """
    if not clients:
        raise ConfigError("a federation without clients has no worst one: give at least one")
    # Larger is worse in every column.
    table = np.array([(client.rate, client.steps, -client.noise) for client in clients], dtype=float)
    points, which = np.unique(table, axis=0, return_inverse=True)
    known: dict[tuple[float, ...], float] = {}

    def release(point: NDArray[np.float64]) -> SampledGaussian:
        rate, steps, noise = map(float, point)
        return SampledGaussian(rate=rate, noise=-noise, count=round(steps), adjacency=adjacency)

    def rough(point: NDArray[np.float64]) -> float:
        key = tuple(map(float, point))
        if key not in known:
            known[key] = rough_epsilon(release(point), delta)
        return known[key]

    front = _front(points)
    bounds = np.full(len(points), np.inf)
    # A small front gets exact figures all the same, and needs no bucket.
    bucketed = np.setdiff1d(np.arange(len(points)), front if len(front) <= most_exact else [])
    for members, bound in _buckets(points, bucketed.astype(np.int64), rough):
        bounds[members] = bound
    exact = np.zeros(len(points), dtype=bool)
    found: dict[int, Accounted] = {}
    for position in sorted(front, key=lambda at: -bounds[at])[:most_exact]:
        if (
            len(front) > most_exact
            and found
            and bounds[position] <= max(one.epsilon for one in found.values())
        ):
            break
        found[position] = account([release(points[position])], delta, interval=FINE)
        bounds[position], exact[position] = found[position].epsilon, True
    # Whoever is not on the front pays no more than somebody who is.
    bounds = np.minimum(bounds, bounds[front].max())
    worst = max(front, key=lambda at: (bounds[at], exact[at]))
    named = found.get(worst) or account([release(points[worst])], delta, interval=FINE)
    return WorstClient(
        epsilon=float(bounds[worst]),
        client=int(np.flatnonzero(which == worst)[0]),
        delta=delta,
        bounds=bounds[which],
        exact=exact[which],
        front=len(front),
        accountant=named.accountant,
    )


def _front(points: NDArray[np.float64]) -> list[int]:
    """Positions of those that no other point equals or exceeds in all columns."""
    kept: list[int] = []
    on_front = np.empty((0, points.shape[1]))
    # Whatever exceeds a point comes before it in this order.
    for position in np.lexsort(points.T[::-1])[::-1]:
        if not (on_front >= points[position]).all(axis=1).any():
            kept.append(int(position))
            on_front = np.vstack((on_front, points[position]))
    return kept


def _buckets(
    points: NDArray[np.float64], members: NDArray[np.int64], rough: Callable[[NDArray[np.float64]], float]
) -> list[tuple[NDArray[np.int64], float]]:
    """Members that share a bound, and the bound."""
    made, open_ = [], [members] if members.size else []
    while open_:
        bucket = open_.pop()
        inside = points[bucket]
        best, worst = inside.min(axis=0), inside.max(axis=0)
        upper = rough(worst)
        if (best == worst).all() or upper <= (1.0 + _BUCKET) * rough(best):
            made.append((bucket, upper))
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            widths = np.nan_to_num(
                np.abs(np.log(np.abs(worst)) - np.log(np.abs(best))) * _WEIGHTS, posinf=1e9
            )
        column = int(np.argmax(widths))
        middle = (worst[column] + best[column]) / 2.0
        if best[column] * worst[column] > 0.0:
            middle = float(np.sign(worst[column])) * float(np.sqrt(best[column] * worst[column]))
        left = inside[:, column] <= min(middle, np.nextafter(worst[column], -np.inf))
        open_ += [bucket[left], bucket[~left]]
    return made
