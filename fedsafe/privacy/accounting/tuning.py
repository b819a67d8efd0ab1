"""The cost of a hyper-parameter search: many private runs, of which the best is released."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Literal

from fedsafe.errors import ConfigError
from fedsafe.privacy.accounting.accounted import Accounted
from fedsafe.privacy.accounting.releases import Adjacency, FixedSizeGaussian, Release, counted
from fedsafe.privacy.accounting.renyi import RenyiCurve

Runs = Literal["logarithmic", "geometric", "poisson"]

# The shape of the truncated negative binomial distribution of their number; dp-accounting calls Poisson's infinite.
_SHAPES: dict[Runs, float] = {"logarithmic": 0.0, "geometric": 1.0, "poisson": math.inf}


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search among runs that all release the same.

    Args:
        releases: What one run releases, its score included if that was computed from private records.
        mean: Expected number of runs, one or more; None for a run that is made once, and no search.
        runs: Distribution of their number.
        again: How many more runs are released of what was chosen, each with noise of its own.
    """

    releases: tuple[Release, ...]
    mean: float | None
    runs: Runs = "logarithmic"
    again: int = 0


def search_cost(
    releases: Iterable[Release], delta: float, *, mean: float, runs: Runs = "logarithmic"
) -> Accounted:
    """Epsilon of releasing the best of a random number of runs, each of which spends ``releases``.

    The number of runs must be drawn from the distribution, once, before the first of them; it stays secret, and so do
    the runs that were not the best. Running until one is good enough is not covered. Source: Papernot and Steinke
    (2022), "Hyperparameter tuning with Renyi differential privacy", theorems 2 and 6. The bound is an RDP.

    Args:
        releases: What one run releases, its score included if that was computed from private records.
        delta: Probability that the bound fails.
        mean: Expected number of runs, one or more.
        runs: Distribution of their number: the heavier its tail, the less it costs.

    Raises:
        ConfigError: The mean is below one, or the distribution is unknown.
    """
    return searches_cost([Search(releases=tuple(releases), mean=mean, runs=runs)], delta)


def searches_cost(searches: Sequence[Search], delta: float) -> Accounted:
    """Epsilon of searches whose choices are all released, with the runs that follow from them.

    Each search is bounded as :func:`search_cost` says, and Renyi divergences add up, whatever a search was told by an
    earlier one.

    Args:
        searches: One or more, under one adjacency.
        delta: Probability that the bound fails.

    Raises:
        ConfigError: A mean is below one, a distribution is unknown, or adjacencies differ.
    """
    from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS

    for search in searches:
        if search.runs not in _SHAPES:
            raise ConfigError(
                f"the number of runs cannot be {search.runs!r}: choose one of {', '.join(_SHAPES)}"
            )
        if search.mean is not None and not 1.0 <= search.mean < math.inf:
            raise ConfigError(f"a search of {search.mean!r} runs on average is none: give 1 or more")
    parts = counted(release for search in searches for release in search.releases)
    name = _name(searches)
    if not parts or any(part.noise == 0.0 for part in parts):
        bound = math.inf if parts else 0.0
        adjacency = parts[0].adjacency if parts else "zero-out"
        return Accounted(epsilon=bound, delta=delta, adjacency=adjacency, accountant=name)
    orders = tuple(map(float, DEFAULT_RDP_ORDERS))
    curve = RenyiCurve(orders=orders, values=tuple(_of_the_best(searches, orders, parts[0].adjacency)))
    return Accounted(
        epsilon=curve.epsilon(delta),
        delta=delta,
        adjacency=parts[0].adjacency,
        accountant=f"{name}, order {curve.order(delta):g}",
        reason="the best of several runs has no PLD",
    )


def _name(searches: Sequence[Search]) -> str:
    library = f"dp-accounting {version('dp-accounting')}"
    kinds = {(search.runs, search.mean) for search in searches if search.mean is not None}
    if len(kinds) != 1:
        return f"RDP of searches and runs, {library}"
    ((runs, mean),) = kinds
    several = len(searches) > 1 or any(search.again for search in searches)
    also = " and of runs" if several else ""
    return f"RDP of a search{also} with a {runs} number of runs, {mean:g} on average, {library}"


def _of_the_best(
    searches: Sequence[Search], orders: tuple[float, ...], adjacency: Adjacency
) -> Iterable[float]:
    total = [0.0] * len(orders)
    for search in searches:
        run = counted(search.releases)
        parts = [_curve(run, search.mean, search.runs, orders, adjacency)]
        if search.again:
            one = _curve(run, None, search.runs, orders, adjacency)
            parts.append(tuple(search.again * value for value in one))
        total = [math.fsum(values) for values in zip(total, *parts, strict=True)]
    return total


@lru_cache(maxsize=128)
def _curve(
    run: tuple[Release, ...], mean: float | None, runs: Runs, orders: tuple[float, ...], adjacency: Adjacency
) -> tuple[float, ...]:
    """Renyi divergences of a run, or of the best of several: a second each, and asked for again and again."""
    from dp_accounting import dp_event
    from dp_accounting.privacy_accountant import NeighboringRelation
    from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant

    relation = (
        NeighboringRelation.REPLACE_ONE if adjacency == "replace-one" else NeighboringRelation.REPLACE_SPECIAL
    )
    accountant = RdpAccountant(list(orders), relation)
    event = dp_event.ComposedDpEvent([_event(part, adjacency) for part in run])
    accountant.compose(event if mean is None else dp_event.RepeatAndSelectDpEvent(event, mean, _SHAPES[runs]))
    return tuple(map(float, accountant.rdp))


def _event(part: Release, adjacency: Adjacency) -> Any:
    from dp_accounting import dp_event

    moved = 2.0 if adjacency == "replace-one" else 1.0
    one = dp_event.GaussianDpEvent(part.noise / moved)
    if isinstance(part, FixedSizeGaussian):
        one = dp_event.SampledWithoutReplacementDpEvent(part.population, part.size, one)
    elif part.rate < 1.0:
        if adjacency == "replace-one":
            raise ConfigError(
                "a search over Poisson-sampled runs has no bound under replace-one: account for it under zero-out"
            )
        one = dp_event.PoissonSampledDpEvent(part.rate, one)
    return dp_event.SelfComposedDpEvent(one, part.count)
