"""Audits: training with canaries in it, and what they prove about the epsilon that was accounted for.

An audited run is never a release: its model has canaries in it.
"""

from fedsafe.audit.report import AuditReport, Look
from fedsafe.audit.run import KINDS, Kind, audit_run
from fedsafe.audit.setting import Setting

__all__ = ["KINDS", "AuditReport", "Kind", "Look", "Setting", "audit_run"]
