"""Client apps that lose their worker in the middle of a round, and a cluster that loses a node.

Usage as a program, ``python losing_workers.py FOLDER``: plays a tiny federation with four workers on two nodes of this
machine, loses a node in the second round, and prints the digest of every round's model and how many nodes had work.
"""

import functools
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import ray
import tiny_federation
from tiny_federation import apps, parts, plan, play

from fedsafe.engine import ClientApps
from fedsafe.params import fingerprint


def that_kills(make_apps, mark: Path):
    """Apps of which one worker is killed, once, in round 2, after its clients have trained."""
    return functools.partial(_killing, make_apps, mark)


def _killing(make_apps, mark):
    made = make_apps()

    def batch(messages, contexts):
        reply = made.batch(messages, contexts)
        if messages[0].content.config_records["config"]["server-round"] == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return reply

    return ClientApps(one=made.one, batch=batch)


def that_stall(make_apps, node: str, folder: Path):
    """Apps that note their node, and in round 2 on one node wait for its end."""
    return functools.partial(_stalling, make_apps, node, folder)


def _stalling(make_apps, node, folder):
    made = make_apps()
    here = ray.get_runtime_context().get_node_id()

    def batch(messages, contexts):
        (folder / f"ran-{here}").touch()
        reply = made.batch(messages, contexts)
        if here == node and messages[0].content.config_records["config"]["server-round"] == 2:
            (folder / "stalled").touch()
            time.sleep(120.0)
        return reply

    return ClientApps(one=made.one, batch=batch)


def main(folder: Path) -> dict:
    from ray.cluster_utils import Cluster

    from fedsafe.engine.ray_grid import RayGrid

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    second = cluster.add_node(num_cpus=2)
    of = parts(federation__cohort__rate=1.0)
    by = plan(of)
    grid = RayGrid(
        clients=tiny_federation.CLIENTS,
        make_apps=that_stall(apps(of, by), second.node_id, folder),
        workers=4,
        address=cluster.address,
    )
    grid.wait_until_ready()

    def lose() -> None:
        while not (folder / "stalled").exists():
            time.sleep(0.01)
        cluster.remove_node(second, allow_graceful=False)

    loser = threading.Thread(target=lose, daemon=True)
    loser.start()
    outcomes = play(of, by, grid, folder / "ledger.sqlite")
    loser.join(60.0)
    grid.close()
    ran = len(list(folder.glob("ran-*")))
    found = {
        "digests": [fingerprint(outcome.parameters) for outcome in outcomes],
        "failures": [outcome.failures for outcome in outcomes],
        "nodes": ran,
        "lost": (folder / "stalled").exists() and not loser.is_alive(),
    }
    cluster.shutdown()
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))  # noqa: T201
