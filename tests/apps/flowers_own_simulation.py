"""Runs apps by Flower's own simulation, and prints what their strategies returned, as JSON.

Usage: ``python flowers_own_simulation.py NODES FOLDER...``
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path

import ray
from flwr.app import Context, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supercore.telemetry import EventType


def waiting(app: ServerApp, nodes: int) -> ServerApp:
    """The app, from when all nodes are registered: FedAvg takes its share of those that are there when it begins."""
    first = ServerApp()

    @first.main()
    def main(grid: Grid, context: Context) -> None:
        while len(list(grid.get_node_ids())) < nodes:
            time.sleep(0.01)
        app(grid, context)

    return first


def main(nodes: int, folders: list[str]) -> dict:
    from flwr.simulation.run_simulation import _run_simulation

    from fedsafe.engine.flower_app import find_app
    from fedsafe.engine.results import results_of_strategies

    # One Ray for all apps, which Flower would start and stop for each. Its actors import the apps' modules, too.
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.shutdown, stop_ray = lambda: None, ray.shutdown
    found = {}
    for folder in folders:
        app = find_app(folder)
        server, client = waiting(app.load_server(), nodes), app.make_client()().one
        run = Run.create_empty(7)
        run.primary_task_id, run.federation_id = 7, NOOP_FEDERATION_ID
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, SUPERLINK_NODE_ID
        context = Context(
            run_id=7, node_id=0, node_config={}, state=RecordDict(), run_config=dict(app.run_config)
        )
        with results_of_strategies() as results:
            _run_simulation(
                num_supernodes=nodes,
                exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
                client_app=client,
                server_app=server,
                server_app_context=context,
                app_dir=folder,
                is_app=True,
                run=run,
                backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
            )
        arrays = results.found[-1].arrays if results.found else {}
        found[Path(folder).name] = {
            "metrics": results.metrics(),
            "arrays": [array.numpy().tolist() for array in arrays.values()],
        }
    stop_ray()
    return found


if __name__ == "__main__":
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    warnings.simplefilter("ignore")
    print(json.dumps(main(int(sys.argv[1]), sys.argv[2:])))  # noqa: T201
