"""The server's side as apps were written before messages: a function that gives components."""

import numpy as np
from flwr.app import Context
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp


def weighted(results: list) -> dict:
    total = sum(number for number, _ in results)
    return {"mean": sum(number * metrics["mean"] for number, metrics in results) / total}


def server_fn(context: Context) -> ServerAppComponents:
    strategy = FedAvg(
        min_available_clients=context.run_config["nodes"],
        initial_parameters=ndarrays_to_parameters([np.zeros(3)]),
        evaluate_metrics_aggregation_fn=weighted,
    )
    config = ServerConfig(num_rounds=context.run_config["num-server-rounds"])
    return ServerAppComponents(strategy=strategy, config=config)


app = ServerApp(server_fn=server_fn)
