"""Replies on the disk before they are sent, so that a request that comes again gets the same bytes.

A reply that was computed a second time might differ in its last bits, from another version or processor, and two
releases under one noise would reveal their difference. So a reply that was stored is sent again or not at all.
"""

import hashlib
import os
from pathlib import Path

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from fedsafe.privacy.chain import sync_folder
from fedsafe.store.files import replace_file

# Of each run and kind: a server asks again for the round that it was in, never for earlier ones.
_KEPT = 3


class Replies:
    """The replies of a client.

    Args:
        folder: Where; it is made where absent, for its owner alone.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder

    def store(self, run: str, kind: str, round: int, content: RecordDict) -> str:
        """Write a reply, and return once the disk has it.

        Returns:
            SHA-256 of its bytes, in hexadecimal.
        """
        encoded = recorddict_to_proto(content).SerializeToString(deterministic=True)
        path = self._path(run, kind, round)
        replace_file(path, encoded)
        os.chmod(path, 0o600)
        sync_folder(self._folder)
        return hashlib.sha256(encoded).hexdigest()

    def read(self, run: str, kind: str, round: int, sha256: str) -> RecordDict | None:
        """The reply that was stored; None where it is gone, or is not the one with that digest."""
        try:
            encoded = self._path(run, kind, round).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(encoded).hexdigest() != sha256:
            return None
        return recorddict_from_proto(ProtoRecordDict.FromString(encoded))

    def forget_before(self, run: str, kind: str, rounds: tuple[int, ...]) -> None:
        """Delete the replies of all but the newest of these rounds."""
        for round in sorted(rounds)[:-_KEPT]:
            self._path(run, kind, round).unlink(missing_ok=True)

    def _path(self, run: str, kind: str, round: int) -> Path:
        return self._folder / f"{run}-{kind}-{round}.reply"
