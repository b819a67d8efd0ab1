"""The metrics of the assessors that ship with FedSafe."""

from fedsafe.findings.catalogue.alignment import ALIGNMENT, PERSONAL_ALIGNMENT, PREFERENCE_POISONING
from fedsafe.findings.catalogue.attacks import MEMBERSHIP, PRIVACY, ROBUSTNESS
from fedsafe.findings.catalogue.certificates import CERTIFIED, CORRUPTIONS
from fedsafe.findings.catalogue.clients import GENERALISATION, PERSONALISATION
from fedsafe.findings.catalogue.comparison import COMPARISON
from fedsafe.findings.catalogue.conduct import PRINCIPLES
from fedsafe.findings.catalogue.constitution import CONSTITUTION
from fedsafe.findings.catalogue.explanations import CONSISTENCY, INTERPRETABILITY, SURROGATE
from fedsafe.findings.catalogue.fairness import FAIRNESS
from fedsafe.findings.catalogue.leaks import CLIENT_MEMBERSHIP, INVERSION
from fedsafe.findings.catalogue.monitor import MONITOR
from fedsafe.findings.catalogue.performance import PERFORMANCE
from fedsafe.findings.catalogue.privacy_audit import AUDIT
from fedsafe.findings.metric import Metric

ASSESS = (
    Metric(
        name="assess.completed",
        unit="yes or no",
        low=0.0,
        high=1.0,
        direction="higher",
        description="Whether an assessor ran to its end; only a failure is written.",
    ),
)

BUILT_IN: tuple[Metric, ...] = (
    *PERFORMANCE,
    *COMPARISON,
    *FAIRNESS,
    *ALIGNMENT,
    *PRINCIPLES,
    *CONSTITUTION,
    *ROBUSTNESS,
    *CERTIFIED,
    *CORRUPTIONS,
    *MEMBERSHIP,
    *CLIENT_MEMBERSHIP,
    *INVERSION,
    *PREFERENCE_POISONING,
    *PRIVACY,
    *AUDIT,
    *INTERPRETABILITY,
    *SURROGATE,
    *CONSISTENCY,
    *GENERALISATION,
    *PERSONALISATION,
    *PERSONAL_ALIGNMENT,
    *MONITOR,
    *ASSESS,
)
"""All of them, in the order of a reader's interest."""
