"""The lines of the gate: servers that ask for more than a client allows, uploaded code, kills, and resumed runs.

    python benchmarks/accept_deploy_gate.py          # by itself, about ten minutes; writes results/deploy_gate.json
    python benchmarks/accept_deploy.py               # as a part of all lines of deployment

Four hospitals with a SuperNode and a gate each, and a server, as plain processes on loopback with TLS and node keys.
"""

import json
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from deployment import SERVER, Deployment, lines_of
from lines import ROOT, Lines

from fedsafe.deploy.client_ledger import ClientLedger
from fedsafe.deploy.federation import Federation
from fedsafe.deploy.policy import read_policy
from fedsafe.runs import Run

ROUNDS = 20
SLOW = 600.0  # seconds that anything may take on a busy machine
LATE = "25"  # seconds after which a round goes on without whoever is silent
UP = {"supernode": "SuperNode ID", "gate": '"waiting"'}
TESTS = ("test_gate", "test_gate_runtime", "test_isolation", "test_policy")


def measure(lines: Lines, folder: Path) -> None:
    """Add the lines of the gate."""
    from accept_deploy import EXPERIMENT, set_up

    experiment = {**EXPERIMENT, "rounds": ROUNDS, "assess": {"every": ROUNDS, "assessors": ["performance"]}}
    federation = set_up(folder / "gates", experiment)
    with Deployment(federation, OMP_NUM_THREADS="1") as deployment:
        with lines.section("kills", "SIGKILL of server, SuperNode and gate in the middle of a run"):
            _kills(lines, federation, deployment)
        with lines.section("hostile servers", "fedsafe deploy start with other experiments"):
            _hostile(lines, federation, deployment)
    with lines.section("hostile messages and apps", "pytest"):
        _tests(lines)


def _kills(lines: Lines, federation: Federation, deployment: Deployment) -> None:
    """One run of six rounds: the server dies in the second, a SuperNode and a gate in the fourth."""
    first, *_, last = federation.names
    deployment.start_all()
    deployment.wait_until_connected(SLOW)
    _start(federation, deployment, "--detach")
    _until_released(federation, deployment, last, 1)
    deployment.kill(f"{last}-gate")
    deployment.kill(f"{last}-supernode")
    others = [name for name in federation.names if name != last]
    for name in others:
        _until_released(federation, deployment, name, 2)
    deployment.kill(SERVER)
    before = {name: _events(federation, name) for name in federation.names}
    deployment.start_server()
    _back(deployment, last)
    deployment.until(
        lambda: all(_online(deployment, federation)), "not every client came back to the new server", SLOW
    )
    _start(federation, deployment, "--detach", "--resume")
    _until_released(federation, deployment, first, 3)
    deployment.until(
        lambda: _newest(federation, first, "release") == 4, f"round 4 did not reach {first}", SLOW
    )
    deployment.kill(f"{first}-supernode")
    deployment.kill(f"{first}-gate")
    killed = _events(federation, first)
    _back(deployment, first)
    run = federation.server / "runs" / "run-1"
    deployment.until(lambda: Run(run).end is not None, "the run did not end", SLOW)
    after = {name: _events(federation, name) for name in federation.names}
    resumed = [dict(line) for line in lines_of(run / "resumed.jsonl")]
    repeated = {name: deployment.log(f"{name}-gate").count('"sent again"') for name in others}
    kept = all(after[name][: len(before[name])] == before[name] for name in federation.names)
    second = {name: _count(after[name], "release", 2) for name in federation.names}
    lines.add(
        "The SuperLink killed with SIGKILL and restarted resumes the run from its checkpoint; clients that had replied "
        "send the stored bytes uncharged, the others are charged, and the record says so",
        "kill -9 SERVER; fedsafe deploy start DIR --resume",
        f"round 2: {len(others)} of {len(federation.names)} had replied when the server died; sent again by "
        f"{repeated}; charged releases of round 2: {second}; replies of earlier events unchanged: {kept}; "
        f"resumed.jsonl: {resumed}; the run {Run(run).end.status} after {Run(run).end.rounds} rounds",
        met=kept
        and all(count >= 1 for count in repeated.values())
        and set(second.values()) == {1}
        and resumed == [{"round": 2, "under_way": True}]
        and Run(run).end.status == "completed",
    )
    intact = after[first][: len(killed)] == killed
    spent = {name: _spent(federation, name) for name in federation.names}
    planned = max(claim["epsilon"] for claim in Run(run).claims if claim["epsilon"] is not None)
    lines.add(
        "A SuperNode (and its gate) killed with SIGKILL in the middle of a round and restarted continues with its "
        "ledger intact, never lower",
        "kill -9 SUPERNODE GATE",
        f"{first}: {len(killed)} events before, {len(after[first])} after, the first ones unchanged: {intact}; rounds "
        f"released: {[_rounds(after[name]) for name in federation.names]}; spent at most "
        f"{max(spent.values()):.6f}, planned {planned:.6f}",
        met=intact
        and all(value <= planned + 1e-9 for value in spent.values())
        and _rounds(after[first])[-1] == ROUNDS,
    )


CHEATS: Mapping[str, tuple[dict[str, Any], str]] = {
    "more epsilon": ({"privacy.record.epsilon": 12.0}, "budget_spent"),
    "no noise": ({"privacy.record.epsilon": float("inf")}, "too_little_noise"),
    "another model": ({"model": {"name": "mlp", "hidden": [64]}}, "experiment_not_allowed"),
    "un-noised scores": (
        {
            "federation.client_validation": 0.2,
            "federation.evaluation": {"every": 2, "noised": False},
        },
        "metric_not_allowed",
    ),
    "code by an import path": (
        {"client.objective": "fedsafe.client.objectives.plain:cross_entropy"},
        "experiment_not_allowed",
    ),
    "a noise key that it knows": ({"privacy.noise_key": "seed"}, "experiment_not_allowed"),
}


def _hostile(lines: Lines, federation: Federation, deployment: Deployment) -> None:
    """Servers that ask for more: every client refuses, or the one whose policy is narrower."""
    honest = (federation.folder / "experiment.toml").read_text()
    before = {name: _releases(federation, name) for name in federation.names}
    found: dict[str, str] = {}
    # The runs of this part are paid for: what is refused is refused for what it asks.
    for name in federation.names:
        _allow(federation, deployment, name, {"budget.record.epsilon": 8.0, "budget.record.delta": 1e-4})
    for cheat, (changes, _) in CHEATS.items():
        values = tomllib.loads(honest)
        for where, value in changes.items():
            _set(values, where, value)
        (federation.folder / "experiment.toml").write_text(tomli_w.dumps(values))
        done = deployment.command("start", str(federation.folder), "--wait-for-replies", LATE, timeout=SLOW)
        said = done.stdout + done.stderr + deployment.log(SERVER)[-4000:]
        found[cheat] = next((reason for _, reason in CHEATS.values() if f"refuses: {reason}" in said), "none")
    (federation.folder / "experiment.toml").write_text(honest)
    expected = {cheat: reason for cheat, (_, reason) in CHEATS.items()}
    unchanged = {name: _releases(federation, name) for name in federation.names} == before
    lines.add(
        "A server that asks for less noise, more epsilon, another model or un-noised metrics is refused by the clients",
        "fedsafe deploy start DIR with each of them in experiment.toml",
        f"{found}; releases in the ledgers unchanged: {unchanged}",
        met=found == expected and unchanged,
    )
    narrow, *wide = federation.names
    _allow(federation, deployment, narrow, {"budget.record.epsilon": 3.1})  # one run of 3 is spent
    _start(federation, deployment)
    runs = sorted((federation.server / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
    exchanges = lines_of(runs[-1] / "private" / "replies.jsonl")
    refused = [dict(line["refused"]) for line in exchanges]
    after = {name: _releases(federation, name) - before[name] for name in federation.names}
    end = Run(runs[-1]).end
    lines.add(
        "A client whose policy refuses is left out, and the round goes on without it",
        f"fedsafe deploy start DIR, where {narrow} allows less than the others",
        f"{len(exchanges)} rounds: {refused[0] if refused else 'none'}, {exchanges[-1]['replied']} replies; new "
        f"releases {after}; the run {end.status}",
        met=refused == [{"budget_spent": 1}] * ROUNDS
        and after == {narrow: 0, **dict.fromkeys(wide, ROUNDS)}
        and end.status == "completed",
    )
    project = federation.folder / "app" / "pyproject.toml"
    kept = project.read_text()
    project.write_text(kept.replace('version = "', 'version = "9.', 1))
    done = deployment.command("start", str(federation.folder), "--wait-for-replies", LATE, timeout=SLOW)
    project.write_text(kept)
    said = done.stdout + done.stderr + deployment.log(SERVER)[-4000:]
    lines.add(
        "A bundle that no policy lists is refused before it is installed",
        "fedsafe deploy start DIR with another app",
        "refuses: app_not_allowed" if "refuses: app_not_allowed" in said else said[-300:],
        met="refuses: app_not_allowed" in said,
    )


def _tests(lines: Lines) -> None:
    """What is captured at the interface to the SuperNode, and what uploaded apps find, is tested there."""
    import subprocess

    for name in TESTS:
        command = [sys.executable, "-m", "pytest", "-q", f"tests/deploy/{name}.py"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
        said = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-300:]
        lines.add(
            {
                "test_gate": "Of every refusal only the error reply leaves the gate: hostile experiments and messages",
                "test_gate_runtime": "The traffic to the SuperNode holds the error reply and nothing else",
                "test_isolation": "An uploaded app that omits every check, reads the data path, opens a socket or "
                "writes the ledger gets nothing",
                "test_policy": "Each line of a policy is held",
            }[name],
            f"pytest tests/deploy/{name}.py",
            said,
            met=done.returncode == 0 and "skipped" not in said,
        )


def _back(deployment: Deployment, name: str) -> None:
    """Start a client again as its service manager does: the server takes a killed node for connected for a minute."""
    said = {part: deployment.log(f"{name}-{part}").count(word) for part, word in UP.items()}
    deployment.start_client(name)

    def up() -> bool:
        if deployment.processes[f"{name}-supernode"].poll() is not None:
            deployment.start_node(name)
        return all(deployment.log(f"{name}-{part}").count(word) > said[part] for part, word in UP.items())

    deployment.until(up, f"{name} did not come back", SLOW)


def _start(federation: Federation, deployment: Deployment, *words: str) -> None:
    done = deployment.command(
        "start", str(federation.folder), "--wait-for-replies", LATE, *words, timeout=SLOW
    )
    if done.returncode:
        raise RuntimeError(f"start failed: {done.stdout}{done.stderr}")


def _allow(federation: Federation, deployment: Deployment, name: str, changes: Mapping[str, Any]) -> None:
    """Change a client's policy as its owner does, and start its gate again."""
    path = federation.client_folder(name) / "policy.toml"
    values = tomllib.loads(path.read_text())
    for where, value in changes.items():
        _set(values, where, value)
    path.write_text(tomli_w.dumps(values))
    deployment.kill(f"{name}-gate", 15)
    waiting = deployment.log(f"{name}-gate").count('"waiting"')
    deployment.start_gate(name)
    deployment.until(
        lambda: deployment.log(f"{name}-gate").count('"waiting"') > waiting,
        f"{name}'s gate did not start",
        SLOW,
    )


def _set(values: dict[str, Any], where: str, value: Any) -> None:
    *path, last = where.split(".")
    for key in path:
        values = values.setdefault(key, {})
    values[last] = value


def _events(federation: Federation, name: str) -> list[str]:
    """The hashes of a client's events, which no later event changes, with what they are."""
    audit = federation.client_folder(name) / "state" / "audit.jsonl"
    return [json.dumps({**line}) for line in lines_of(audit)]


def _parsed(events: list[str]) -> list[dict[str, Any]]:
    return [json.loads(event) for event in events]


def _count(events: list[str], kind: str, round: int) -> int:
    return sum(event["event"] == kind and event["round"] == round for event in _parsed(events))


def _rounds(events: list[str]) -> list[int]:
    return [event["round"] for event in _parsed(events) if event["event"] == "release"]


def _newest(federation: Federation, name: str, kind: str) -> int:
    rounds = [event["round"] for event in _parsed(_events(federation, name)) if event["event"] == kind]
    return max(rounds, default=0)


def _releases(federation: Federation, name: str) -> int:
    return len(_rounds(_events(federation, name)))


def _spent(federation: Federation, name: str) -> float:
    """From a copy of the ledger, which its gate is using."""
    state = federation.client_folder(name) / "state"
    with tempfile.TemporaryDirectory() as folder:
        for file in ("ledger.sqlite", "audit.jsonl"):
            shutil.copy(state / file, folder)
        ledger = ClientLedger.open(Path(folder), name)
        spent = ledger.spent(read_policy(state.parent / "policy.toml").budget.record).epsilon
        ledger.close()
    return float(spent)


def _until_released(federation: Federation, deployment: Deployment, name: str, number: int) -> None:
    deployment.until(
        lambda: _newest(federation, name, "reply") >= number, f"{name} did not reply to round {number}", SLOW
    )


def _online(deployment: Deployment, federation: Federation) -> list[bool]:
    status = deployment.command("status", str(federation.folder)).stdout
    return [f"{name:<24}online" in status for name in federation.names]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="gate", dir="/var/tmp") as temporary:
        written = Lines(Path(temporary))
        measure(written, Path(temporary))
        sys.exit(written.write("deploy_gate"))
