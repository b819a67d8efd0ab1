"""DP-SGD of an LSTM and of a transformer, the engine alone, against Opacus's hooks: CPU seconds in one process.

python benchmarks/sequences_opacus.py

Both sides get the same ordinary module. Opacus puts its own layers in place of those that its hooks do not take, by
``ModuleValidator.fix``; its attention is right only where positions come first, so it gets a transformer of that order.
A second line is for attention by four linear layers, which somebody who knows Opacus might write by hand.
"""

import copy
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from comparing import Comparison, Interleaved, script
from engine_dense import OpacusEpoch, stacked_epoch
from engine_sequences import (
    Case,
    TokenTransformer,
    lstm_case,
    positions_first,
    transformer_case,
    with_open_attention,
)
from opacus.validators import ModuleValidator
from torch import Tensor, nn

BATCH, STEPS, CLIENTS = 32, 5, 2
LEAST = 4.0


class Turned(nn.Module):
    """A module for tokens ``(positions, batch)``, given them as a loader does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.module(x.t().contiguous())
        return logits


def compare(
    name: str, case: Case, repeats: int, *, documented: bool = True, least: float | None = LEAST
) -> Comparison:
    """Milliseconds of CPU for each client's epoch, in turns.

    Args:
        name: What is compared.
        case: Records of all clients, and the model.
        repeats: Turns.
        documented: Whether Opacus's own layers take the place of the ordinary ones, or attention by linear layers.
        least: Times faster.
    """
    data = (case.x, case.y)
    ours = stacked_epoch(case.module, case.objective, data, clients=CLIENTS, batch=BATCH)
    turned = documented and isinstance(case.module, TokenTransformer)

    def make() -> nn.Module:
        if not documented:
            return with_open_attention(copy.deepcopy(case.module))
        if isinstance(case.module, TokenTransformer):
            return _with_opacus_layers(Turned(positions_first(case.module)))
        return _with_opacus_layers(case.module)

    theirs = OpacusEpoch(
        make=make, loss=_loss, data=data, clients=CLIENTS, batch=BATCH, batch_first=not turned
    )
    seconds = Interleaved()
    seconds.run(ours, theirs, repeats)
    return Comparison(
        work=f"{name}, {BATCH * STEPS} records, batch {BATCH}, DP-SGD, engine only",
        peer=f"Opacus hooks, {'its own layers' if documented else 'attention by linear layers'}, its steps alone",
        unit="CPU ms per client",
        ours=[1e3 * value / CLIENTS for value in seconds.ours],
        theirs=[1e3 * value / CLIENTS for value in seconds.theirs],
        least=least,
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
    transformer = "2-layer transformer (d 64, 50 positions)"
    return [
        compare("LSTM (embedding 32, hidden 64, 50 steps)", lstm_case(records), repeats),
        compare(transformer, transformer_case(records), repeats),
        compare(transformer, transformer_case(records), repeats, documented=False, least=None),
    ]


if __name__ == "__main__":
    script(measure)
