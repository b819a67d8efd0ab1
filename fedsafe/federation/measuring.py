"""Losses and scores of a broadcast model on a client's records, for the rules and evaluations that ask for them."""

import copy
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsafe.client import Objective
from fedsafe.client.evaluation import per_record
from fedsafe.data import Kind
from fedsafe.federation.client_app import Measured
from fedsafe.params import Vector


@final
@dataclass(frozen=True)
class ModuleMeasure:
    """Judges parameters with a copy of a module, which it keeps for itself.

    Args:
        module: The model, with parameters in the order of the layout.
        objective: Gives one loss per record.
        kind: Of the task.
        x: ``(records, ...)`` inputs of all clients.
        y: ``(records, ...)`` their targets.
    """

    module: nn.Module
    objective: Objective
    kind: Kind
    x: torch.Tensor
    y: torch.Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "module", copy.deepcopy(self.module))

    def at(self, parameters: Vector) -> Measured:
        """What gives losses and scores ``(rows,)`` of rows at these parameters, until it is asked for others."""
        trainable = [p for p in self.module.parameters() if p.requires_grad]
        nn.utils.vector_to_parameters(torch.from_numpy(parameters.copy()), trainable)

        def measured(rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            return per_record(self.module, self.objective, self.kind, self.x, self.y, rows)

        return measured
