"""DP-SGD at Flower's clients in the shape of its documented example: a new Opacus engine each round."""

import time
from typing import Any

import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result
from opacus import PrivacyEngine
from torch.utils.data import DataLoader, TensorDataset
from workloads import WORKS, client_rows, mapped

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    config = message.content["config"]
    work = WORKS[str(config["work"])]
    module = work.module()
    module.load_state_dict(message.content["arrays"].to_torch_state_dict())
    rows = client_rows(work, int(context.node_config["partition-id"]))
    x, y = (torch.from_numpy(part[rows].copy()) for part in mapped(str(config["data"])))
    optimizer: Any = torch.optim.SGD(module.parameters(), lr=work.lr)
    loader: Any = DataLoader(TensorDataset(x, y), batch_size=work.batch)
    engine = PrivacyEngine()
    private, optimizer, loader = engine.make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0
    )
    for inputs, targets in loader:
        optimizer.zero_grad()
        F.cross_entropy(private(inputs), targets).backward()
        optimizer.step()
    metrics = {"num-examples": len(x), "epsilon": engine.get_epsilon(delta=1e-5)}
    content = RecordDict({"arrays": ArrayRecord(module.state_dict()), "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=message)


def play(grid: Grid, nodes: int, *, work: str, data: str, rounds: int, fraction: float) -> Result:
    """Stock FedAvg over a cohort of fixed size."""
    strategy = FedAvg(fraction_train=fraction, fraction_evaluate=0.0, min_available_nodes=nodes)
    return strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(WORKS[work].module().state_dict()),
        num_rounds=rounds,
        train_config=ConfigRecord({"work": work, "data": data}),
        evaluate_fn=lambda number, arrays: MetricRecord({"clock": time.perf_counter()}),
    )
