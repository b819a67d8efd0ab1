"""Whether the epsilon that is claimed, and the one that is reported, follow from the declared numbers."""

import math

from fedsafe.privacy.accounting import Adjacency, FixedSizeGaussian, SampledGaussian, epsilon
from fedsafe.verify import sources
from fedsafe.verify.declared import DeclaredClaim
from fedsafe.verify.result import Outcome, judged, not_applicable

# Another accountant may be tighter than ours by so much.
_RELATIVE, _ABSOLUTE = 0.02, 0.01


def epsilon_of(claim: DeclaredClaim, rounds: int) -> tuple[float, str]:
    """An upper bound on epsilon after so many rounds, at the claim's delta, and how it was counted."""
    if claim.delta is None or not claim.noise:
        return math.inf, "no noise"
    if claim.level == "client" and claim.weights == "examples":
        return math.inf, "weights that no clip bounds"
    noise, how = claim.noise, f"{claim.adjacency}"
    if claim.mechanism != "central":
        return _of_mechanism(claim, rounds)
    if claim.divisor == "realised":
        noise, how = noise / 2.0, f"{how}, and the realised divisor, which makes the sensitivity 2 clips"
    count = rounds * claim.steps if claim.level == "record" else rounds
    release: SampledGaussian | FixedSizeGaussian
    if claim.sampler == "poisson":
        release = SampledGaussian(rate=claim.share, noise=noise, count=count, adjacency=claim.adjacency)
    elif claim.sampler == "fixed" and claim.adjacency == "replace-one" and claim.share < 1.0:
        release = FixedSizeGaussian(
            population=claim.population, size=claim.size or 1, noise=noise, count=count
        )
        how += ", draws without replacement"
    else:
        if claim.sampler == "shuffle":
            count = rounds * math.ceil(claim.steps * claim.share) if claim.level == "record" else count
        if claim.sampler == "fixed" and claim.adjacency == "add/remove":
            noise, how = noise / 2.0, "add/remove, where another member takes the place of the one removed"
        adjacency: Adjacency = "replace-one" if claim.adjacency == "replace-one" else "zero-out"
        release = SampledGaussian(rate=1.0, noise=noise, count=count, adjacency=adjacency)
        how += ", nothing amplified"
    return epsilon(release, claim.delta), how


def _of_mechanism(claim: DeclaredClaim, rounds: int) -> tuple[float, str]:
    """Where nothing is amplified by sampling: Gaussians that compose, whoever adds them."""
    # Local noise is over 2 clips, which any two updates lie apart.
    moved = 2.0 if claim.adjacency == "replace-one" and claim.mechanism != "local" else 1.0
    moved *= 2.0 if claim.divisor == "realised" else 1.0
    count = min(rounds, 1) if claim.mechanism == "banded" else min(rounds, claim.often)
    release = SampledGaussian(rate=1.0, noise=claim.noise / moved, count=count)
    said = "all rounds as one release" if claim.mechanism == "banded" else f"{count} rounds of one client"
    return epsilon(release, claim.delta or 0.0), f"{claim.mechanism} noise, {said}, nothing amplified"


def check_epsilon(claim: DeclaredClaim) -> list[Outcome]:
    """The claimed epsilon against the claim's own numbers."""
    name = "claimed epsilon"
    if claim.epsilon is None:
        return [not_applicable(name, "the claim names none")]
    bound, how = epsilon_of(claim, claim.rounds)
    return [
        judged(
            name,
            holds=bound <= claim.epsilon * (1.0 + _RELATIVE) + _ABSOLUTE,
            claimed=f"epsilon {claim.epsilon:g} at delta {claim.delta:g} for all rounds",
            seen=f"epsilon {bound:.4g} from the declared numbers ({how})",
            source=sources.EPSILON,
        )
    ]


def check_reported(claim: DeclaredClaim, reported: dict[int, float], *, restarted: int | None) -> Outcome:
    """Epsilon as the target reported it after each round.

    Args:
        claim: What is claimed.
        reported: Round to the epsilon that was reported with it.
        restarted: The first round after a restart, if there was one.
    """
    name = "accountant over rounds"
    after = "" if restarted is None else f", a restart before round {restarted} included"
    claimed = f"an epsilon of all rounds so far{after}"
    if claim.delta is None:
        return not_applicable(name, "the claim names no delta")
    if not reported:
        return judged(
            name,
            holds=False,
            claimed=claimed,
            seen=f"no metric {claim.epsilon_metric!r} in any reply",
            source=sources.ACCOUNTANT,
        )
    due = {round: epsilon_of(claim, round)[0] for round in reported}
    short = [r for r, value in reported.items() if not value >= due[r] * (1.0 - _RELATIVE) - _ABSOLUTE]
    shown = short[-1] if short else max(reported)
    return judged(
        name,
        holds=not short,
        claimed=claimed,
        seen=f"epsilon {reported[shown]:.4g} after round {shown}, where {shown} rounds cost {due[shown]:.4g}",
        source=sources.ACCOUNTANT,
    )
