"""A worker or a node that is lost in the middle of a round leaves every byte as it would have been."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_federation
from losing_workers import that_kills
from quiet_environment import QUIET, TESTS
from tiny_federation import apps, parts, plan, play

from fedsafe.engine import InlineGrid
from fedsafe.engine.ray_grid import RayGrid
from fedsafe.params import fingerprint
from fedsafe.privacy.chain import read_events


def digests(outcomes):
    return [fingerprint(outcome.parameters) for outcome in outcomes]


def undisturbed(of, by, folder):
    grid = InlineGrid(clients=tiny_federation.CLIENTS, apps=apps(of, by)())
    return digests(play(of, by, grid, folder / "undisturbed.sqlite"))


@pytest.mark.parametrize("noise", [1.0, 0.0], ids=["private", "plain FedAvg"])
def test_a_killed_worker_changes_no_byte_and_nothing_is_reserved_twice(ray_of_two, tmp_path, noise):
    of = parts(federation__cohort__rate=1.0)
    by = plan(of, noise=noise)
    mark = tmp_path / "killed"
    grid = RayGrid(
        clients=tiny_federation.CLIENTS, make_apps=that_kills(apps(of, by), mark), workers=2, chunk=3
    )
    try:
        grid.wait_until_ready()
        outcomes = play(of, by, grid, tmp_path / "ledger.sqlite")
    finally:
        grid.close()
    assert mark.exists()
    assert digests(outcomes) == undisturbed(of, by, tmp_path)
    assert [outcome.failures for outcome in outcomes] == [0, 0, 0]
    events = read_events(tmp_path / "ledger.sqlite")
    assert sorted(event.round for event in events if event.kind != "plan") == [1, 2, 3]


def test_a_lost_node_of_a_cluster_changes_no_byte(ray_temp, tmp_path):
    environment = {
        **os.environ,
        **QUIET,
        "PYTHONPATH": f"{TESTS}:{TESTS / 'engine'}",
        "RAY_TMPDIR": str(ray_temp),
        "RAY_ADDRESS": "127.0.0.1:1",  # names no cluster, and is not asked
    }
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("losing_workers.py"), tmp_path],
        capture_output=True,
        text=True,
        env=environment,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["lost"]
    assert found["nodes"] == 2
    assert found["failures"] == [0, 0, 0]
    of = parts(federation__cohort__rate=1.0)
    assert found["digests"] == undisturbed(of, plan(of), tmp_path)
