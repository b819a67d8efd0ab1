"""Stock FedAvg of 6,850 parameters, as many as an MLP of 104-64-2 has; the only metric is the clock."""

import time

import numpy as np
from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result

SHAPES = {"hidden.weight": (64, 104), "hidden.bias": (64,), "out.weight": (2, 64), "out.bias": (2,)}

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    play(grid, rounds=int(config["rounds"]), fraction=float(config["fraction"]))


def play(grid: Grid, nodes: int = 1, *, rounds: int, fraction: float) -> Result:
    """FedAvg over so many rounds, evaluated by the clock."""
    strategy = FedAvg(fraction_train=fraction, fraction_evaluate=0.0, min_available_nodes=nodes)
    arrays = {name: Array(np.zeros(shape, np.float32)) for name, shape in SHAPES.items()}
    return strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(arrays),
        num_rounds=rounds,
        evaluate_fn=lambda number, arrays: MetricRecord({"clock": time.perf_counter()}),
    )
