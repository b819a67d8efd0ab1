"""The tests in two processes side by side: one goes through the files forwards, the other backwards, until they meet.

    python tests/in_two.py [pytest options]

What starts processes and waits for them comes first, so that one half mostly waits while the other computes, and only
one of them has a Ray. Temporary files are in memory where there is room: a run waits for the disk at every round. The
first half is shown as it runs, the second when both are done. The exit code is the larger.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
WAITING = ("engine", "end_to_end", "apps", "cli", "deploy", "benchmarks", "docs", "extensions", "runs", "ui")
MEMORY, ROOM = Path("/dev/shm"), 4 * 2**30


class Half:
    """A pytest plugin that runs the files that the other half has not begun.

    Args:
        claims: A folder of both halves, with one entry for each file that is begun.
        backwards: Whether it begins with the last file.
    """

    def __init__(self, claims: Path, *, backwards: bool) -> None:
        self._claims, self._backwards = claims, backwards

    def pytest_runtestloop(self, session: Any) -> bool | None:
        """As pytest's own loop, over the files that are ours."""
        if session.config.option.collectonly or session.testsfailed:
            return None  # pytest lists, or says what could not be collected
        last = None
        for item in self._ours(session.items):
            self._run(session, last, item)
            last = item
        self._run(session, last, None)
        return True

    def _ours(self, items: list[Any]) -> Any:
        files: dict[Path, list[Any]] = {}
        for item in items:
            files.setdefault(item.path, []).append(item)
        for path in sorted(files, key=turn, reverse=self._backwards):
            with suppress(FileExistsError):
                (self._claims / str(path.relative_to(TESTS)).replace(os.sep, " ")).mkdir()
                yield from files[path]

    def _run(self, session: Any, item: Any, after: Any) -> None:
        if item is not None:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)


def turn(path: Path) -> tuple[int, str]:
    """Where a file comes."""
    folder = path.relative_to(TESTS).parts[0]
    return WAITING.index(folder) if folder in WAITING else len(WAITING), str(path)


def run_half(claims: Path, which: str, options: list[str]) -> int:
    """One half, in this process."""
    import pytest

    sys.path.insert(0, str(TESTS.parent))  # as `python -m pytest` does
    half = Half(claims, backwards=which == "backwards")
    return int(pytest.main(["-p", "no:cacheprovider", str(TESTS), *options], plugins=[half]))


def main(options: list[str]) -> int:
    """Run both; the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left behind
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    with (
        tempfile.TemporaryDirectory() as claims,
        tempfile.TemporaryDirectory(dir=MEMORY if roomy else None, ignore_cleanup_errors=True) as files,
        tempfile.TemporaryFile("w+") as log,
    ):
        command = [sys.executable, __file__, "--half", claims]
        settings: dict[str, Any] = {
            "cwd": TESTS.parent,
            "env": {**os.environ, "PYTEST_DEBUG_TEMPROOT": files},
        }
        second = subprocess.Popen(
            [*command, "backwards", *options], stdout=log, stderr=subprocess.STDOUT, **settings
        )
        try:
            first = subprocess.run([*command, "forwards", *options], check=False, **settings).returncode
            code = second.wait()
        except BaseException:
            second.terminate()
            second.wait()
            raise
        log.seek(0)
        sys.stdout.write(log.read())
    return max(first, code) if min(first, code) >= 0 else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--half"]:
        sys.exit(run_half(Path(sys.argv[2]), sys.argv[3], sys.argv[4:]))
    sys.exit(main(sys.argv[1:]))
