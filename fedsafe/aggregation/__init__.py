"""Aggregation: how updates become one update of the global model.

To add an aggregator, write a class with the methods of :class:`Aggregator` and name it in ``RULES``.
"""

from difflib import get_close_matches

from fedsafe.aggregation.averaging import FedAvg, NoisyMean
from fedsafe.aggregation.base import Aggregator, Fold, Updates
from fedsafe.aggregation.robust import Median
from fedsafe.errors import ConfigError
from fedsafe.privacy.plan import PrivacyPlan

__all__ = ["RULES", "Aggregator", "FedAvg", "Fold", "Median", "NoisyMean", "Updates", "build_aggregator"]


def _mean(plan: PrivacyPlan) -> Aggregator:
    if not plan.client.private:
        return FedAvg()
    return NoisyMean(
        clip=plan.client.clip, noise=plan.client.noise, bits=plan.client.grid_bits, divisor=plan.divisor
    )


RULES = {"noisy_mean": _mean, "fedavg": lambda plan: FedAvg(), "median": lambda plan: Median()}


def build_aggregator(name: str, plan: PrivacyPlan) -> Aggregator:
    """The aggregator of a plan.

    Raises:
        ConfigError: The name is unknown, or the plan makes a client-level claim that the rule cannot carry.
    """
    if name not in RULES:
        near = get_close_matches(name, RULES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(RULES)}"
        raise ConfigError(f"server.aggregator = {name!r} is not known: {hint}")
    rule = RULES[name](plan)
    if plan.client.private and not rule.proven_sensitivity:
        raise ConfigError(
            f"server.aggregator = {name!r} has no proven sensitivity, so privacy.client cannot be claimed: use "
            "'noisy_mean', or set privacy.client.epsilon = inf"
        )
    return rule
