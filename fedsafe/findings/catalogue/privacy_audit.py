"""What canaries prove about a run, beside what was accounted for."""

from fedsafe.findings.metric import Metric

AUDIT = (
    Metric(
        name="privacy.audited_epsilon",
        unit="epsilon",
        low=0.0,
        direction="lower",
        description="What canaries prove: a lower bound on epsilon, beside the accounted upper bound.",
        citation="Steinke, Nasr and Jagielski 2023",
    ),
    Metric(
        name="privacy.accounted_epsilon",
        unit="epsilon",
        low=0.0,
        direction="lower",
        description="Accounted epsilon of the rounds so far, at the audit's delta: the upper end of the bracket.",
        citation="Steinke, Nasr and Jagielski 2023",
    ),
    Metric(
        name="privacy.audit_alarm",
        unit="yes or no",
        low=0.0,
        high=1.0,
        direction="lower",
        description="Whether the audited lower bound exceeds the accounted upper bound: 1 is an alarm.",
        citation="Steinke, Nasr and Jagielski 2023",
    ),
)
