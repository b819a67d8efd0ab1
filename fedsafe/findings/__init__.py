"""Findings: what was measured, how sure it is, and what could not be measured."""

from fedsafe.findings.constructors import (
    PROPORTION_INTERVALS,
    Context,
    Provenance,
    Scope,
    difference,
    estimate,
    not_measured,
    proportion,
)
from fedsafe.findings.evidence import Evidence
from fedsafe.findings.finding import Bound, Finding, Scalar, Status
from fedsafe.findings.intervals import (
    Interval,
    bootstrap,
    clopper_pearson,
    combine_shares,
    newcombe,
    percentile,
    t_interval,
    wilson,
)
from fedsafe.findings.metric import Direction, Metric
from fedsafe.findings.picture import picture
from fedsafe.findings.registry import BUILT_IN_METRICS, METRICS, find_metric, register_metric

__all__ = [
    "BUILT_IN_METRICS",
    "METRICS",
    "PROPORTION_INTERVALS",
    "Bound",
    "Context",
    "Direction",
    "Evidence",
    "Finding",
    "Interval",
    "Metric",
    "Provenance",
    "Scalar",
    "Scope",
    "Status",
    "bootstrap",
    "clopper_pearson",
    "combine_shares",
    "difference",
    "estimate",
    "find_metric",
    "newcombe",
    "not_measured",
    "percentile",
    "picture",
    "proportion",
    "register_metric",
    "t_interval",
    "wilson",
]
