"""What the gate raises where a request is not answered."""

from fedsafe.apps.refusals import Refusal
from fedsafe.errors import PrivacyError

__all__ = ["Refusal", "Refused"]


class Refused(PrivacyError):
    """A request that the client does not answer.

    Args:
        reason: Which leaves, and nothing else does.
        detail: For the client's own eyes: its log, audit file and ledger.
    """

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason, self.detail = reason, detail
