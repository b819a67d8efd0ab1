"""Audits: training with canaries in it, and what they prove about the epsilon that was accounted for.

An audited training is never a release: its model has canaries in it.
"""

from fedsafe.audit.findings import findings_of
from fedsafe.audit.looks import Look
from fedsafe.audit.report import AuditReport
from fedsafe.audit.run import audit_run
from fedsafe.audit.setting import Setting
from fedsafe.audit.training import FEWEST, KINDS, AuditedTraining, Kind
from fedsafe.findings import confidence_of_look, due_rounds

__all__ = [
    "FEWEST",
    "KINDS",
    "AuditReport",
    "AuditedTraining",
    "Kind",
    "Look",
    "Setting",
    "audit_run",
    "confidence_of_look",
    "due_rounds",
    "findings_of",
]
