"""The full lines of privacy: vectors, claims, mechanisms, the ledger, audits, verify, MNIST in one hand, the planner.

    python benchmarks/accept_privacy.py
    python benchmarks/accept_privacy.py checks    # the long scripts as they were last run, and all else

Writes ``results/privacy.json``. The long scripts write a file each; together they take about an hour and a half.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from accept_engine import passing
from lines import ROOT, Lines, fedsafe, shown

RESULTS = ROOT / "benchmarks" / "results"
LONG = ("worst_client", "witness", "audits", "mnist_central")

TESTS = {
    "every accounting vector that the mechanisms cover, and calibration that inverts it; the table of 2b": (
        "tests/privacy/test_accounting.py",
        "tests/privacy/test_accounting_renyi.py",
    ),
    "the matrix: 4.37 behind the client level, 33.1 with known cohorts, 1.99, 7.51 and 33.1 for local noise": (
        "tests/privacy/test_matrix.py",
    ),
    "banded sensitivity by brute force, the separation in the ledger, the covariance of 100,000 releases": (
        "tests/privacy/test_banded.py",
        "tests/aggregation/test_banded_mean.py",
        "tests/privacy/test_ledger_cancelling.py",
    ),
    "adaptive clipping: neither update nor bit of a zeroed client, noise by the clip used, settles at the median": (
        "tests/aggregation/test_adaptive_clip.py",
    ),
    "distributed noise: published divergences to 1e-6, dropouts below the minimum abort": (
        "tests/privacy/test_distributed_accounting.py",
        "tests/privacy/test_mechanisms_distributed.py",
        "tests/aggregation/test_distributed_mean.py",
    ),
    "ten clients, fixed cohorts, one seed, a resumed run: fails elsewhere, holds here": (
        "tests/privacy/test_mistakes_of_others.py",
    ),
    "a truncated tail, a restored older copy and an edited row are detected, and resume refuses them": (
        "tests/privacy/test_ledger.py",
        "tests/end_to_end/test_witness.py",
    ),
    "verify finds every planted fault, in apps that share no code with it, and Flower's and Opacus's known ones": (
        "tests/verify",
    ),
    "every way to release: the same bytes in chunks and through a crash, a claim that says how, budgets": (
        "tests/federation/test_mechanism_runs.py",
        "tests/federation/test_reservations.py",
    ),
}
# Requests, and the most seconds that each may take.
BUDGETS = {
    "evaluates": (
        ("--unit", "record", "--rate", "0.01", "--noise", "0.7", "--steps", "120", "--delta", "1e-5"),
        5.0,
    ),
    "solves for noise": (
        ("--unit", "client", "--epsilon", "8", "--rate", "0.1", "--rounds", "100", "--delta", "1e-3"),
        15.0,
    ),
    "solves for steps": (
        ("--unit", "record", "--rate", "0.01", "--noise", "1", "--epsilon", "2", "--delta", "1e-5"),
        15.0,
    ),
}
WRONG = {
    "infeasible": (
        "--unit",
        "record",
        "--rate",
        "0.5",
        "--noise",
        "0.5",
        "--epsilon",
        "0.01",
        "--delta",
        "1e-5",
    ),
    "missing": ("--unit", "record", "--rate", "0.5", "--delta", "1e-5"),
}


def budget(lines: Lines) -> None:
    for what, (arguments, most) in BUDGETS.items():
        began = time.perf_counter()
        done = fedsafe("budget", *arguments, "--json")
        seconds = time.perf_counter() - began
        found = json.loads(done.stdout) if done.returncode == 0 else {}
        value = found.get(found.get("solved_for", "epsilon"))
        lines.add(
            f"fedsafe budget {what} in under {most:g} s",
            shown("budget", *arguments, "--json"),
            f"{found.get('solved_for')} = {value}, epsilon {found.get('epsilon')}, in {seconds:.1f} s",
            met=done.returncode == 0 and seconds < most and "claim" in found,
        )
    for what, arguments in WRONG.items():
        done = fedsafe("budget", *arguments)
        said = done.stderr.strip().splitlines()
        lines.add(
            f"a wrong request ({what}) says what to change",
            shown("budget", *arguments),
            f"exit {done.returncode}: {said[-1] if said else 'nothing'}",
            met=done.returncode == 1 and len(said) == 1,
        )


def long_scripts(lines: Lines, *, run: bool) -> None:
    for name in LONG:
        command = f"python benchmarks/{name}.py"
        with lines.section(f"the lines of {name}", command):
            if run:
                subprocess.run([sys.executable, ROOT / "benchmarks" / f"{name}.py"], cwd=ROOT)
            found = json.loads((RESULTS / f"{name}.json").read_text())
            for row in found["lines"]:
                lines.rows.append(row)
                print(
                    f"{'met      ' if row['met'] else 'FELL SHORT'} {row['line']}\n           {row['value']}",
                    flush=True,
                )


def verify(lines: Lines, *, run: bool) -> None:
    command = "python benchmarks/verify_rates.py 200 5"
    with lines.section("the rates of verify", command):
        if run:
            subprocess.run([sys.executable, ROOT / "benchmarks" / "verify_rates.py", "200", "5"], cwd=ROOT)
        found = json.loads((RESULTS / "verify.json").read_text())
        own = found["own_plans"]
        lines.add(
            "verify passes FedSafe's own plans: false alarms in at most 1 of 200 runs",
            command,
            f"{own['accused']} of {own['runs']} runs, {own['passed_checks']} checks passed",
            met=own["runs"] >= 200 and own["accused"] <= 1,
        )
        faulty = [app for app in found["apps"] if app["faulty"]]
        missed = [app["target"] for app in faulty if app["failed"] < app["runs"]]
        right = [app["target"] for app in found["apps"] if not app["faulty"] and app["failed"]]
        lines.add(
            "verify catches every one of at least 15 planted faults, and accuses no corrected app",
            command,
            f"{len(faulty)} faulty apps, {faulty[0]['runs']} runs each; missed: {missed or 'none'}; right but accused: "
            f"{right or 'none'}",
            met=len(faulty) >= 15 and not missed and not right,
        )


def main() -> int:
    os.environ["FEDSAFE_ALL_VECTORS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        lines = Lines(Path(name))
        for line, files in TESTS.items():
            passing(lines, line, *files, least=1)
        budget(lines)
        run = sys.argv[1:] != ["checks"]
        verify(lines, run=run)
        long_scripts(lines, run=run)
    return lines.write("privacy")


if __name__ == "__main__":
    sys.exit(main())
