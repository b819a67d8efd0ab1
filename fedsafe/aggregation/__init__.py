"""Aggregation: how updates become one update of the global model.

To add an aggregator, write a class with the members of :class:`Aggregator` and name it in ``RULES``.
"""

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


RULES: dict[str, type[Aggregator]] = {rule.name: rule for rule in (NoisyMean, FedAvg, Median)}


def check_aggregator(name: str, *, client_private: bool) -> None:
    """Refuse an aggregator that is unknown, or that cannot carry the client-level claim.

    Raises:
        ConfigError: With what to set instead.
    """
    if name not in RULES:
        near = get_close_matches(name, RULES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(RULES)}"
        raise ConfigError(f"server.aggregator = {name!r} is not known: {hint}")
    if client_private and not RULES[name].proven_sensitivity:
        proven = [rule.name for rule in RULES.values() if rule.proven_sensitivity]
        raise ConfigError(
            f"server.aggregator = {name!r} has no proven sensitivity, so privacy.client cannot be claimed: use "
            f"{' or '.join(proven)}, or set privacy.client.epsilon = inf"
        )


def build_aggregator(name: str, plan: PrivacyPlan) -> Aggregator:
    """The aggregator of a plan; a noisy mean without a client-level guarantee is plain FedAvg.

    Raises:
        ConfigError: See :func:`check_aggregator`.
    """
    check_aggregator(name, client_private=plan.client.private)
    rule = FedAvg if name == NoisyMean.name and not plan.client.private else RULES[name]
    return rule.from_plan(plan)
