"""The lines of secure aggregation in the platform: a thousand clients on Ray, CPU of a client, verify.

python benchmarks/accept_secure_platform.py      # about ten minutes; writes results/secure_platform.json
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from lines import ROOT, Lines, fedsafe, shown, train

from fedsafe.store import RunFolder

ADULT = "experiments/adult.toml"
SECURE = ("--set", "aggregation.secure=true")
SHORT = (
    "--set",
    "assess.every=50",
    "--set",
    "assess.require=[]",
    "--set",
    'assess.assessors=["performance"]',
)
TESTS = {
    "secure runs: the same model as without masks, whatever the chunks; dropouts at each stage; refused rules": (
        "tests/federation/test_secure_rounds.py"
    ),
    "clients that are away, drop out or are late are dropouts of a secure round": (
        "tests/federation/test_secure_availability.py"
    ),
    "fedsafe verify finds planted faults of secure clients, and accuses no right one": (
        "tests/verify/test_secure_is_verified.py"
    ),
}


def _tests(lines: Lines) -> None:
    for line, files in TESTS.items():
        command = f"pytest -q {files}"
        with lines.section(line, command):
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", *files.split()],
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            lines.add(line, command, done.stdout.strip().splitlines()[-1], met=done.returncode == 0)


def _timings(out: Path) -> list[dict[str, float]]:
    return [json.loads(text) for text in (out / "private" / "timings.jsonl").read_text().splitlines()]


def _run(lines: Lines, line: str, clients: int, least: float, *more: str) -> None:
    """A run whose clients' CPU, a round, is held to a bound for each of them."""
    arguments = (
        *SECURE, *SHORT, "--set", f"federation.clients={clients}", "--set", "federation.cohort.rate=1.0", *more,
    )  # fmt: skip
    out = lines.folder / f"run-{clients}"
    command = shown("run", ADULT, "--out", str(out), "--json", *arguments)
    with lines.section(line, command):
        train(ADULT, out, *arguments)
        timings = _timings(out)
        dearest = max(each["cpu_seconds"] for each in timings) / clients
        aborted = [each.aborted for each in RunFolder.open(out).record() if getattr(each, "aborted", None)]
        lost = sum(int(each["failures"]) for each in timings)
        lines.add(
            line, command,
            f"{len(timings)} rounds of {clients} clients, {len(aborted)} aborted, {lost} clients lost; "
            f"{dearest:.3f} s of CPU a client and round, {max(each['seconds'] for each in timings):.0f} s a round",
            met=dearest < least and not aborted and not lost,
        )  # fmt: skip


def _verify(lines: Lines) -> None:
    line = "fedsafe verify passes an experiment with aggregation.secure, masks and refusals included"
    path = lines.folder / "secure.toml"
    text = (
        (ROOT / ADULT)
        .read_text()
        .replace("clients = 300", "clients = 40")
        .replace("rate = 0.3 ", "rate = 0.5 ")
    )
    path.write_text(text + "\n[aggregation]\nsecure = true\n")
    command = shown("verify", str(path), "--json")
    with lines.section(line, command):
        done = fedsafe("verify", str(path), "--json", timeout=3000)
        report = json.loads(done.stdout)
        checks = {one["check"]: one["status"] for level in report["levels"] for one in level["checks"]}
        needed = ("share of each client behind masks", "noise of the sum behind masks", "masked messages")
        lines.add(
            line, command,
            f"{sum(status == 'pass' for status in checks.values())} passed, failed: {report['failures'] or 'none'}",
            met=report["passed"] and all(checks.get(name) == "pass" for name in needed),
        )  # fmt: skip


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        lines = Lines(Path(folder))
        _tests(lines)
        _run(
            lines, "100 clients and 26k parameters cost under 2 s of CPU per client and round, training included",
            100, 2.0, "--set", "rounds=2", "--set", 'model={name="mlp",hidden=[320]}',
        )  # fmt: skip
        _run(
            lines, "1,000 simulated clients run, on Ray", 1000, 2.0, "--set", "rounds=2",
            "--set", 'server.aggregator={name="distributed_mean",minimum=500,corrupt=50}',
            "--set", "aggregation.dropouts=0.1",
        )  # fmt: skip
        _verify(lines)
        return lines.write("secure_platform")


if __name__ == "__main__":
    sys.exit(main())
