"""Non-private local SGD by pfl; prints the seconds of each round but the first, as JSON.

    torchrun --standalone --nproc_per_node=2 benchmarks/peers/pfl_local_sgd.py WORK FOLDER CLIENTS COHORT ROUNDS

Two processes train the users of a round between them and sum their updates by gloo, pfl's documented way without GPUs.
Run by the interpreter of an environment that has pfl (``peers/pfl.txt``).
"""

import json
import os
import sys
import time
from typing import Any

import torch
import torch.nn.functional as F
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn
from workloads import WORKS, client_rows, mapped


class Trained(nn.Module):
    """What pfl asks of a model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def loss(self, x: Tensor, y: Tensor, eval: bool = False) -> Tensor:  # noqa: A002
        return F.cross_entropy(self.module(torch.as_tensor(x)), torch.as_tensor(y))

    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        return {}


class Clock(TrainingProcessCallback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        self.times.append(time.perf_counter())
        return False, Metrics()


def main() -> None:
    torch.set_num_threads(1)
    name, folder = sys.argv[1:3]
    clients, cohort, rounds = map(int, sys.argv[3:6])
    work, (x, y) = WORKS[name], mapped(folder)

    def user(number: int) -> Dataset:
        rows = client_rows(work, int(number))
        return Dataset(
            [torch.from_numpy(x[rows].copy()), torch.from_numpy(y[rows].copy())], user_id=str(number)
        )

    users = FederatedDataset(user, get_user_sampler("random", list(range(clients))))
    trained = Trained(work.module())
    model = PyTorchModel(trained, torch.optim.SGD, torch.optim.SGD(trained.parameters(), lr=1.0))
    clock = Clock()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=cohort,
            val_cohort_size=0,
        ),
        SimulatedBackend(training_data=users, val_data=None),
        model,
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=work.lr, local_batch_size=work.batch),
        NNEvalHyperParams(local_batch_size=None),
        callbacks=[clock],
    )
    if int(os.environ.get("RANK", "0")) == 0:
        print(
            json.dumps([after - before for before, after in zip(clock.times, clock.times[1:], strict=False)])
        )


if __name__ == "__main__":
    main()
