"""The process in which uploaded code runs: the first lines of it are FedSafe's, the rest is the app's.

Before it takes the app it finds out for itself that it is kept: what is hidden cannot be listed or read, there is no
network, and it is no administrator. An app asks for its reply by :func:`ask`.
"""

import importlib
import io
import os
import socket
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

from fedsafe.deploy.framing import receive, send

_MOST_BYTES = 2**31
_HOME = Path("/tmp/app")  # noqa: S108 - an empty mount of this process alone

_gate: list[socket.socket] = []


def ask() -> bytes:
    """The noised update that the gate made for this message, in Flower's encoding of a RecordDict; once."""
    own = _gate.pop()
    send(own, b"t")
    return receive(own, _MOST_BYTES)


def main(descriptor: int, hidden: Sequence[str]) -> None:
    """Take an app and a message from the gate, and run one on the other.

    Args:
        descriptor: Of the socket.
        hidden: Paths that must not be here.
    """
    own = socket.socket(fileno=descriptor)
    send(own, b"k" if not escapes(hidden) else b"n")
    fab, kind, content = (receive(own, _MOST_BYTES) for _ in range(3))
    _gate.append(own)
    _run(fab, kind.decode(), content)


def escapes(hidden: Sequence[str]) -> list[str]:
    """What this process can reach that it should not."""
    found = [path for path in hidden if _readable(path)]
    if os.getuid() == 0 or os.geteuid() == 0:
        found.append("it is root")
    if any(name != "lo" for _, name in socket.if_nameindex()):
        found.append("it has a network")
    return found


def _readable(path: str) -> bool:
    try:
        return bool(os.listdir(path)) if os.path.isdir(path) else bool(Path(path).read_bytes())
    except OSError:
        return False


def _run(fab: bytes, kind: str, content: bytes) -> None:
    from flwr.app import Context, Message, RecordDict
    from flwr.common.serde import recorddict_from_proto
    from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    _HOME.mkdir()
    with zipfile.ZipFile(io.BytesIO(fab)) as files:
        files.extractall(_HOME)
    project = tomllib.loads((_HOME / "pyproject.toml").read_text())
    module, _, attribute = project["tool"]["flwr"]["app"]["components"]["clientapp"].partition(":")
    sys.path.insert(0, str(_HOME))
    app = getattr(importlib.import_module(module), attribute)
    message = Message(
        recorddict_from_proto(ProtoRecordDict.FromString(content)), dst_node_id=1, message_type=kind
    )
    app(message, Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={}))
