"""The models and records that are timed on both sides, the same to the bit."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

CLIENTS = 1000
COHORT = 100


class MnistCnn(nn.Module):
    """The convolutional network of the MNIST example of Opacus, with 26,010 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 8, 2, padding=3)
        self.conv2 = nn.Conv2d(16, 32, 4, 2)
        self.fc1 = nn.Linear(32 * 4 * 4, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 1, 28, 28)`` images to ``(n, 10)`` logits."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2, 1)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2, 1)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def mlp() -> nn.Module:
    """104-64-2 with 6,850 parameters: as many inputs as encoded Adult has."""
    return nn.Sequential(nn.Linear(104, 64), nn.ReLU(), nn.Linear(64, 2))


@dataclass(frozen=True, kw_only=True)
class Work:
    """One client's local epoch.

    Args:
        name: ``"mlp"`` or ``"cnn"``.
        inputs: Shape of a record.
        outputs: Classes.
        records: Of each client.
        batch: Expected records of a step; an epoch has ``records / batch`` steps.
        lr: Learning rate.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: int
    records: int
    batch: int
    lr: float = 0.1

    @property
    def steps(self) -> int:
        return self.records // self.batch

    def module(self) -> nn.Module:
        """With the same weights at each call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return mlp() if self.name == "mlp" else MnistCnn()

    def data(self, clients: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Records of so many clients, one client after another: standard normal values and random classes."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((clients * self.records, *self.inputs), dtype=np.float32)
        return x, rng.integers(0, self.outputs, len(x))


WORKS = {
    "mlp": Work(name="mlp", inputs=(104,), outputs=2, records=320, batch=32),
    "cnn": Work(name="cnn", inputs=(1, 28, 28), outputs=10, records=600, batch=60),
}


@contextmanager
def stored(x: NDArray[Any], y: NDArray[Any]) -> Iterator[Path]:
    """A folder with the records as files, which processes can map into memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "x.npy", x)
        np.save(folder / "y.npy", y)
        yield folder


def mapped(folder: Path | str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The records of such a folder, read when they are used."""
    return np.load(Path(folder) / "x.npy", mmap_mode="r"), np.load(Path(folder) / "y.npy", mmap_mode="r")


def client_rows(work: Work, client: int) -> slice:
    """Where a client's records lie."""
    return slice(client * work.records, (client + 1) * work.records)
