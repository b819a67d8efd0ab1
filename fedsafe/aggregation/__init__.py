"""Aggregation: how updates become one update of the global model.

To add an aggregator, write a class with the methods of :class:`Aggregator` and name it in ``RULES`` (and in
``_PROVEN``'s list, so that its sensitivity is looked at).
"""

from collections.abc import Callable
from difflib import get_close_matches

from fedsafe.aggregation.base import Aggregator, Fold, Updates
from fedsafe.aggregation.noisy_mean import NoisyMean
from fedsafe.aggregation.rows import FedAvg, Median
from fedsafe.errors import ConfigError
from fedsafe.privacy.plan import PrivacyPlan

__all__ = [
    "RULES",
    "Aggregator",
    "FedAvg",
    "Fold",
    "Median",
    "NoisyMean",
    "Updates",
    "build_aggregator",
    "check_aggregator",
]


def _noisy_mean(plan: PrivacyPlan) -> Aggregator:
    if not plan.client.private:
        return FedAvg()
    return NoisyMean(
        clip=plan.client.clip, noise=plan.client.noise, bits=plan.client.grid_bits, divisor=plan.divisor
    )


RULES: dict[str, Callable[[PrivacyPlan], Aggregator]] = {
    NoisyMean.name: _noisy_mean,
    FedAvg.name: lambda plan: FedAvg(),
    Median.name: lambda plan: Median(),
}
_PROVEN = {rule.name for rule in (NoisyMean, FedAvg, Median) if rule.proven_sensitivity}


def check_aggregator(name: str, *, client_private: bool) -> None:
    """Refuse an aggregator that is unknown, or that cannot carry the client-level claim.

    Raises:
        ConfigError: With what to set instead.
    """
    if name not in RULES:
        near = get_close_matches(name, RULES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(RULES)}"
        raise ConfigError(f"server.aggregator = {name!r} is not known: {hint}")
    if client_private and name not in _PROVEN:
        raise ConfigError(
            f"server.aggregator = {name!r} has no proven sensitivity, so privacy.client cannot be claimed: use "
            f"{' or '.join(sorted(_PROVEN))}, or set privacy.client.epsilon = inf"
        )


def build_aggregator(name: str, plan: PrivacyPlan) -> Aggregator:
    """The aggregator of a plan.

    Raises:
        ConfigError: See :func:`check_aggregator`.
    """
    check_aggregator(name, client_private=plan.client.private)
    return RULES[name](plan)
