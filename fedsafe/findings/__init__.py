"""Findings: what was measured, how sure it is, and what could not be measured."""

from fedsafe.findings.attackers import Attacker, attackers
from fedsafe.findings.brackets import BRACKET, Bracket, brackets, is_sized, is_smoothed
from fedsafe.findings.constructors import (
    Context,
    Provenance,
    Scope,
    difference,
    estimate,
    not_measured,
    paired_difference,
    proportion,
)
from fedsafe.findings.evidence import Evidence
from fedsafe.findings.finding import Bound, Finding, Scalar, Status
from fedsafe.findings.intervals import (
    Interval,
    bootstrap,
    bounded_mean,
    clopper_pearson,
    combine_shares,
    newcombe,
    percentile,
    t_interval,
    wilson,
)
from fedsafe.findings.looks import OVER_ALL_LOOKS, Spending, confidence_of_look, due_rounds
from fedsafe.findings.metric import Direction, Metric
from fedsafe.findings.pairs import Pairs, mcnemar, paired_newcombe
from fedsafe.findings.picture import picture
from fedsafe.findings.registry import BUILT_IN_METRICS, METRICS, find_metric, register_metric
from fedsafe.findings.remaking import PROPORTION_INTERVALS, Remade, remake

__all__ = [
    "BRACKET",
    "BUILT_IN_METRICS",
    "METRICS",
    "OVER_ALL_LOOKS",
    "PROPORTION_INTERVALS",
    "Attacker",
    "Bound",
    "Bracket",
    "Context",
    "Direction",
    "Evidence",
    "Finding",
    "Interval",
    "Metric",
    "Pairs",
    "Provenance",
    "Remade",
    "Scalar",
    "Scope",
    "Spending",
    "Status",
    "attackers",
    "bootstrap",
    "bounded_mean",
    "brackets",
    "clopper_pearson",
    "combine_shares",
    "confidence_of_look",
    "difference",
    "due_rounds",
    "estimate",
    "find_metric",
    "is_sized",
    "is_smoothed",
    "mcnemar",
    "newcombe",
    "not_measured",
    "paired_difference",
    "paired_newcombe",
    "percentile",
    "picture",
    "proportion",
    "register_metric",
    "remake",
    "t_interval",
    "wilson",
]
