"""The cost of a hyper-parameter search: many private runs, of which the best is released."""

import math
from collections.abc import Iterable
from importlib.metadata import version
from typing import Literal

from fedsafe.errors import ConfigError
from fedsafe.privacy.accounting.accounted import Accounted
from fedsafe.privacy.accounting.releases import FixedSizeGaussian, Release, counted
from fedsafe.privacy.accounting.renyi import RenyiCurve

Runs = Literal["logarithmic", "geometric", "poisson"]

# The shape of the truncated negative binomial distribution of their number; dp-accounting calls Poisson's infinite.
_SHAPES: dict[Runs, float] = {"logarithmic": 0.0, "geometric": 1.0, "poisson": math.inf}


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
    from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS

    if runs not in _SHAPES:
        raise ConfigError(f"the number of runs cannot be {runs!r}: choose one of {', '.join(_SHAPES)}")
    if not 1.0 <= mean < math.inf:
        raise ConfigError(f"a search of {mean!r} runs on average is none: give 1 or more")
    parts = counted(releases)
    library = f"dp-accounting {version('dp-accounting')}"
    name = f"RDP of a search with a {runs} number of runs, {mean:g} on average, {library}"
    if not parts or any(part.noise == 0.0 for part in parts):
        bound = math.inf if parts else 0.0
        adjacency = parts[0].adjacency if parts else "zero-out"
        return Accounted(epsilon=bound, delta=delta, adjacency=adjacency, accountant=name)
    orders = tuple(map(float, DEFAULT_RDP_ORDERS))
    curve = RenyiCurve(orders=orders, values=tuple(_of_the_best(parts, orders, mean, _SHAPES[runs])))
    return Accounted(
        epsilon=curve.epsilon(delta),
        delta=delta,
        adjacency=parts[0].adjacency,
        accountant=f"{name}, order {curve.order(delta):g}",
        reason="the best of several runs has no PLD",
    )


def _of_the_best(
    parts: tuple[Release, ...], orders: tuple[float, ...], mean: float, shape: float
) -> Iterable[float]:
    from dp_accounting import dp_event
    from dp_accounting.privacy_accountant import NeighboringRelation
    from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant

    adjacency = parts[0].adjacency
    relation = (
        NeighboringRelation.REPLACE_ONE if adjacency == "replace-one" else NeighboringRelation.REPLACE_SPECIAL
    )
    events = []
    for part in parts:
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
        events.append(dp_event.SelfComposedDpEvent(one, part.count))
    accountant = RdpAccountant(list(orders), relation)
    accountant.compose(dp_event.RepeatAndSelectDpEvent(dp_event.ComposedDpEvent(events), mean, shape))
    return map(float, accountant.rdp)
