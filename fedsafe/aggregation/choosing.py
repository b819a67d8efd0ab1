"""From the configuration's ``server.aggregator`` to a rule: a name, a table with options, or an import path."""

import math
from collections.abc import Mapping
from typing import Any

from fedsafe.aggregation.adaptive_clip import AdaptiveClip
from fedsafe.aggregation.agnostic import Agnostic
from fedsafe.aggregation.banded import BandedMean
from fedsafe.aggregation.base import Aggregator
from fedsafe.aggregation.capped_mean import CappedMean
from fedsafe.aggregation.centred_clipping import CentredClipping
from fedsafe.aggregation.checked import Checked, rehearse, require_members
from fedsafe.aggregation.chosen_noise import ChosenNoise
from fedsafe.aggregation.coordinate_wise import Mean, Median, TrimmedMean
from fedsafe.aggregation.distributed import DistributedMean
from fedsafe.aggregation.fedavg import FedAvg
from fedsafe.aggregation.geometric_median import GeometricMedian
from fedsafe.aggregation.krum import Krum, MultiKrum
from fedsafe.aggregation.local_gaussian import LocalGaussian
from fedsafe.aggregation.noisy_mean import NoisyMean
from fedsafe.aggregation.norm_bound import NormBound
from fedsafe.aggregation.options import matched
from fedsafe.aggregation.q_fedavg import QFedAvg
from fedsafe.aggregation.scaffold import Scaffold
from fedsafe.errors import ConfigError, FedSafeError
from fedsafe.extensions import one_line, resolve
from fedsafe.privacy.levels import ClientPlan, Mechanics, RecordPlan
from fedsafe.privacy.plan import PrivacyPlan

RULES: dict[str, type[Aggregator]] = {
    rule.name: rule
    for rule in (
        NoisyMean,
        CappedMean,
        AdaptiveClip,
        BandedMean,
        ChosenNoise,
        LocalGaussian,
        DistributedMean,
        FedAvg,
        Mean,
        Median,
        TrimmedMean,
        GeometricMedian,
        Krum,
        MultiKrum,
        CentredClipping,
        NormBound,
        QFedAvg,
        Agnostic,
        Scaffold,
    )
}

AggregatorSpec = str | Mapping[str, Any]

# Two clients and one round, without privacy: enough to find out whether options and members fit.
_REHEARSAL = PrivacyPlan(
    clients=3,
    rounds=1,
    record=RecordPlan(
        epsilon=math.inf, delta=1e-5, clip=1.0, rate=1.0, steps=1, max_participations=1, noise=0.0
    ),
    client=ClientPlan(epsilon=math.inf, delta=1e-5, clip=1.0, rate=1.0, noise=0.0, grid_bits=40),
    program="",
)


def check_aggregator(
    spec: AggregatorSpec,
    *,
    client_private: bool,
    record_private: bool,
    learning_rate: float | None = 1.0,
) -> None:
    """Refuse an aggregator that is unknown, is wrongly set or broken, or cannot carry a claim.

    Args:
        spec: A name, a table of a ``name`` and options, or ``"package.module:Class"``.
        client_private: Whether there is a client-level target.
        record_private: Whether there is a record-level target. A rule that weighs by exact losses makes every model a
            function of un-noised records, which no noise on the updates covers.
        learning_rate: Of the clients; None where their steps are not plain ones with one rate.

    Raises:
        ConfigError: With what to set instead.
        EngineError: A rule of the user's own failed in a rehearsal with three clients; it names the rule.
    """
    name, _ = _parsed(spec)
    rule = resolve("aggregator", name, RULES)
    if client_private and not (name in RULES and RULES[name].proven_sensitivity):
        proven = [known.name for known in RULES.values() if known.proven_sensitivity]
        why = "" if name in RULES else " that FedSafe could check"
        raise ConfigError(
            f"server.aggregator = {name!r} has no proven sensitivity{why}, so privacy.client cannot be claimed: use "
            f"{' or '.join(proven)}, or set privacy.client.epsilon = inf"
        )
    if not client_private and name in RULES and RULES[name].proven_sensitivity and name != NoisyMean.name:
        raise ConfigError(
            f"server.aggregator = {name!r} adds noise for a client-level target, and there is none: set "
            "privacy.client.epsilon, or use fedavg"
        )
    aggregator = _made(spec, rule, _REHEARSAL, learning_rate=learning_rate)
    if record_private and getattr(aggregator, "needs_losses", False):
        raise ConfigError(
            f"server.aggregator = {name!r} steers the model by the clients' exact losses, so privacy.record cannot be "
            "claimed for any model: set privacy.record.epsilon = inf, or use a rule that needs no losses"
        )
    if name not in RULES:
        rehearse(aggregator)


def build_aggregator(spec: AggregatorSpec, plan: PrivacyPlan, *, learning_rate: float | None) -> Aggregator:
    """The aggregator of a plan; a noisy mean without a client-level guarantee is plain FedAvg.

    Args:
        spec: See :func:`check_aggregator`.
        plan: The calibrated plan.
        learning_rate: Of the clients; None where their steps are not plain ones with one rate.

    Raises:
        ConfigError: See :func:`check_aggregator`.
    """
    check_aggregator(
        spec,
        client_private=plan.client.private,
        record_private=plan.record.private,
        learning_rate=learning_rate,
    )
    name, options = _parsed(spec)
    if name == NoisyMean.name and not plan.client.private:
        spec, name = {**options, "name": FedAvg.name}, FedAvg.name
    return _made(spec, resolve("aggregator", name, RULES), plan, learning_rate=learning_rate)


def mechanics_of(spec: AggregatorSpec, *, cohort: float, parameters: int) -> Mechanics:
    """How an aggregator releases, besides the numbers of the plan.

    Args:
        spec: See :func:`check_aggregator`.
        cohort: The expected cohort.
        parameters: Values of the model.

    Raises:
        ConfigError: Nothing has that name, or an option is out of range.
    """
    name, options = _parsed(spec)
    if name not in RULES:
        return Mechanics()
    return RULES[name].mechanics(cohort=cohort, parameters=parameters, options=options)


def folds_rows(spec: AggregatorSpec) -> tuple[str, bool]:
    """What the configuration calls an aggregator, and whether its folds hold each client's update by itself.

    Raises:
        ConfigError: Nothing has that name.
    """
    name, _ = _parsed(spec)
    return name, bool(getattr(resolve("aggregator", name, RULES), "folds_rows", False))


def released_by(spec: AggregatorSpec) -> tuple[str, ...]:
    """What leaves a client un-noised because of the aggregator: phrases for what a claim does not cover.

    Raises:
        ConfigError: Nothing has that name.
    """
    name, _ = _parsed(spec)
    rule = resolve("aggregator", name, RULES)
    released = tuple(getattr(rule, "releases", ()))
    if name not in RULES:
        released = (*released, f"what the aggregator {name} sends of a client besides its update")
    return released


def _made(spec: AggregatorSpec, rule: Any, plan: PrivacyPlan, *, learning_rate: float | None) -> Aggregator:
    name, options = _parsed(spec)
    if name in RULES:
        known = RULES[name]
        return known.from_plan(plan, **matched(name, known.from_plan, known, options, learning_rate))
    require_members(name, rule)
    arguments = matched(name, rule.from_plan, rule, options, learning_rate)
    try:
        made = rule.from_plan(plan, **arguments)
    except FedSafeError:
        raise
    except Exception as error:  # a user's own code may raise anything
        raise ConfigError(f"server.aggregator = {name!r} cannot be made: {one_line(error)}") from error
    require_members(name, made)
    return Checked(name, made)


def _parsed(spec: AggregatorSpec) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    if not isinstance(spec.get("name"), str):
        raise ConfigError(
            f'server.aggregator = {dict(spec)!r} has no name: {{ name = "trimmed_mean", share = 0.1 }} is one'
        )
    return spec["name"], {key: value for key, value in spec.items() if key != "name"}
