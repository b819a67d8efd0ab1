"""Group privacy: several elements of one person, all of which change together."""

import math
import sys
from functools import lru_cache

from fedsafe.errors import ConfigError
from fedsafe.privacy.accounting.curves import FINE, GaussianCurve, composed, count, renyi_instead
from fedsafe.privacy.accounting.losses import TooWideError
from fedsafe.privacy.accounting.releases import Release, SampledGaussian, counted, unsampled_noise


@lru_cache(maxsize=256)
def group_epsilon(
    mechanism: Release,
    delta: float,
    size: int,
    also: tuple[Release, ...] = (),
    interval: float = FINE,
    by_rdp: bool = False,
) -> float:
    """Upper bound on epsilon for a group of ``size`` elements that change together, such as those of one person.

    Without sampling they move the sum ``size`` times as far: exact. In Poisson samples each takes part by itself, so
    that a binomial number of them does: the mixture of Gaussians at 0, 1, ... ``size`` times the clip dominates
    (Charles et al. 2024, "Fine-tuning large language models with user-level differential privacy"; Choquette-Choo et
    al. 2023, corollary 4.7). Everything else has the bound of any mechanism: with (e, d) for one element, (k e,
    d (1 + exp(e) + ... + exp((k-1) e))) for k (Vadhan 2017, lemma 2.2), at the least such e that meets ``delta``.

    Args:
        mechanism: What is released, as one element takes part in it.
        delta: Probability that the bound for the group fails.
        size: Elements in the group: ``max_records_per_person`` of one client, or ``max_clients_per_person``.
        also: What the same elements take part in besides, under the same adjacency.
        interval: Of the discretisation.
        by_rdp: Do without a PLD of sampled releases, which takes minutes where they are very many.

    Raises:
        ConfigError: The size is not a whole number of one or more, or delta not a probability.
    """
    if size != int(size) or size < 1:
        raise ConfigError(f"a person cannot have {size!r} elements: give a whole number, 1 or more")
    if not 0.0 < delta < 1.0:
        raise ConfigError(f"delta is {delta!r}: give a probability above 0 and below 1, such as 1e-5")
    releases = counted((mechanism, *also))
    if not releases:
        return 0.0
    if any(part.noise == 0.0 for part in releases):
        return math.inf
    noise = unsampled_noise(releases)
    if noise is not None:
        return GaussianCurve(noise=noise / size).epsilon(delta)
    sampled = [part for part in releases if isinstance(part, SampledGaussian)]
    if len(sampled) == len(releases) and releases[0].adjacency != "replace-one" and not by_rdp:
        bound = _mixed(sampled, delta, int(size), interval)
        if math.isfinite(bound):
            return bound
    return any_group_epsilon(releases, delta, int(size), interval, by_rdp)


def _mixed(releases: list[SampledGaussian], delta: float, size: int, interval: float) -> float:
    """Infinite where the distribution cannot be held."""
    for coarser in (interval, 10.0 * interval):
        try:
            return composed(releases, coarser, size).epsilon(delta)
        except TooWideError:
            continue
        except (MemoryError, ArithmeticError, ValueError):
            break
    return math.inf


def any_group_epsilon(
    releases: tuple[Release, ...], delta: float, size: int, interval: float = FINE, by_rdp: bool = False
) -> float:
    """The bound that holds for every mechanism (Vadhan 2017), from the curve of one element.

    Args:
        releases: What one element takes part in, each with noise.
        delta: Probability that the bound for the group fails.
        size: Elements in the group.
        interval: Of the discretisation.
        by_rdp: From the curve of RDP.
    """
    curve = renyi_instead(releases, "").curve if by_rdp else count(releases, interval).curve
    if not math.isfinite(curve.epsilon(delta)):
        curve = renyi_instead(releases, "").curve

    def excess(single: float) -> float:
        # In logarithms, since the weight overflows; and a delta that underflows is not zero.
        least = sys.float_info.min
        return math.log(max(curve.delta(single), least)) + _log_weight(single, size) - math.log(delta)

    high = max(1.0, curve.epsilon(delta))
    while excess(high) > 0.0:
        high *= 2.0
        if high > 500.0:
            return math.inf
    low = 0.0
    while high - low > 1e-4 * max(1.0, high):
        middle = (low + high) / 2.0
        low, high = (middle, high) if excess(middle) > 0.0 else (low, middle)
    return size * high


def _log_weight(single: float, size: int) -> float:
    """log(1 + exp(e) + ... + exp((size-1) e)) for e = ``single``, which is zero or more."""
    if single == 0.0:
        return math.log(size)
    falls = math.log(-math.expm1(-size * single)) - math.log(-math.expm1(-single))
    return (size - 1) * single + falls
