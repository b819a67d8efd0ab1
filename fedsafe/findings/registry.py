"""The metrics that a finding may name, by name."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from fedsafe.errors import ConfigError
from fedsafe.findings.catalogue import BUILT_IN
from fedsafe.findings.metric import Metric

_METRICS: dict[str, Metric] = {metric.name: metric for metric in BUILT_IN}

BUILT_IN_METRICS: frozenset[str] = frozenset(_METRICS)
"""The names that only assessors of FedSafe may report."""

METRICS: Mapping[str, Metric] = MappingProxyType(_METRICS)
"""Every registered metric by name; read only."""


def register_metric(metric: Metric) -> Metric:
    """Adds the metric of an assessor that lives outside this package.

    Args:
        metric: The definition. Registering an equal one again changes nothing.

    Raises:
        ConfigError: The name is taken by another definition.
    """
    known = _METRICS.setdefault(metric.name, metric)
    if known != metric:
        raise ConfigError(
            f"metric {metric.name!r} is registered with another definition; choose another name"
        )
    return known


def find_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        ConfigError: No metric has the name; the message holds the nearest one.
    """
    metric = _METRICS.get(name)
    if metric is None:
        near = difflib.get_close_matches(name, _METRICS, n=1, cutoff=0.4)
        remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(_METRICS))}"
        raise ConfigError(f"no metric is named {name!r}; {remedy}")
    return metric
