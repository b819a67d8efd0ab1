"""``fedsafe verify``: holds a plan of FedSafe, a Flower strategy or a Flower ClientApp to its privacy claim.

The checks see the declared claim and the messages that go in and come out, never the target's source.
``docs/verify.md`` says what a target looks like and what a claim declares.
"""

from fedsafe.verify.declared import DeclaredClaim, make_claim, read_claim
from fedsafe.verify.result import Outcome, Report
from fedsafe.verify.suite import CLIENT, RECORD, RUNS, check_plan, verify, verify_plan

__all__ = [
    "CLIENT",
    "RECORD",
    "RUNS",
    "DeclaredClaim",
    "Outcome",
    "Report",
    "check_plan",
    "make_claim",
    "read_claim",
    "verify",
    "verify_plan",
]
