"""Logistic regression by Flower's clients in plain PyTorch: one epoch of small batches."""

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from workloads import mapped

BATCH, LEARNING_RATE = 10, 0.03

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    folder = Path(str(message.content["config"]["data"]))
    starts = np.load(folder / "starts.npy")
    client = int(context.node_config["partition-id"])
    rows = slice(starts[client], starts[client + 1])
    x, y = (torch.from_numpy(part[rows].copy()) for part in mapped(folder))
    model = nn.Linear(784, 10)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for inputs, targets in DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    metrics = MetricRecord({"num-examples": len(x)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


def play(grid: Grid, nodes: int, *, rounds: int, fraction: float, data: str) -> Result:
    """Stock FedAvg; each round's model is measured on the test digits."""
    x, y = (torch.from_numpy(np.load(Path(data) / f"test-{name}.npy")) for name in "xy")
    model = nn.Linear(784, 10)

    @torch.no_grad()
    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        right = float((model(x).argmax(1) == y).float().mean())
        return MetricRecord({"accuracy": right, "clock": time.perf_counter()})

    strategy = FedAvg(fraction_train=fraction, fraction_evaluate=0.0, min_available_nodes=nodes)
    return strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        num_rounds=rounds,
        train_config=ConfigRecord({"data": data}),
        evaluate_fn=evaluate,
    )
