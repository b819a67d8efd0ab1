"""FedAvg over clients that remember, and of which one fails."""

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    strategy = FedAvg(min_available_nodes=config["nodes"])
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(5)]),
        train_config=ConfigRecord({"fails": config["fails"]}),
        num_rounds=config["num-server-rounds"],
    )
