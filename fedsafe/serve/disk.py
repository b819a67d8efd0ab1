"""Bringing a file to the disk beside its writer, so that nobody waits while the disk is slow."""

import os
import threading


class Disk:
    """Waits for the disk in a thread of its own, soon after a change and at most once in so many seconds.

    Args:
        descriptor: Of the file; it stays open until `close`.
        seconds: Between two waits.
    """

    def __init__(self, descriptor: int, seconds: float = 1.0) -> None:
        self.failed = ""
        """Why the disk did not take it: what it has is not known from then on, and nothing is tried again."""
        self._descriptor, self._seconds = descriptor, seconds
        self._changed, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="fedsafe-disk", daemon=True)
        self._thread.start()

    def changed(self) -> None:
        """The file has more."""
        if not self._changed.is_set():
            self._changed.set()

    def close(self) -> None:
        """End the thread; what is not on the disk yet is for the caller to bring there."""
        self._ending.set()
        self._changed.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._changed.wait()
            if self._ending.is_set():
                return
            self._changed.clear()
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self.failed = error.strerror or str(error)
                return
            self._ending.wait(self._seconds)
