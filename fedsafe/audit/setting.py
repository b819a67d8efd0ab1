"""What an audit trains: the parts of a run, as they are executed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsafe.aggregation import Aggregator, ServerOptimizer
from fedsafe.client import LocalTraining, Objective, Trainer, precompute
from fedsafe.client.batches import Batch
from fedsafe.client.functional_trainer import FunctionalTrainer
from fedsafe.client.stacked import StackedTrainer
from fedsafe.privacy.plan import PrivacyPlan


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The parts of the run that is audited.

    What is claimed, ``plan``, and what is executed, ``training`` and ``aggregator``, are told apart on purpose: an
    audit is for what happens where they differ.

    Args:
        plan: What is claimed.
        training: How clients train.
        aggregator: The rule for a plan: canary clients change the population, and nothing else of the plan.
        optimizer: The server's.
        module: The model, with its initial weights.
        trainer: ``"stacked"``, ``"vmap"`` or ``"opacus"``.
        objective: Gives one loss per example of ``(x, y)``.
        x: ``(records, ...)`` inputs of all clients.
        y: ``(records, ...)`` targets.
        classes: Classes or tokens of the targets; 0 for numbers.
        records: Rows of each client.
        device: Where clients train.
        precision: Of the stacked trainer's passes, if not the parameters'.
    """

    plan: PrivacyPlan
    training: LocalTraining
    aggregator: Callable[[PrivacyPlan], Aggregator]
    optimizer: ServerOptimizer
    module: nn.Module
    trainer: str
    objective: Objective
    x: Tensor
    y: Tensor
    classes: int
    records: Sequence[NDArray[np.int64]]
    device: str = "cpu"
    precision: torch.dtype | None = None

    def with_features(self) -> tuple[nn.Module, Tensor]:
        """The module and the inputs that are trained on: past the fixed part of a model that has one.

        The whole model, where the objective perturbs its inputs.
        """
        return precompute(self.module, self.x, self.objective)


def build_audited_trainer(setting: Setting, module: nn.Module, objective: Objective, data: Batch) -> Trainer:
    """The setting's own trainer, for a module and data with canaries in them.

    Args:
        setting: Says which trainer, and how it trains.
        module: The model with canaries.
        objective: Gives one loss per example of ``data``.
        data: The records with canaries, a tree of tensors.
    """
    if setting.trainer == "stacked":
        return StackedTrainer(
            module, objective, data, setting.training, device=setting.device, precision=setting.precision
        )
    if setting.trainer == "vmap":
        return FunctionalTrainer(module, objective, data, setting.training, device=setting.device)
    # Opacus costs a second to import, and few models need it.
    from fedsafe.client.opacus_trainer import OpacusTrainer

    return OpacusTrainer(module, objective, data, setting.training, device=setting.device)
