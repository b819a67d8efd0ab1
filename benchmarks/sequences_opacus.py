"""DP-SGD of an LSTM and of a transformer, the engine alone, against Opacus's hooks: CPU seconds in one process.

python benchmarks/sequences_opacus.py
"""

import copy
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from comparing import Comparison, Interleaved, script
from engine_dense import OpacusEpoch, stacked_epoch
from engine_sequences import Case, lstm_case, transformer_case
from opacus.validators import ModuleValidator
from torch import Tensor, nn

BATCH, STEPS, CLIENTS = 32, 5, 2
LEAST = 4.0


def compare(name: str, case: Case, repeats: int) -> Comparison:
    """Milliseconds of CPU for each client's epoch, in turns.

    Args:
        name: What is compared.
        case: Records of all clients, and the model.
        repeats: Turns.
    """
    data = (case.x, case.y)
    ours = stacked_epoch(case.module, case.objective, data, clients=CLIENTS, batch=BATCH)
    theirs = OpacusEpoch(
        make=lambda: _with_opacus_layers(case.module), loss=_loss, data=data, clients=CLIENTS, batch=BATCH
    )
    seconds = Interleaved()
    seconds.run(ours, theirs, repeats)
    return Comparison(
        work=f"{name}, {BATCH * STEPS} records, batch {BATCH}, DP-SGD, engine only",
        peer="Opacus hooks, its steps alone",
        unit="CPU ms per client",
        ours=[1e3 * value / CLIENTS for value in seconds.ours],
        theirs=[1e3 * value / CLIENTS for value in seconds.theirs],
        least=LEAST,
        paired=True,
    )


def _with_opacus_layers(module: nn.Module) -> nn.Module:
    """Opacus's own layers in place of those that its hooks do not take, as it advises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ModuleValidator.fix(copy.deepcopy(module))


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy; of sequences, over their positions too."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


def measure(repeats: int) -> Sequence[Comparison]:
    torch.set_num_threads(1)
    records = CLIENTS * STEPS * BATCH
    return [
        compare("LSTM (embedding 32, hidden 64, 50 steps)", lstm_case(records), repeats),
        compare("2-layer transformer (d 64, 50 positions)", transformer_case(records), repeats),
    ]


if __name__ == "__main__":
    script(measure)
