"""An acceptance run of several scripts: each writes a file of its own, and all lines come together in one."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lines import ROOT, Lines

RESULTS = ROOT / "benchmarks" / "results"


def gather(name: str, scripts: Sequence[str], *, again: Sequence[str]) -> int:
    """Run the scripts, and write ``results/NAME.json``; the exit code that goes with it.

    Args:
        name: Of the file.
        scripts: Names of files here, without ``.py``; ``accept_X`` writes ``results/X.json``.
        again: Those to run; of the others the lines of their last run count.
    """
    with tempfile.TemporaryDirectory() as folder:
        lines = Lines(Path(folder))
        for script in scripts:
            command = f"python benchmarks/{script}.py"
            with lines.section(f"{script} runs", command):
                if script in again:
                    # What an earlier run wrote must not be taken for this one's.
                    found = RESULTS / f"{script.removeprefix('accept_')}.json"
                    found.unlink(missing_ok=True)
                    subprocess.run(
                        [sys.executable, str(ROOT / "benchmarks" / f"{script}.py")],
                        cwd=ROOT,
                        env={**os.environ, "OMP_NUM_THREADS": "1"},
                        check=False,
                    )
                written = json.loads((RESULTS / f"{script.removeprefix('accept_')}.json").read_text())
                lines.rows += written["lines"]
        return lines.write(name)


def again(lines: Lines, name: str, parts: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """The parts to run, all if none is named; the lines of the others are taken from ``results/NAME.json``.

    A line is of the part that its command ends in.
    """
    wanted = chosen(parts, arguments)
    if len(wanted) < len(parts):
        written = json.loads((RESULTS / f"{name}.json").read_text())["lines"]
        others = tuple(f", {part}" for part in parts if part not in wanted)
        lines.rows += [row for row in written if row["command"].endswith(others)]
    return wanted


def chosen(scripts: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """The scripts that are named, all if none is."""
    unknown = [name for name in arguments if name not in scripts]
    if unknown:
        sys.exit(f"no such part: {', '.join(unknown)}; there are {', '.join(scripts)}")
    return list(arguments or scripts)
