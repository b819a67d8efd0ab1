"""A strategy of the app's own: momentum at the server, two phases of messages by name."""

from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class FedMomentum(FedAvg):
    """FedAvg whose step is repeated in part."""

    def __init__(self, momentum: float, **options: object) -> None:
        super().__init__(**options)
        self.momentum = momentum
        self.before: list[np.ndarray] | None = None
        self.velocity: list[np.ndarray] | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.before = arrays.to_numpy_ndarrays()
        config["scale"] = 1.0 / server_round
        for message in super().configure_train(server_round, arrays, config, grid):
            message.metadata.message_type = "train.scaled"
            yield message

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        mean, metrics = super().aggregate_train(server_round, replies)
        steps = [new - old for new, old in zip(mean.to_numpy_ndarrays(), self.before, strict=True)]
        if self.velocity is not None:
            steps = [step + self.momentum * old for step, old in zip(steps, self.velocity, strict=True)]
        self.velocity = steps
        moved = [old + step for old, step in zip(self.before, steps, strict=True)]
        return ArrayRecord(moved), metrics


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    strategy = FedMomentum(config["momentum"], min_available_nodes=config["nodes"], fraction_evaluate=0.0)
    initial = ArrayRecord([np.zeros((3, 2)), np.zeros(2)])
    strategy.start(grid=grid, initial_arrays=initial, num_rounds=config["num-server-rounds"])
