"""What acceptance runs share: lines that are met or not, the command, and the file of results."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FEDSAFE = [sys.executable, "-m", "fedsafe"]
_PACKAGES = ("fedsafe", "flwr", "ray", "torch", "numpy", "dp-accounting")


@dataclass
class Lines:
    """What was asked, what was run, and what came out; ``TMP`` stands for the folder that everything ran in."""

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, line: str, command: str, value: str, *, met: bool) -> None:
        command, value = (text.replace(str(self.folder), "TMP") for text in (command, value))
        self.rows.append({"line": line, "command": command, "value": value, "met": met, "commit": _commit()})
        print(
            f"{'met      ' if met else 'FELL SHORT'} {line}\n           {command}\n           {value}",
            flush=True,
        )

    @contextmanager
    def section(self, line: str, command: str) -> Iterator[None]:
        """A section whose own failure is a line that fell short, and stops no other."""
        try:
            yield
        except Exception as error:
            self.add(line, command, f"{type(error).__name__}: {error}", met=False)

    def write(self, name: str, **more: Any) -> int:
        """Write ``results/NAME.json``; the exit code that goes with it."""
        result = {
            "name": name,
            "commit": _commit(),
            "machine": {
                "processor": _processor(),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
            },
            "versions": {package: version(package) for package in _PACKAGES},
            **more,
            "lines": self.rows,
        }
        path = ROOT / "benchmarks" / "results" / f"{name}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        short = [row["line"] for row in self.rows if not row["met"]]
        met, all_lines = len(self.rows) - len(short), len(self.rows)
        print(f"{met} of {all_lines} lines met; written to {path.relative_to(ROOT)}")
        return 1 if short else 0


def fedsafe(
    *arguments: str, timeout: float = 600, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **(env or {})}
    return subprocess.run(
        [*FEDSAFE, *arguments], cwd=cwd, capture_output=True, text=True, timeout=timeout, env=environment
    )


def shown(*arguments: str) -> str:
    return " ".join(["fedsafe", *arguments])


def train(experiment: str, out: Path, *arguments: str) -> tuple[dict[str, Any], float]:
    """What ``--json`` printed, and the seconds of the whole command."""
    began = time.perf_counter()
    done = fedsafe("run", experiment, "--out", str(out), "--json", *arguments)
    seconds = time.perf_counter() - began
    # 3: a requirement of severity "must" is not met, which is a line of its own.
    if done.returncode not in (0, 3):
        raise RuntimeError(f"fedsafe run failed with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout), seconds


def _commit() -> str:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return head.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
