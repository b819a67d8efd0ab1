"""Runs a Flower app in Flower's own simulation and prints the clock of each round, as JSON.

    python benchmarks/peers/flower_simulation.py SERVER CLIENT NODES [key=value ...]

The client's module has a ``ClientApp`` called ``app``; the server's a function ``play(grid, nodes, **values)``, which
runs a strategy and returns its ``Result``, with a server-side metric ``clock`` after each round. Each client has one
processor: as many run at once as the machine has cores, in processes that live on from round to round, as by default.
"""

import importlib
import json
import logging
import sys
import time
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation


def main() -> None:
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    server_side, client_side = (importlib.import_module(name) for name in sys.argv[1:3])
    nodes = int(sys.argv[3])
    values = {name: json.loads(value) for name, value in (text.split("=", 1) for text in sys.argv[4:])}
    found: list[Any] = []
    server = ServerApp()

    @server.main()
    def run(grid: Grid, context: Context) -> None:
        # Nodes register while the server app runs already.
        while len(list(grid.get_node_ids())) < nodes:
            time.sleep(0.01)
        found.append(server_side.play(grid, nodes, **values))

    began = time.perf_counter()
    run_simulation(
        server,
        client_side.app,
        nodes,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0}},
    )
    seconds = time.perf_counter() - began
    metrics = found[0].evaluate_metrics_serverapp
    rounds = [dict(metrics[number]) for number in sorted(metrics)]
    print(json.dumps({"seconds": seconds, "rounds": rounds}))


if __name__ == "__main__":
    main()
