"""The tests in two processes side by side: most of one half waits for Ray, Flower and commands, the other computes.

    python tests/in_two.py [pytest options]

The first half is shown as it runs, the second when both are done. The exit code is the larger.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent
# What starts processes and waits for them, and what computes as much as makes both halves take about as long.
WAITING = ("apps", "benchmarks", "cli", "docs", "end_to_end", "engine", "extensions", "runs")
BESIDE = ("audit", "federation", "report")


def halves() -> tuple[list[Path], list[Path]]:
    """Folders and files of both halves: together everything, and nothing twice."""
    everything = sorted(
        path
        for path in TESTS.iterdir()
        if (path.is_dir() and any(path.rglob("test_*.py"))) or path.name.startswith("test_")
    )
    first = [path for path in everything if path.name in WAITING + BESIDE]
    return first, [path for path in everything if path not in first]


def main(options: list[str]) -> int:
    """Run both; the exit code."""
    shown, later = (
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, half), *options]
        for half in halves()
    )
    with tempfile.TemporaryFile("w+") as log:
        second = subprocess.Popen(later, stdout=log, stderr=subprocess.STDOUT, cwd=TESTS.parent)
        try:
            first = subprocess.run(shown, cwd=TESTS.parent).returncode
            code = second.wait()
        except BaseException:
            second.terminate()
            second.wait()
            raise
        log.seek(0)
        sys.stdout.write(log.read())
    return max(first, code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
