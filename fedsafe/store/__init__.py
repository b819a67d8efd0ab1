"""Reading and appending a run folder, without torch."""

from fedsafe.store.checkpoints import content_digest
from fedsafe.store.folder import RunFolder

__all__ = ["RunFolder", "content_digest"]
