"""What releases cost together, and who says so."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from fedsafe.errors import ConfigError
from fedsafe.privacy.accounting.curves import FINE, GaussianCurve, count, renyi_instead
from fedsafe.privacy.accounting.releases import (
    Adjacency,
    Release,
    SampledGaussian,
    counted,
)


@dataclass(frozen=True, kw_only=True)
class Accounted:
    """An epsilon, and how it was found.

    Args:
        epsilon: Upper bound; infinite where there is none.
        delta: Probability that the bound fails.
        adjacency: What differs between neighbouring data sets.
        accountant: Method, library and version, and interval or order, as printed in a claim.
        fallback: Whether PLD was tried and failed, so that this is a looser bound, by RDP.
        reason: Why it is not a PLD at the interval asked for; None where it is, or is exact.
    """

    epsilon: float
    delta: float
    adjacency: Adjacency
    accountant: str
    fallback: bool = False
    reason: str | None = None


def account(
    releases: Iterable[Release], delta: float, adjacency: Adjacency | None = None, interval: float = FINE
) -> Accounted:
    """Upper bound on epsilon at ``delta`` of everything that one protected element takes part in.

    The releases may follow from one another, as long as their numbers were fixed before the first.

    Args:
        releases: All of them.
        delta: Probability that the bound fails.
        adjacency: Account for all of them under this one; by default under their own, which must be the same.
        interval: Of the discretisation; any gives an upper bound, a smaller one a closer one.

    Raises:
        ConfigError: Delta is not a probability, adjacencies differ, or cohorts of fixed size are to be accounted for
            under another adjacency than replace-one.
    """
    parts = tuple(releases)
    if adjacency is not None:
        parts = tuple(_under(adjacency, part) for part in parts)
    return _account(parts, delta, adjacency or (parts[0].adjacency if parts else "zero-out"), interval)


def epsilon(
    mechanism: Release, delta: float, interval: float = FINE, also: tuple[Release, ...] = ()
) -> float:
    """The number of :func:`account` alone.

    Args:
        mechanism: What is released.
        delta: Probability that the bound fails.
        interval: Of the discretisation; any gives an upper bound, a smaller one a closer one.
        also: What the same protected element takes part in besides, under the same adjacency.
    """
    return _account((mechanism, *also), delta, mechanism.adjacency, interval).epsilon


def account_by_rdp(release: Release, delta: float, why: str) -> Accounted:
    """The looser bound of Rényi divergences, which takes no longer for more releases.

    Args:
        release: With noise.
        delta: Probability that the bound fails.
        why: There is no PLD, as the claim will say.
    """
    found = renyi_instead((release,), why)
    return Accounted(
        epsilon=found.curve.epsilon(delta),
        delta=delta,
        adjacency=release.adjacency,
        accountant=found.curve.name(delta),
        fallback=True,
        reason=why,
    )


@lru_cache(maxsize=1024)
def _account(parts: tuple[Release, ...], delta: float, adjacency: Adjacency, interval: float) -> Accounted:
    if not 0.0 < delta < 1.0:
        raise ConfigError(f"delta is {delta!r}: give a probability above 0 and below 1, such as 1e-5")
    releases = counted(parts)
    if not releases:
        return Accounted(epsilon=0.0, delta=delta, adjacency=adjacency, accountant="nothing was released")
    if any(part.noise == 0.0 for part in releases):
        name = GaussianCurve(noise=0.0).name(delta)
        return Accounted(epsilon=math.inf, delta=delta, adjacency=adjacency, accountant=name)
    found = count(releases, interval)
    bound = found.curve.epsilon(delta)
    if not math.isfinite(bound) and not found.fallback:
        found = renyi_instead(
            releases, f"PLD gives no bound at delta {delta:g}, which its arithmetic does not resolve"
        )
        bound = found.curve.epsilon(delta)
    return Accounted(
        epsilon=bound,
        delta=delta,
        adjacency=adjacency,
        accountant=found.curve.name(delta),
        fallback=found.fallback,
        reason=found.reason,
    )


def _under(adjacency: Adjacency, release: Release) -> Release:
    if isinstance(release, SampledGaussian):
        return replace(release, adjacency=adjacency)
    if adjacency != release.adjacency:
        raise ConfigError(
            f"a cohort of fixed size has no {adjacency} bound, since the place of a removed element is taken by "
            "another: account for it under replace-one, or draw Poisson cohorts"
        )
    return release
