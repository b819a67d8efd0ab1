"""How often ``fedsafe verify`` accuses what is right, and how often it finds what is wrong.

    python benchmarks/verify_rates.py              # 200 runs of all checks on plans of FedSafe; faults ten times each
    python benchmarks/verify_rates.py 20 2         # fewer

Writes ``results/verify.json``. A false alarm is a whole run on a plan of FedSafe in which any check fails.
"""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedsafe.runs.compose import calibrate
from fedsafe.verify import Report, check_plan, make_claim, read_claim, verify

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "verify")]

import tiny_federation  # noqa: E402
from claims_of_faults import (  # noqa: E402
    FAULTS,
    HERE,
    MECHANISMS,
    PLANTED,
    RIGHT,
    RIGHT_MECHANISMS,
)

RESULT = Path(__file__).parent / "results" / "verify.json"
RUNS = 16
# Unlike in what decides the tests' power: cohorts small and large, little noise and much, one layer and two.
PLANS: dict[str, tuple[float, dict[str, Any]]] = {
    "60 clients, rate 0.5, noise 1": (
        1.0,
        {"federation__clients": 60, "model": {"name": "mlp", "hidden": [8]}},
    ),
    "120 clients, rate 0.1, noise 0.6": (
        0.6,
        {"federation__clients": 120, "federation__cohort": {"rate": 0.1}, "client__steps": 4},
    ),
    "40 clients, everybody, noise 2": (2.0, {"federation__clients": 40, "federation__cohort": {"rate": 1.0}}),
    "80 clients, rate 0.3, noise 1.5": (
        1.5,
        {"federation__clients": 80, "federation__cohort": {"rate": 0.3}, "client__rate": 0.1},
    ),
}
# Rules that are more than a noisy sum, calibrated; and records in batches of one size, with noise on a grid.
FEW = {
    "federation__clients": 24,
    "federation__cohort": {"rate": 0.4},
    "privacy__record__epsilon": float("inf"),
}
CLIENT = {**FEW, "privacy__client__epsilon": 8.0, "privacy__client__delta": 1e-3}
CALIBRATED: dict[str, dict[str, Any]] = {
    "capped weights": {
        **CLIENT,
        "server__aggregator": {"name": "capped_mean", "cap": 30, "mean_weight": 0.8},
    },
    "local noise": {**CLIENT, "server__aggregator": "local_gaussian"},
    "banded noise": {**CLIENT, "server__aggregator": {"name": "banded_mean", "bands": 4}},
    "distributed, Skellam": {
        **CLIENT,
        "server__aggregator": {"name": "distributed_mean", "minimum": 4, "law": "skellam", "rotated": False},
    },
    "distributed, discrete Gaussian": {
        **CLIENT,
        "server__aggregator": {"name": "distributed_mean", "minimum": 4, "corrupt": 1},
    },
    "records in batches of 8, on a grid": {
        "federation__clients": 12,
        "client__batch_size": 8,
        "privacy__record__epsilon": 40.0,
        "privacy__record__arithmetic": "grid",
        "privacy__client__epsilon": float("inf"),
    },
}
ELSEWHERE = HERE / "faults_elsewhere"
FROM_ELSEWHERE = (
    "half_noise.server:faulty",
    "realised_divisor.server:faulty",
    "stream_reused.server:faulty",
    "exact_counts.client:app",
    "no_clip.client:app",
)


def own_plans(times: int) -> dict[str, Any]:
    """False alarms on plans of FedSafe, in turns."""
    built = []
    for name, (noise, changes) in PLANS.items():
        partition = {"federation__partition": {"name": "iid"}, "rounds": 12}
        of = tiny_federation.parts(**{**partition, **changes})
        built.append((name, of, tiny_federation.plan(of, noise=noise)))
    for name, changes in CALIBRATED.items():
        of = tiny_federation.parts(**{"federation__partition": {"name": "iid"}, "rounds": 12, **changes})
        built.append((name, of, calibrate(of)))
    alarms: list[dict[str, Any]] = []
    checks, began = 0, time.perf_counter()
    for number in range(times):
        name, of, plan = built[number % len(built)]
        report = check_plan(of, plan, name=name, runs=RUNS, seed=number)
        checks += sum(outcome.status == "pass" for outcome in report.outcomes)
        alarms += [{"seed": number, "plan": name, "line": outcome.line()} for outcome in report.failures]
        print(f"{number} {name}: {[outcome.line() for outcome in report.failures] or 'nothing'}", flush=True)
    accused = len({alarm["seed"] for alarm in alarms})
    print(f"{accused} of {times} runs on own plans accused something ({checks} checks passed)", flush=True)
    seconds = (time.perf_counter() - began) / max(1, times)
    return {
        "runs": times,
        "accused": accused,
        "passed_checks": checks,
        "alarms": alarms,
        "seconds_per_run": seconds,
    }


def targets() -> Iterator[tuple[str, Any, Path, bool]]:
    """Every planted fault, and every app that is right."""
    for target, (claim, _, _) in PLANTED.items():
        yield target.strip(), make_claim(claim), FAULTS, True
    for target, claim, _, _ in MECHANISMS.values():
        yield target, make_claim(claim), FAULTS, True
    for target in FROM_ELSEWHERE:
        claim_file = ELSEWHERE / target.split(".")[0] / "claim.toml"
        yield target, read_claim(claim_file), ELSEWHERE, True
        yield f"{target.split(':')[0]}:corrected", read_claim(claim_file), ELSEWHERE, False
    for target, values in {**RIGHT, **RIGHT_MECHANISMS}.items():
        yield target, make_claim(values), FAULTS, False


def apps(times: int) -> list[dict[str, Any]]:
    """How often each app fails, and by which checks."""
    rows = []
    for target, claim, path, faulty in targets():
        reports: list[Report] = [verify(target, claim, path=path, seed=seed) for seed in range(times)]
        failed = [[outcome.check for outcome in report.failures] for report in reports]
        row = {
            "target": target,
            "faulty": faulty,
            "runs": times,
            "failed": sum(map(bool, failed)),
            "checks": dict(Counter(check for checks in failed for check in checks)),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    times, each = [int(word) for word in sys.argv[1:3]] if len(sys.argv) > 2 else (200, 10)
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    found = {"own_plans": own_plans(times), "apps": apps(each)}
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    missed = [row["target"] for row in found["apps"] if row["faulty"] and row["failed"] < row["runs"]]
    accused = [row["target"] for row in found["apps"] if not row["faulty"] and row["failed"]]
    print(f"faults not found every time: {missed or 'none'}; right apps accused: {accused or 'none'}")


if __name__ == "__main__":
    main()
