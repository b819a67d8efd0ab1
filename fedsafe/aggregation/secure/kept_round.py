"""A client's part in a round, kept in its own folder, so that it takes part in each round once and for all.

Two sums of one round over two sets of clients differ by what single clients sent: a client that let itself be asked
again, by a server that says its first round failed, would show its update. Starting a round leaves a file that is
never removed, and the file of a round that is over holds no secret.
"""

import hashlib
import os
from pathlib import Path
from typing import Self

from fedsafe.aggregation.secure.parameters import RoundId
from fedsafe.errors import SecureAggregationError

_OVER = b"over\n"


class KeptRound:
    """The state of one client in one round, on its disk; made by :meth:`begin` or :meth:`resume`.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def begin(cls, folder: Path, client: int, round: RoundId, state: bytes) -> Self:
        """Start a round, with its first state written before anything is sent.

        Args:
            folder: The client's own.
            client: Its number.
            round: Which round of which run; the plan's digest does not count, so that another plan is no second chance.
            state: Of its :class:`~fedsafe.aggregation.secure.client.SecureClient`.

        Raises:
            SecureAggregationError: The client has taken part in it before.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = _path(folder, client, round)
        try:
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise SecureAggregationError(
                f"client {client} has taken part in round {round.round} of run {round.run!r} before: a second sum over "
                "other clients could show what it sent, so it does not take part again"
            ) from None
        _write(opened, state)
        _sync(folder)
        return cls(path)

    @classmethod
    def resume(cls, folder: Path, client: int, round: RoundId) -> tuple[Self, bytes]:
        """A round that was begun, and the state that was kept last.

        Raises:
            SecureAggregationError: It was not begun, or is over.
        """
        path = _path(folder, client, round)
        try:
            state = path.read_bytes()
        except FileNotFoundError:
            raise SecureAggregationError(
                f"client {client} has not begun round {round.round} of run {round.run!r} of secure aggregation: it "
                "takes part from the first stage or not at all"
            ) from None
        if state == _OVER:
            raise SecureAggregationError(
                f"round {round.round} of run {round.run!r} of secure aggregation is over for client {client}"
            )
        return cls(path), state

    def keep(self, state: bytes) -> None:
        """Replace the state; call it before the answer is sent, so that no stage is answered twice."""
        new = self._path.with_suffix(".new")
        _write(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), state)
        new.replace(self._path)
        _sync(self._path.parent)

    def finish(self) -> None:
        """Forget the secrets; the file stays, and says that the round is over."""
        self.keep(_OVER)


def _path(folder: Path, client: int, round: RoundId) -> Path:
    name = hashlib.sha256(f"{client} {round.round} ".encode() + round.run_digest).hexdigest()[:32]
    return folder / f"{name}.round"


def _write(opened: int, data: bytes) -> None:
    with os.fdopen(opened, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
