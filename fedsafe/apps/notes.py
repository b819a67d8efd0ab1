"""What the server of a run on nodes keeps beside its record, in ``RUN/private/``."""

from dataclasses import asdict
from pathlib import Path

from fedsafe.apps.nodes import Exchange, new_run
from fedsafe.errors import RecordError
from fedsafe.privacy.chain import sync_folder
from fedsafe.records import End, Round, Start
from fedsafe.runs.judge import Assessment
from fedsafe.store.files import replace_file
from fedsafe.store.lines import append_lines

_NAME, _REPLIES = "run.token", "replies.jsonl"


class RunNotes:
    """The run's name to its nodes, and how each exchange with them was answered.

    The name is on the disk before the first message of a round leaves: whoever resumes the run asks under the same
    name, so that the nodes know what they have released in it.

    Args:
        path: The folder of a run that goes on; None for a new one.

    Raises:
        RecordError: The folder names no run that nodes know.
    """

    def __init__(self, path: Path | None) -> None:
        self._private: Path | None = None
        # Who joins is known before there is a folder.
        self._early: list[Exchange] = []
        self.run = new_run() if path is None else _read(path / "private" / _NAME)

    def tell(self, exchange: Exchange) -> None:
        """Add a line about an exchange."""
        if self._private is None:
            self._early.append(exchange)
        else:
            append_lines(self._private / _REPLIES, [asdict(exchange)])

    def on_start(self, path: Path, start: Start, first_round: int) -> None:
        """Write down the run's name."""
        self._private = path / "private"
        name = self._private / _NAME
        # Whole or not at all: under half a name a resumed run would be another one to its nodes, and be charged again.
        if not name.is_file() or not name.read_text().strip():
            replace_file(name, f"{self.run}\n".encode())
            name.chmod(0o600)
            sync_folder(self._private)
        append_lines(self._private / _REPLIES, [asdict(exchange) for exchange in self._early])
        self._early = []

    def on_round(self, line: Round) -> None:
        """Nothing."""

    def on_assessment(self, assessment: Assessment) -> None:
        """Nothing."""

    def on_end(self, end: End) -> None:
        """Nothing."""


def _read(path: Path) -> str:
    try:
        return path.read_text().strip() or new_run()
    except FileNotFoundError:
        # The folder was made, and no message of a round had left: the nodes have released nothing under any name.
        if not path.parent.is_dir():
            raise RecordError(f"{path.parent.parent} is no run folder: name one to resume") from None
        return new_run()
