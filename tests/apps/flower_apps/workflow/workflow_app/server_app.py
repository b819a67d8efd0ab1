"""The server's side as a workflow, which may aggregate securely and which returns nothing."""

import numpy as np
from flwr.app import Context
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


def weighted(results: list) -> dict:
    total = sum(number for number, _ in results)
    names = results[0][1]
    return {name: sum(number * metrics[name] for number, metrics in results) / total for name in names}


@app.main()
def main(grid: Grid, context: Context) -> None:
    strategy = FedAvg(
        min_available_clients=context.run_config["nodes"],
        initial_parameters=ndarrays_to_parameters([np.zeros(3)]),
        fit_metrics_aggregation_fn=weighted,
        evaluate_metrics_aggregation_fn=weighted,
    )
    rounds = ServerConfig(num_rounds=context.run_config["num-server-rounds"])
    secure = SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2, max_weight=10)
    workflow = DefaultWorkflow(fit_workflow=secure if context.run_config["secure"] else None)
    workflow(grid, LegacyContext(context=context, config=rounds, strategy=strategy))
