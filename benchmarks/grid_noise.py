"""What exact noise on a grid costs beside noise in single precision: CPU milliseconds per client, in turns.

python benchmarks/grid_noise.py [--repeats 25] [--json]

On a machine that does other work too the least of many turns says more than their median.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from comparing import Comparison, Interleaved, script
from engine_dense import CLIP, NOISE, STACKED
from workloads import WORKS, Work

from fedsafe.client import ClientJob, LocalTraining, layout_of
from fedsafe.client.objectives import cross_entropy
from fedsafe.client.record_noise import record_grid_bits
from fedsafe.client.stacked import StackedTrainer
from fedsafe.rng import Stream, StreamId


def epoch_of(
    work: Work, data: tuple[torch.Tensor, torch.Tensor], grid_bits: int | None
) -> Callable[[], None]:
    """One local epoch of DP-SGD of all clients in one stacked call."""
    module = work.module()
    training = LocalTraining(
        learning_rate=work.lr,
        steps=work.steps,
        rate=work.batch / work.records,
        clip=CLIP,
        noise=NOISE,
        grid_bits=grid_bits,
    )
    trainer = StackedTrainer(module, cross_entropy, data, training)
    parameters = torch.cat([p.detach().flatten() for p in module.parameters()]).numpy()
    rounds = iter(range(1, 10**6))

    def epoch() -> None:
        number = next(rounds)
        trainer.train(parameters, [_job(work, client, number) for client in range(STACKED)])

    return epoch


def _job(work: Work, client: int, number: int) -> ClientJob:
    batches, noise = (
        Stream(bytes(32), StreamId(purpose=purpose, client=client, round=number, digest=b""))
        for purpose in ("batches", "record noise")
    )
    rows = np.arange(client * work.records, (client + 1) * work.records)
    return ClientJob(client=client, records=rows, batches=batches, noise=noise)


def compare(work: Work, repeats: int) -> Comparison:
    """The "peer" is FedSafe itself with noise in single precision; a ratio below one says what the grid costs."""
    x, y = map(torch.from_numpy, work.data(STACKED))
    parameters = layout_of(work.module()).total
    bits = record_grid_bits(CLIP, parameters)
    seconds = Interleaved()
    seconds.run(epoch_of(work, (x, y), bits), epoch_of(work, (x, y), None), repeats)
    own, peer = ([1e3 * value / STACKED for value in side] for side in (seconds.ours, seconds.theirs))
    return Comparison(
        work=f"{work.name}, {parameters} parameters, {work.steps} steps of {work.batch}, noise on a grid of 2^-{bits}",
        peer="FedSafe with noise in single precision",
        unit="CPU ms per client",
        ours=own,
        theirs=peer,
        paired=True,
        notes=f"the least of the turns {min(own):.4g} against {min(peer):.4g}",
    )


def measure(repeats: int) -> Sequence[Comparison]:
    torch.set_num_threads(1)
    return [compare(work, repeats) for work in WORKS.values()]


if __name__ == "__main__":
    script(measure)
