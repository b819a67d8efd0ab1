"""Secure aggregation over a real SuperLink: eight SuperNodes with gates on loopback, two of them killed in a round.

    python benchmarks/accept_secure_deploy.py        # about ten minutes; writes results/secure_deploy.json

Each half of a hospital's records (UCI Heart Disease) is a client. In the second round one client is killed, gate and
SuperNode, once its gate has written down that it will train and before its masked values leave; another one after its
masked values have left and before it confirms who has survived. What the server then shows as the model of this round
is held to the sum that the survivors' own keys and records give, to the last bit.
"""

import json
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from deployment import Deployment, free_ports, lines_of
from flwr.app import Message
from lines import Lines

from fedsafe.aggregation import DistributedMean
from fedsafe.data.catalogue.heart import HOSPITALS, ORIGINAL, SOURCE, parse
from fedsafe.data.dataset import hold_out
from fedsafe.data.sources import obtain
from fedsafe.deploy.experiment import compose_experiment, read_experiment
from fedsafe.deploy.federation import Client, Federation
from fedsafe.deploy.folder import Wanted, write_federation
from fedsafe.deploy.making import Ready, share
from fedsafe.deploy.own_records import load_own
from fedsafe.deploy.policy import make_policy, read_policy
from fedsafe.engine.grid import identify
from fedsafe.federation.messages import TRAIN, instruction_content, pack_parameters
from fedsafe.privacy.mechanisms import wrap
from fedsafe.rng import Stream, StreamId
from fedsafe.runs import Run
from fedsafe.runs.compose import aggregator_of, client_runtime, server_optimizer_of
from fedsafe.runs.keys import read_key
from fedsafe.store import checkpoint_name
from fedsafe.store.checkpoints import read_checkpoint

ROUNDS, KILLED_IN = 4, 2
SLOW = 900.0  # seconds that anything may take on a busy machine
LATE = "40"  # seconds after which an exchange goes on without whoever is silent
EXPERIMENT: Mapping[str, Any] = {
    "model": "logistic",
    "rounds": ROUNDS,
    "federation": {"cohort": {"name": "poisson", "rate": 1.0}},
    "client": {"optimizer": {"name": "sgd", "lr": 2.0}, "steps": 1, "rate": 1.0},
    "server": {"aggregator": {"name": "distributed_mean", "minimum": 5, "corrupt": 1}},
    "aggregation": {"secure": True},
    "privacy": {
        "record": {"epsilon": 3.0, "delta": 1e-5, "clip": 0.3},
        "client": {"epsilon": 20.0, "delta": 1e-3, "clip": 1.0},
    },
    "assess": {"every": ROUNDS, "assessors": ["performance"]},
}


def set_up(folder: Path) -> Federation:
    """A federation of eight on free ports, whose policies demand sums with four honest clients or more."""
    content = obtain(os.environ, "heart_disease", ORIGINAL, SOURCE.name)
    given = folder.parent / f"{folder.name}-given"
    given.mkdir(parents=True)
    (given / "experiment.toml").write_text(tomli_w.dumps(dict(EXPERIMENT)))
    tables = {}
    for file, hospital in HOSPITALS.items():
        frame = parse(content[file], file).drop(columns="hospital")
        for half in range(2):
            tables[f"{hospital.lower().replace(' ', '-')}-{half + 1}"] = frame.iloc[half::2]
    wanted = Wanted(
        name="heart",
        clients=tuple(Client(name=name) for name in tables),
        port=free_ports(1)[0],
        config=given / "experiment.toml",
        records={name: len(hold_out(len(frame), 0.2, 0)[1]) for name, frame in tables.items()},
    )
    federation = write_federation(folder, wanted)
    for name, frame in tables.items():
        own = federation.client_folder(name)
        frame.to_csv(own / "records" / "patients.csv", index=False)
        source = tomllib.loads((own / "data.toml").read_text())
        (own / "data.toml").write_text(tomli_w.dumps({**source, "outside": "clamp"}))
        values = read_policy(own / "policy.toml").model_dump()
        values["secure"] = {"required": True, "least_honest": 4}
        (own / "policy.toml").write_text(make_policy(values).to_toml())
    return federation


def events(federation: Federation, name: str, kind: str) -> list[int]:
    """The rounds that a client's audit file has something of."""
    lines = lines_of(federation.client_folder(name) / "state" / "audit.jsonl")
    return [line["round"] for line in lines if line["event"] == kind]


def answered(federation: Federation, name: str, stage: str) -> int:
    """In how many rounds a client has answered a stage."""
    found = 0
    for path in (federation.client_folder(name) / "state" / "secure").glob("*.round"):
        head = path.read_bytes().partition(b"\n")[0]
        found += stage in [said for said, _ in json.loads(head)["answers"]] if head.startswith(b"{") else 0
    return found


def kill(deployment: Deployment, name: str) -> None:
    """A client's gate and SuperNode, by SIGKILL."""
    deployment.kill(f"{name}-gate")
    deployment.kill(f"{name}-supernode")


def measure(lines: Lines, folder: Path) -> None:
    """Add the lines."""
    federation = set_up(folder / "heart")
    before, after = federation.names[1], federation.names[6]
    run = federation.server / "runs" / "run-1"
    kept = folder / "kept"
    kept.mkdir()
    with Deployment(federation, OMP_NUM_THREADS="1") as deployment:
        deployment.start_all()
        deployment.wait_until_connected(SLOW)
        checked = deployment.command("check", str(federation.folder), timeout=SLOW)
        lines.add(
            "fedsafe deploy check pins every client's key on every side",
            f"fedsafe deploy check {federation.folder}",
            f"exit {checked.returncode}, {checked.stdout.count('the keys of 8 clients are pinned')} clients pin 8",
            met=checked.returncode == 0 and checked.stdout.count("the keys of 8 clients are pinned") == 8,
        )
        words = ("--detach", "--wait-for-nodes", str(SLOW), "--wait-for-replies", LATE)
        started = deployment.command("start", str(federation.folder), *words, timeout=SLOW)
        if started.returncode:
            raise RuntimeError(f"start failed: {started.stdout}{started.stderr}")
        deployment.until(
            lambda: KILLED_IN in events(federation, before, "release"), f"{before} trained nothing", SLOW
        )
        kill(deployment, before)
        deployment.until(
            lambda: answered(federation, after, "confirm") == KILLED_IN, f"{after} confirmed nothing", SLOW
        )
        kill(deployment, after)
        for name in federation.names:
            shutil.copytree(federation.client_folder(name), kept / name)
        deployment.until(lambda: len(rounds_of(run)) >= KILLED_IN, "the round did not end", SLOW)
        for number in (KILLED_IN - 1, KILLED_IN):
            shutil.copy(run / checkpoint_name(number), kept / f"{number}.safetensors")
        deployment.until(lambda: Run(run).end is not None, "the run did not end", SLOW)
        report(lines, federation, run, kept, (before, after))


def rounds_of(run: Path) -> list[Mapping[str, Any]]:
    """The rounds that are recorded."""
    return [line for line in lines_of(run / "record.jsonl") if line["kind"] == "round"]


def report(lines: Lines, federation: Federation, run: Path, kept: Path, killed: tuple[str, str]) -> None:
    """What came of the run."""
    command = f"fedsafe deploy start {federation.folder} --wait-for-replies {LATE}"
    before, after = killed
    end, exchanges = Run(run).end, lines_of(run / "private" / "replies.jsonl")
    told = {
        number: [(line["asked"], line["replied"]) for line in exchanges if line["round"] == str(number)]
        for number in range(1, ROUNDS + 1)
    }
    timings = [line.get("aborted") for line in lines_of(run / "private" / "timings.jsonl")]
    lines.add(
        "over a real SuperLink a run of eight SuperNodes completes with two killed by SIGKILL in different stages",
        command,
        f"{end.status if end else 'no end'} after {end.rounds if end else 0} of {ROUNDS} rounds, "
        f"{sum(why is not None for why in timings)} of them without a sum; {before} was killed in the stage mask of "
        f"round {KILLED_IN}, {after} in the stage confirm; asked and replied, stage by stage: {told}",
        met=end is not None
        and end.status == "completed"
        and end.rounds == ROUNDS
        and not any(timings)
        and len({line["parameters_sha256"] for line in rounds_of(run)}) == ROUNDS,
    )
    survivors = [name for name in federation.names if name != before]
    found, expected = of_survivors(federation, kept, survivors)
    _, others = of_survivors(federation, kept, list(federation.names))
    lines.add(
        "the model of that round is that of the exact sum of those whose masked values had arrived",
        command,
        f"{len(survivors)} clients, the one that died after it among them: largest difference to the sum of what their "
        f"own keys and records give {np.abs(found - expected).max():g}; to the sum with {before} "
        f"{np.abs(found - others).max():g}",
        met=np.array_equal(found, expected) and not np.array_equal(found, others),
    )
    later = [told[number] for number in range(KILLED_IN + 1, ROUNDS + 1)]
    lines.add(
        "later rounds go on with the six that are left",
        command,
        f"replies in the stages of rounds {KILLED_IN + 1} to {ROUNDS}: {[[got for _, got in each] for each in later]}",
        met=all([got for _, got in each] == [6] * 5 for each in later),
    )
    charged = {name: sorted(set(events(federation, name, "release"))) for name in federation.names}
    wanted = {name: list(range(1, ROUNDS + 1)) for name in federation.names}
    wanted |= {name: list(range(1, KILLED_IN + 1)) for name in killed}
    replied = events(federation, before, "reply")
    lines.add(
        "a client's ledger has a round before its masked values leave, and no more",
        "CLIENT_DIR/state/audit.jsonl",
        # A reply is on the client's disk before it is sent: the kill may fall before that, or between the two.
        f"rounds charged: {charged}; {before} was killed before its values arrived, its replies on the disk: {replied}",
        met=charged == wanted,
    )
    claims = {claim["unit"]: claim["epsilon"] for claim in Run(run).claims}
    lines.add(
        "the claims of the run rest on masks between nodes, not on a simulation of them",
        command,
        f"epsilon {claims}; {'; '.join(Run(run).claims[1]['assumptions'][:2])}",
        met=not any("simulation" in text for text in Run(run).claims[1]["assumptions"]),
    )


def of_survivors(
    federation: Federation, kept: Path, names: list[str]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The round's model, and the one that the sum of some clients' shares gives, from their keys and records."""
    before, _ = read_checkpoint(kept / f"{KILLED_IN - 1}.safetensors")
    found, _ = read_checkpoint(kept / f"{KILLED_IN}.safetensors")
    parameters, state = before.pop("parameters"), before
    total, rule, parts = np.zeros(1, np.int64), None, None
    for name in names:
        own = kept / name
        policy = read_policy(own / "policy.toml")
        (text,) = (path.read_text() for path in (own / "state" / "experiments").iterdir())
        experiment = compose_experiment(
            read_experiment(text, policy), policy, lambda spec, own=own, name=name: load_own(own, name, spec)
        )
        (key,) = (own / "state" / "keys").iterdir()
        parts, plan = experiment.parts, experiment.plan
        runtime = client_runtime(parts, plan, read_key(key))
        content = instruction_content(
            pack_parameters(parameters, parts.layout), round=KILLED_IN, plan=plan.hash
        )
        identify()
        message = Message(content, dst_node_id=2, message_type=TRAIN, group_id=str(KILLED_IN))
        rule = aggregator_of(parts, plan)
        if not isinstance(rule, DistributedMean):
            raise TypeError(rule.name)
        total = wrap(
            total + share(message, Ready(experiment=experiment, runtime=runtime, metrics=None)),  # type: ignore[arg-type]
            rule.client.modulus,
        )
    if rule is None or parts is None:
        raise ValueError("nobody survived")
    nothing = Stream(bytes(32), StreamId(purpose="unused", client=0, round=0, digest=b""))
    update = rule.finish(rule.fold_of(total, len(names), parts.layout.total), nothing)
    moved, _ = server_optimizer_of(parts).step(parameters, state, update)
    return found["parameters"], moved


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="secure", dir="/var/tmp") as temporary:
        collected = Lines(Path(temporary))
        with collected.section("eight SuperNodes sum behind masks", "fedsafe deploy"):
            measure(collected, Path(temporary))
        sys.exit(collected.write("secure_deploy"))
