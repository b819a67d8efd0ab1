"""Reading and appending a run folder, without torch."""

from fedsafe.store.checkpoints import content_digest
from fedsafe.store.folder import RunFolder, checkpoint_name

__all__ = ["RunFolder", "checkpoint_name", "content_digest"]
