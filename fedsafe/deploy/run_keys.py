"""The noise key of each run, and the experiment that it is for: on a client's disk as long as they may be needed.

Whoever finds a key can take the noise out of what was sent. So a run whose every planned release was made and stored
has its key deleted; what is asked for again is answered from what is stored.
"""

from pathlib import Path

from fedsafe.errors import LedgerError
from fedsafe.privacy.chain import sync_folder
from fedsafe.runs.keys import KEY_FILE, create_key, read_key
from fedsafe.store.files import replace_file


class RunKeys:
    """Keys and experiments of a client's runs.

    Args:
        state: The client's.
    """

    def __init__(self, state: Path) -> None:
        self._keys, self._experiments = state / "keys", state / "experiments"
        for folder in (self._keys, self._experiments):
            folder.mkdir(mode=0o700, exist_ok=True)

    def key(self, run: str, *, agreed: bool) -> bytes:
        """The noise key of a run, on the disk before anything is drawn from it.

        Args:
            run: Its name.
            agreed: Whether the ledger knows the run, which must have a key then.

        Raises:
            LedgerError: It is missing or damaged.
        """
        folder = self._keys / run
        if agreed or folder.exists():
            try:
                return read_key(folder)
            except LedgerError:
                if agreed:
                    raise
                # Killed while it was made: nothing was ever drawn from it.
                for path in folder.iterdir():
                    path.unlink()
        folder.mkdir(mode=0o700, exist_ok=True)
        key = create_key(folder, seed=None)
        sync_folder(folder)
        sync_folder(self._keys)
        return key

    def has(self, run: str) -> bool:
        """Whether a run's key is there."""
        return (self._keys / run / KEY_FILE).exists()

    def keep_experiment(self, run: str, text: str) -> None:
        """For messages that only name their run, also after a restart; each time it is held to what was agreed."""
        replace_file(self._experiments / f"{run}.toml", text.encode())

    def experiment(self, run: str) -> str | None:
        """The text that was kept; None if there is none."""
        try:
            return (self._experiments / f"{run}.toml").read_text(encoding="utf-8")
        except OSError:
            return None

    def forget(self, run: str) -> None:
        """Delete a run's key and experiment, and return once the disk has forgotten their names."""
        folder = self._keys / run
        (folder / KEY_FILE).unlink(missing_ok=True)
        (self._experiments / f"{run}.toml").unlink(missing_ok=True)
        if folder.is_dir():
            sync_folder(folder)
            folder.rmdir()
        sync_folder(self._keys)
        sync_folder(self._experiments)
