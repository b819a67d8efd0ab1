"""DP-SGD of an MLP and of the MNIST CNN, the engine alone, against Opacus's hooks: CPU seconds in one process.

python benchmarks/engine_dense.py
"""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from comparing import Comparison, Interleaved, cpu_seconds, script
from opacus import PrivacyEngine
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from workloads import WORKS, Work, client_rows

from fedsafe.client import ClientJob, LocalTraining
from fedsafe.client.objectives import cross_entropy
from fedsafe.client.stacked import StackedTrainer
from fedsafe.rng import Stream, StreamId

NOISE, CLIP = 1.0, 1.0
# As many as one of two workers gets of a cohort of 100.
STACKED = 50


def stacked_epoch(
    module: nn.Module,
    objective: Callable[..., Tensor],
    data: tuple[Tensor, Tensor],
    *,
    clients: int,
    batch: int,
    lr: float = 0.1,
) -> Callable[[], None]:
    """One local epoch of DP-SGD of all clients through the stacked engine, each client with as many records."""
    records = len(data[0]) // clients
    training = LocalTraining(
        learning_rate=lr, steps=records // batch, rate=batch / records, clip=CLIP, noise=NOISE
    )
    trainer = StackedTrainer(module, objective, data, training)
    parameters = torch.cat([p.detach().flatten() for p in module.parameters()]).numpy()
    rounds = iter(range(1, 10**6))

    def epoch() -> None:
        number = next(rounds)
        jobs = [
            ClientJob(
                client=client,
                records=np.arange(client * records, (client + 1) * records),
                batches=_stream("batches", client, number),
                noise=_stream("record noise", client, number),
            )
            for client in range(clients)
        ]
        trainer.train(parameters, jobs)

    return epoch


def _stream(purpose: str, client: int, number: int) -> Stream:
    return Stream(bytes(32), StreamId(purpose=purpose, client=client, round=number, digest=b""))


@dataclass(kw_only=True)
class OpacusEpoch:
    """One local epoch of each client by Opacus, as its documentation shows; a call gives the CPU seconds of the steps.

    Args:
        make: A fresh module.
        loss: Mean loss of a batch.
        data: Records of all clients, as many for each.
        clients: How many clients.
        batch: Expected records of a step.
        lr: Learning rate.
        batch_first: Whether the module's layers see the batch in their first dimension, or in their second.
        beside: CPU seconds of what each call did not count: to make a client's module, optimiser, loader and engine.
    """

    make: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    data: tuple[Tensor, Tensor]
    clients: int
    batch: int
    lr: float = 0.1
    batch_first: bool = True
    beside: list[float] = field(default_factory=list)
    engine: PrivacyEngine = field(init=False)

    def __call__(self) -> float:
        seconds, began = 0.0, time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for client in range(self.clients):
                seconds += self._train(client)
        self.beside.append(time.process_time() - began - seconds)
        return seconds

    def epsilon(self) -> float:
        """CPU seconds of one ``get_epsilon``, which the documented client calls once a round."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cpu_seconds(lambda: self.engine.get_epsilon(1e-5) and None)

    def _train(self, client: int) -> float:
        x, y = self.data
        records = len(x) // self.clients
        own = slice(client * records, (client + 1) * records)
        module = self.make()
        optimizer: Any = torch.optim.SGD(module.parameters(), lr=self.lr)
        loader: Any = DataLoader(TensorDataset(x[own], y[own]), batch_size=self.batch)
        self.engine = PrivacyEngine()
        module, optimizer, loader = self.engine.make_private(
            module=module,
            optimizer=optimizer,
            data_loader=loader,
            noise_multiplier=NOISE,
            max_grad_norm=CLIP,
            batch_first=self.batch_first,
        )
        began = time.process_time()
        for inputs, targets in loader:
            optimizer.zero_grad()
            self.loss(module(inputs), targets).backward()
            optimizer.step()
        return time.process_time() - began


def compare(work: Work, *, least: float, peers: int, repeats: int) -> Comparison:
    """Milliseconds of CPU for each client's epoch, in turns.

    Args:
        work: What a client does.
        least: Times faster.
        peers: How many clients Opacus trains, one after another, in each turn.
        repeats: Turns.
    """
    x, y = map(torch.from_numpy, work.data(STACKED))
    fewer = slice(0, client_rows(work, peers).start)
    ours = stacked_epoch(work.module(), cross_entropy, (x, y), clients=STACKED, batch=work.batch, lr=work.lr)
    theirs = OpacusEpoch(
        make=work.module,
        loss=F.cross_entropy,
        data=(x[fewer], y[fewer]),
        clients=peers,
        batch=work.batch,
        lr=work.lr,
    )
    seconds = Interleaved()
    seconds.run(ours, theirs, repeats)
    beside = 1e3 * statistics.median(theirs.beside) / peers
    epsilon = 1e3 * theirs.epsilon()
    own = [1e3 * value / STACKED for value in seconds.ours]
    peer = [1e3 * value / peers for value in seconds.theirs]
    names = {"mlp": "MLP 104-64-2", "cnn": "MNIST CNN (26k)"}
    return Comparison(
        work=f"{names[work.name]}, {work.records} records, batch {work.batch}, DP-SGD, engine only",
        peer="Opacus hooks, its steps alone",
        unit="CPU ms per client",
        ours=own,
        theirs=peer,
        least=least,
        paired=True,
        notes=f"Opacus takes {beside:.0f} ms more to make a client, and {epsilon:.0f} ms for one get_epsilon: with "
        f"both, {(statistics.median(peer) + beside + epsilon) / statistics.median(own):.0f} times",
    )


def measure(repeats: int) -> Sequence[Comparison]:
    torch.set_num_threads(1)
    return [
        compare(WORKS["mlp"], least=30.0, peers=20, repeats=repeats),
        compare(WORKS["cnn"], least=9.0, peers=5, repeats=repeats),
    ]


if __name__ == "__main__":
    script(measure)
