"""The full lines of deployment: four hospitals on loopback, with TLS and node keys; writes ``results/deploy.json``.

Each hospital has its own file of UCI Heart Disease. A quarter of all records is public and judges the model at the
server; of the rest, each hospital keeps a fifth to judge the model on by itself. The simulation trains on the same
records.
"""

import argparse
import importlib.util
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w
from deployment import SERVER, Deployment, free_ports
from lines import Lines
from scipy import stats

import fedsafe
from fedsafe.data.catalogue.heart import HOSPITALS, ORIGINAL, SOURCE, parse
from fedsafe.data.dataset import Examples, Task, hold_out
from fedsafe.data.deployed import load_deployed
from fedsafe.data.source_file import read_source
from fedsafe.data.sources import obtain
from fedsafe.deploy.certificates import issue_node, make_authority, new_key, write_certificate, write_key
from fedsafe.deploy.driving import resolved_experiment
from fedsafe.deploy.federation import Client, Federation, read_client
from fedsafe.deploy.folder import Wanted, write_federation
from fedsafe.deploy.policy import make_policy, read_policy
from fedsafe.deploy.registration import read_authority
from fedsafe.runs import Run

ROUNDS = 20
PUBLIC = 0.25
EPSILON, DELTA = 3.0, 1e-5
MOST_EPSILON, MOST_POINTS = 4.0, 3.0
EXPERIMENT: Mapping[str, Any] = {
    "model": "logistic",
    "rounds": ROUNDS,
    "federation": {"cohort": {"name": "poisson", "rate": 1.0}},
    "client": {"optimizer": {"name": "sgd", "lr": 2.0}, "steps": 1, "rate": 1.0},
    "server": {"aggregator": "fedavg", "optimizer": {"name": "sgd", "lr": 1.0, "momentum": 0.5}},
    "privacy": {
        "record": {"epsilon": EPSILON, "delta": DELTA, "clip": 0.3},
        "client": {"epsilon": math.inf},
    },
    "assess": {"every": ROUNDS, "assessors": ["performance"]},
}
OTHERS = ("accept_deploy_gate", "accept_deploy_data")
"""Further lines: modules with ``measure(lines, folder)``."""


def set_up(folder: Path, experiment: Mapping[str, Any] = EXPERIMENT) -> Federation:
    """The four hospitals' federation on free ports, each with its own file."""
    content = obtain(os.environ, "heart_disease", ORIGINAL, SOURCE.name)
    given = folder.parent / f"{folder.name}-given"
    given.mkdir(parents=True)
    (given / "experiment.toml").write_text(tomli_w.dumps(dict(experiment)))
    tables, public = {}, []
    for number, (file, hospital) in enumerate(HOSPITALS.items()):
        frame = parse(content[file], file).drop(columns="hospital")
        judged, own = hold_out(len(frame), PUBLIC, 1000 + number)
        tables[hospital.lower().replace(" ", "-")] = frame.iloc[own]
        public.append(frame.iloc[judged])
    pd.concat(public).to_csv(given / "public.csv", index=False)
    kept = {name: len(hold_out(len(frame), 0.2, 0)[1]) for name, frame in tables.items()}
    wanted = Wanted(
        name="heart",
        clients=tuple(Client(name=name) for name in tables),
        port=free_ports(1)[0],
        config=given / "experiment.toml",
        evaluation=given / "public.csv",
        records=kept,
    )
    federation = write_federation(folder, wanted)
    for name, frame in tables.items():
        own = federation.client_folder(name)
        frame.to_csv(own / "records" / "patients.csv", index=False)
        source = tomllib.loads((own / "data.toml").read_text())
        # A cholesterol of 417 is above 280, the last edge, all the same.
        (own / "data.toml").write_text(tomli_w.dumps({**source, "outside": "clamp"}))
    return federation


def simulated_task(federation: Federation) -> Task:
    """Every hospital's own training records in one place, which is what only a simulation can have."""
    task = load_deployed(resolved_experiment(federation)["task"])
    holders = task.train.holders["client"]
    x, y = task.train.x.copy(), task.train.y.copy()
    for name in federation.names:
        own, _ = read_source(federation.client_folder(name) / "data.toml").load()
        x[holders == name], y[holders == name] = own.x, own.y
    return replace(task, train=Examples(x=x, y=y, holders=task.train.holders))


def accuracy(run: Run) -> float:
    """On the public records, of the last round's model."""
    line = [json.loads(line) for line in (run.path / "record.jsonl").read_text().splitlines()]
    return float([each for each in line if each["kind"] == "round"][-1]["metrics"]["accuracy"])


def simulate(federation: Federation, folder: Path, seeds: int) -> list[float]:
    """The same experiment on the same records by ``fedsafe.run``, once for each seed."""
    values = {**resolved_experiment(federation), "engine": {"name": "inline"}}
    task, found = simulated_task(federation), []
    for seed in range(seeds):
        run = fedsafe.run({**values, "seed": seed}, data=task, out=folder / f"simulated-{seed}")
        found.append(accuracy(run))
    return found


def allow_runs(federation: Federation, count: int) -> None:
    """Each hospital lets so many runs of the experiment into its period."""
    for name in federation.names:
        path = federation.client_folder(name) / "policy.toml"
        values = read_policy(path).model_dump()
        values["budget"]["record"] |= {"epsilon": count * MOST_EPSILON, "delta": count * DELTA * 1.01}
        path.write_text(make_policy(values).to_toml())


def train(deployment: Deployment, out: Path, seed: int) -> tuple[Run, subprocess.CompletedProcess[str]]:
    """One run of the deployment to its end."""
    path = deployment.federation.folder / "experiment.toml"
    values = tomllib.loads(path.read_text())
    path.write_text(tomli_w.dumps({**values, "seed": seed}))
    words = ("start", str(deployment.federation.folder), "--out", str(out), "--wait-for-nodes", "300")
    done = deployment.command(*words, timeout=3000)
    if done.returncode != 0:
        raise RuntimeError(f"deploy start failed: {done.stderr.strip()} {deployment.log(SERVER)[-2000:]}")
    return Run(out), done


def trained(lines: Lines, deployment: Deployment, folder: Path, seeds: int) -> list[float]:
    """A run of the deployment for each seed, and what they cost."""
    federation, found = deployment.federation, []
    checked = deployment.command("check", str(federation.folder))
    lines.add(
        "fedsafe deploy check finds nothing wrong before the first round, on any side",
        f"fedsafe deploy check {federation.folder}",
        f"exit {checked.returncode}, {len(checked.stdout.splitlines())} checks",
        met=checked.returncode == 0,
    )
    for seed in range(seeds):
        run, done = train(deployment, folder / f"deployed-{seed}", seed)
        found.append(accuracy(run))
        if seed == 0:
            _first(lines, deployment, run, done)
    return found


def _first(lines: Lines, deployment: Deployment, run: Run, done: subprocess.CompletedProcess[str]) -> None:
    federation = deployment.federation
    command = f"fedsafe deploy start {federation.folder}"
    claim = next(claim for claim in run.claims if claim["unit"] == "record")
    ended = run.end
    lines.add(
        "a SuperLink and four SuperNodes with TLS and node keys on loopback train 20 rounds",
        command,
        f"{ended.status if ended else 'no end'} after {ended.rounds if ended else 0} rounds of "
        f"{len(federation.names)} hospitals; {done.stdout.strip().splitlines()[-1]}",
        met=ended is not None and ended.status == "completed" and ended.rounds == ROUNDS,
    )
    lines.add(
        "record-level epsilon <= 4 per hospital",
        command,
        f"planned epsilon {claim['epsilon']:.4f} at delta {claim['delta']:g}",
        met=claim["epsilon"] <= MOST_EPSILON and claim["delta"] <= DELTA,
    )
    shown, spent = {}, {}
    for name in federation.names:
        status = json.loads((federation.client_folder(name) / "state" / "status.json").read_text())
        mine = status["runs"][-1]
        spent[name] = (mine["realised_epsilon"], mine["planned_epsilon"])
        own = [line for line in mine["own"] if "accuracy" in line]
        shown[name] = (len(own), own[-1]["accuracy"] if own else None)
    lines.add(
        "each hospital sees its own accuracy and spend",
        "fedsafe deploy spend CLIENT_DIR",
        "; ".join(f"{name}: accuracy {value} in {count} rounds" for name, (count, value) in shown.items()),
        met=all(count == ROUNDS and value is not None for count, value in shown.values()),
    )
    predicted = _predicted(deployment)
    lines.add(
        "the realised spend is never above the predicted",
        "fedsafe deploy predict DIR; fedsafe deploy spend CLIENT_DIR",
        "; ".join(
            f"{name}: {real:.4f} of {predicted.get(name, plan):.4f} predicted"
            for name, (real, plan) in spent.items()
        ),
        met=all(
            real is not None and real <= predicted.get(name, plan) for name, (real, plan) in spent.items()
        ),
    )


def _predicted(deployment: Deployment) -> dict[str, float]:
    """Epsilon of each hospital as ``fedsafe deploy predict`` foresees it; of the plan where it is not there."""
    folder = deployment.federation.folder
    done = deployment.command("predict", str(folder))
    path = folder / "prediction.json"
    if done.returncode != 0 or not path.is_file():
        return {}
    clients = json.loads(path.read_text()).get("clients", {})
    return {name: float(each["epsilon"][-1]) for name, each in clients.items()}


def compared(lines: Lines, deployed: list[float], simulated: list[float]) -> None:
    """The 90 % interval of the difference of the means (Welch, 1947)."""
    difference = 100 * (statistics.mean(deployed) - statistics.mean(simulated))
    parts = [100**2 * statistics.variance(each) / len(each) for each in (deployed, simulated)]
    error = math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / sum(part**2 / (len(deployed) - 1) for part in parts) if error else 1.0
    half = float(stats.t.ppf(0.95, freedom)) * error
    low, high = difference - half, difference + half
    lines.add(
        "the 90 % interval of the accuracy difference to the simulated run (five seeds) lies within 3 points",
        f"fedsafe deploy start DIR, {len(deployed)} seeds; fedsafe.run on the same records, {len(simulated)} seeds",
        f"deployed {[round(each, 4) for each in deployed]}, simulated {[round(each, 4) for each in simulated]}: "
        f"difference {difference:+.2f} points, interval [{low:+.2f}, {high:+.2f}]",
        met=low >= -MOST_POINTS and high <= MOST_POINTS,
    )


def turned_away(lines: Lines, deployment: Deployment, folder: Path) -> None:
    """Clients that are none of this federation, each a SuperNode of its own."""
    federation, name = deployment.federation, deployment.federation.names[0]
    authority, authority_key = read_authority(federation)
    other_key = new_key()
    other = make_authority("elsewhere", other_key)
    cases = {
        "a forged key": ("forged", "is not of this federation"),
        "an expired certificate": ("expired", "its certificate expired on"),
        "another federation's certificate": ("foreign", "another federation's authority signed it"),
        "another federation's ca.pem": ("stranger", "its ca.pem is of another federation"),
    }
    for line, (named, reason) in cases.items():
        own = folder / named
        shutil.copytree(
            federation.client_folder(name), own, ignore=shutil.ignore_patterns("state", "records")
        )
        (own / "state").mkdir()
        shutil.copy(federation.client_folder(name) / "state" / "runtime.secret", own / "state")
        (own / "node.key").unlink()
        key = new_key()
        write_key(own / "node.key", key, ssh=True)
        if named == "expired":
            issued = issue_node(authority, authority_key, key.public_key(), named, days=-1)
            write_certificate(federation.certificate(named), issued)
        elif named == "foreign":
            write_certificate(
                federation.certificate(named), issue_node(other, other_key, key.public_key(), named)
            )
        elif named == "stranger":
            write_certificate(own / "ca.pem", other)
        script, port = (own / "supernode.sh").read_text(), free_ports(1)[0]
        mine = read_client(federation.client_folder(name)).runtime_port
        (own / "supernode.sh").write_text(script.replace(f"--port {mine}", f"--port {port}"))
        deployment.start_node(name, folder=own, named=named)
        deployment.until(
            lambda named=named: deployment.processes[named].poll() is not None, f"{named} did not end", 180
        )
        said = [row for row in deployment.log(SERVER).splitlines() if reason in row]
        lines.add(
            f"a client with {line} is turned away, and the log says why",
            f"sh {named}/supernode.sh",
            f"exit {deployment.processes[named].returncode}; the server's log: {_words(said)}",
            met=bool(said) and deployment.processes[named].returncode != 0,
        )
        federation.certificate(named).unlink(missing_ok=True)
    _plain_http(lines, deployment)


def _words(rows: list[str]) -> str:
    """The newest of some lines of a log, without what colours it."""
    return "".join("turned away" + row.partition("turned away")[2].rstrip() for row in rows[-1:])


def _plain_http(lines: Lines, deployment: Deployment) -> None:
    url = f"http://127.0.0.1:{deployment.federation.port}/v1/fleet/pull-messages"
    try:
        with urllib.request.urlopen(url, data=b"", timeout=10) as answer:
            came = f"status {answer.status}"
    except (urllib.error.URLError, OSError) as error:
        came = type(error).__name__
    reason = "it spoke plain HTTP"
    deployment.wait_for_log(SERVER, reason, 10)
    said = next(row for row in deployment.log(SERVER).splitlines() if reason in row)
    lines.add(
        "plain HTTP is turned away, and the log says why",
        f"POST {url}",
        f"{came}; the server's log: {_words([said])}",
        met=not came.startswith("status"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5, help="at least 2; the full lines have 5")
    parser.add_argument("--only", action="store_true", help="leave out the other modules' lines")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="the full lines have 20")
    arguments = parser.parse_args()
    seeds = arguments.seeds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = Lines(folder)
        with lines.section(
            "four hospitals are trained by a deployment and by a simulation", "fedsafe deploy"
        ):
            federation = set_up(folder / "heart", {**EXPERIMENT, "rounds": arguments.rounds})
            allow_runs(federation, seeds)
            simulated = simulate(federation, folder, seeds)
            with Deployment(federation) as deployment:
                deployment.start_all()
                deployment.wait_until_connected(300)
                with lines.section("clients of no or another federation are turned away", "sh supernode.sh"):
                    turned_away(lines, deployment, folder)
                deployed = trained(lines, deployment, folder, seeds)
                compared(lines, deployed, simulated)
        for module in () if arguments.only else OTHERS:
            if importlib.util.find_spec(module) is not None:
                with lines.section(f"the lines of {module}.py", module):
                    importlib.import_module(module).measure(lines, folder)
        sys.exit(lines.write("deploy"))


if __name__ == "__main__":
    main()
