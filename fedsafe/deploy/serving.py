"""The gate as a process: asks its SuperNode for work, and hands back what it may."""

import fcntl
import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fedsafe.deploy.gate import Gate, json_line
from fedsafe.deploy.runtime import Runtime, SuperNode, Work
from fedsafe.errors import ConfigError, EngineError, LedgerError

LOG = logging.getLogger("fedsafe.gate")
SECRET = "runtime.secret"  # noqa: S105 - the name of a file
_LOOK_SECONDS = 0.3


def serve(folder: Path, *, runtime: str, metrics_port: int | None = None) -> None:
    """Answer for a client until the process is ended.

    Args:
        folder: Of the client.
        runtime: ``host:port`` of its SuperNode's runtime interface, on this machine.
        metrics_port: Of the loopback address, for Prometheus; None for none.

    Raises:
        ConfigError: The secret that the SuperNode shares is missing, or the port is taken.
        LedgerError: Another gate answers for this client, or the ledger cannot be trusted.
    """
    with ExitStack() as stack:
        stack.enter_context(_alone(folder / "state"))
        gate = Gate(folder, say=_say)
        stack.callback(gate.close)
        node = SuperNode(runtime, _secret(folder / "state" / SECRET), most_bytes=gate.most_bytes)
        stack.callback(node.close)
        if metrics_port is not None:
            _listen(gate, metrics_port, stack)
        _say("waiting", client=gate.policy.client, runtime=runtime)
        told = ""
        while True:
            if not step(gate, node):
                time.sleep(_LOOK_SECONDS)
            if node.problem != told:
                told = node.problem
                _say("no work" if told else "work again", why=told)


def step(gate: Gate, node: Runtime) -> bool:
    """Answer one message, if there is one.

    Args:
        gate: Of the client.
        node: Where its work comes from.

    Returns:
        Whether there was one.
    """
    work = node.next()
    if work is None:
        return False
    began = time.monotonic()
    with node.busy(work):
        reply = gate.answer(work)
        _wait_for_multiple(work, began, gate.policy.timing.answer_multiple)
    try:
        node.reply(work, reply)
    except EngineError as error:
        # It is on the disk: who asks again gets it.
        _say("not taken", why=str(error))
    return True


def _wait_for_multiple(work: Work, began: float, multiple: float) -> None:
    """How long a client took follows the sizes of its secret batches; the server is told, and learns less of this."""
    if multiple > 0.0 and work.message.metadata.message_type in ("train", "evaluate"):
        taken = time.monotonic() - began
        time.sleep(math.ceil(taken / multiple) * multiple - taken)


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    state.mkdir(mode=0o700, exist_ok=True)
    # A folder that was packed and sent may have lost its modes, and the files in it rely on this one's.
    with suppress(PermissionError):
        state.chmod(0o700)
    descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LedgerError(
                f"{state} is in use by another gate: two would not know what the other releases; end that one first"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _secret(path: Path) -> bytes:
    try:
        secret, mode = path.read_bytes(), path.stat().st_mode & 0o777
    except OSError as error:
        raise ConfigError(
            f"the secret that gate and SuperNode share, {path}, cannot be read: {error.strerror}; make 32 random bytes "
            "there, for its owner alone, and give the SuperNode the same file"
        ) from error
    if mode & 0o077:
        raise ConfigError(
            f"{path} can be read by other users (mode {mode:o}), who could answer for this client: chmod 600 {path}"
        )
    if len(secret) < 32:
        raise ConfigError(f"{path} has {len(secret)} bytes: a secret of 32 random bytes is needed")
    return secret


def _listen(gate: Gate, port: int, stack: ExitStack) -> None:
    try:
        server, thread = gate.metrics.listen(port)
    except OSError as error:
        raise ConfigError(
            f"--metrics-port {port} cannot be used: {error.strerror}; choose another"
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    stack.callback(stop)


def _say(event: str, **fields: Any) -> None:
    LOG.info("%s", json_line(event, **fields))
