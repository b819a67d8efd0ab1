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
from fedsafe.aggregation.grouped_fedavg import GroupedFedAvg
from fedsafe.aggregation.grouped_mean import GroupedMean, require_column
from fedsafe.aggregation.grouped_membership import Membership
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
        GroupedMean,
        LocalGaussian,
        DistributedMean,
        FedAvg,
        GroupedFedAvg,
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
_REHEARSED = Membership.from_values(["a", "a", "b"])

# Rules with another meaning, and name, where nothing is clipped or noised.
_WITHOUT_NOISE = {NoisyMean.name: FedAvg.name, GroupedMean.name: GroupedFedAvg.name}


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
    resolve("aggregator", name, RULES)
    if client_private and not (name in RULES and RULES[name].proven_sensitivity):
        proven = [known.name for known in RULES.values() if known.proven_sensitivity]
        why = "" if name in RULES else " that FedSafe could check"
        raise ConfigError(
            f"server.aggregator = {name!r} has no proven sensitivity{why}, so privacy.client cannot be claimed: use "
            f"{' or '.join(proven)}, or set privacy.client.epsilon = inf"
        )
    if not client_private and name in RULES and RULES[name].proven_sensitivity and name not in _WITHOUT_NOISE:
        raise ConfigError(
            f"server.aggregator = {name!r} adds noise for a client-level target, and there is none: set "
            "privacy.client.epsilon, or use fedavg"
        )
    used = spec if client_private else _without_noise(spec)
    rule = resolve("aggregator", _parsed(used)[0], RULES)
    aggregator = _made(used, rule, _REHEARSAL, learning_rate=learning_rate, membership=_REHEARSED)
    if record_private and getattr(aggregator, "needs_losses", False):
        raise ConfigError(
            f"server.aggregator = {name!r} takes the clients' exact losses, so privacy.record cannot be claimed for "
            "any model: set privacy.record.epsilon = inf, or use a rule, or weights, without losses"
        )
    if name not in RULES:
        rehearse(aggregator)


def build_aggregator(
    spec: AggregatorSpec,
    plan: PrivacyPlan,
    *,
    learning_rate: float | None,
    membership: Membership | None = None,
) -> Aggregator:
    """The aggregator of a plan; a noisy mean without a client-level guarantee is plain FedAvg.

    Args:
        spec: See :func:`check_aggregator`.
        plan: The calibrated plan.
        learning_rate: Of the clients; None where their steps are not plain ones with one rate.
        membership: The clients' groups, for a rule that needs them.

    Raises:
        ConfigError: See :func:`check_aggregator`.
    """
    check_aggregator(
        spec,
        client_private=plan.client.private,
        record_private=plan.record.private,
        learning_rate=learning_rate,
    )
    if not plan.client.private:
        spec = _without_noise(spec)
    name, _ = _parsed(spec)
    rule = resolve("aggregator", name, RULES)
    return _made(spec, rule, plan, learning_rate=learning_rate, membership=membership)


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


def needs_groups(spec: AggregatorSpec) -> tuple[str, str, int] | None:
    """What the configuration calls an aggregator, its column and the least group; None for one without groups.

    Raises:
        ConfigError: Nothing has that name, or the rule is told no column.
    """
    name, options = _parsed(spec)
    if not getattr(resolve("aggregator", name, RULES), "needs_groups", False):
        return None
    column, smallest = options.get("column"), options.get("smallest", 1)
    require_column(name, column, smallest)
    return name, str(column), int(smallest)


def released_by(spec: AggregatorSpec, *, client_private: bool = True) -> tuple[str, ...]:
    """What leaves a client un-noised because of the aggregator: phrases for what a claim does not cover.

    Args:
        spec: See :func:`check_aggregator`.
        client_private: Whether there is a client-level target, without which some rules are others.

    Raises:
        ConfigError: Nothing has that name, or an option is out of range.
    """
    used = spec if client_private else _without_noise(spec)
    name, _ = _parsed(used)
    rule: Any = resolve("aggregator", name, RULES)
    if name in RULES and getattr(rule, "needs_groups", False):
        # Its options decide whether losses leave at all.
        rule = _made(used, rule, _REHEARSAL, learning_rate=1.0, membership=_REHEARSED)
    released = tuple(getattr(rule, "releases", ()))
    if name not in RULES:
        released = (*released, f"what the aggregator {name} sends of a client besides its update")
    return released


def _without_noise(spec: AggregatorSpec) -> AggregatorSpec:
    """What a rule is called where there is no client-level target."""
    name, options = _parsed(spec)
    return {**options, "name": _WITHOUT_NOISE[name]} if name in _WITHOUT_NOISE else spec


def _made(
    spec: AggregatorSpec,
    rule: Any,
    plan: PrivacyPlan,
    *,
    learning_rate: float | None,
    membership: Membership | None = None,
) -> Aggregator:
    name, options = _parsed(spec)
    # An option of a user's own may have the same name.
    given = membership if getattr(rule, "needs_groups", False) else None
    if given is None and getattr(rule, "needs_groups", False):
        raise ConfigError(
            f"server.aggregator ({name}) weighs groups of clients, and nobody says here who is in which: use it in a "
            "simulation"
        )
    if name in RULES:
        known = RULES[name]
        return known.from_plan(plan, **matched(name, known.from_plan, known, options, learning_rate, given))
    require_members(name, rule)
    arguments = matched(name, rule.from_plan, rule, options, learning_rate, given)
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
