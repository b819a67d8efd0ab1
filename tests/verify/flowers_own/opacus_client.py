"""A client in the shape of Flower's documented Opacus example: a new PrivacyEngine in each round."""

import logging
import warnings

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")
logging.getLogger("opacus").setLevel(logging.ERROR)


def load_data(partition_id, num_partitions):
    generator = torch.Generator().manual_seed(partition_id)
    x = torch.randn(120, 16, generator=generator)
    dataset = TensorDataset(x, (x[:, 0] > 0).long())
    return DataLoader(dataset, batch_size=30, shuffle=True), DataLoader(dataset, batch_size=30)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(16, 8)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


app = ClientApp()


@app.train()
def train(msg, context):
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    train_loader, _ = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])
    optimizer = torch.optim.SGD(model.parameters(), lr=context.run_config["lr"])
    privacy_engine = PrivacyEngine(accountant="rdp", secure_mode=False)
    private, optimizer, train_loader = privacy_engine.make_private(
        module=model,
        optimizer=optimizer,
        data_loader=train_loader,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )
    private.train()
    for x, y in train_loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(private(x), y).backward()
        optimizer.step()
    metrics = {"epsilon": privacy_engine.get_epsilon(delta=1e-5), "num-examples": len(train_loader.dataset)}
    arrays = ArrayRecord(model.state_dict())
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)}), reply_to=msg)
