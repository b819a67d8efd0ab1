"""Model and data of the quickstart: blobs instead of images, so that nothing is downloaded."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

INPUTS, CLASSES = 16, 3


class Net(nn.Module):
    """Two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(INPUTS, 10)
        self.fc2 = nn.Linear(10, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(torch.relu(self.fc1(x)))


def load_data(partition_id: int, num_partitions: int, batch_size: int = 20) -> tuple[DataLoader, DataLoader]:
    """Loaders of one partition: 400 records to train on, 100 to test on."""
    rng = np.random.default_rng(partition_id)
    y = rng.integers(CLASSES, size=500)
    centres = np.random.default_rng(num_partitions).normal(size=(CLASSES, INPUTS))
    x = (centres[y] + rng.normal(size=(500, INPUTS))).astype(np.float32)
    train = TensorDataset(torch.from_numpy(x[:400]), torch.from_numpy(y[:400]))
    test = TensorDataset(torch.from_numpy(x[400:]), torch.from_numpy(y[400:]))
    return DataLoader(train, batch_size=batch_size), DataLoader(test, batch_size=batch_size)
