"""What an audit trains, from the parts of a run."""

import copy

import torch

from fedsafe.audit import Setting
from fedsafe.errors import ConfigError
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.client_config import local_training, objective_of
from fedsafe.runs.compose import Parts, aggregator_of, server_optimizer_of


def setting_of(parts: Parts, plan: PrivacyPlan) -> Setting:
    """The setting of an audit: the trainer, rule and optimiser that the run itself uses.

    Args:
        parts: Of the run.
        plan: Its calibrated plan.
    """
    config, train = parts.config, parts.task.train
    if parts.local is not None:
        raise ConfigError("an audit trains clients without parameters of their own: leave client.local out")
    return Setting(
        plan=plan,
        training=local_training(config.client, plan.record, config.rounds),
        aggregator=lambda plan: aggregator_of(parts, plan),
        optimizer=server_optimizer_of(parts),
        module=copy.deepcopy(parts.module),  # the run's own stays its own
        trainer=parts.trainer,
        objective=objective_of(config.client, parts.task),
        x=torch.from_numpy(train.x),
        y=torch.from_numpy(train.y),
        classes=len(parts.task.classes),
        records=parts.records,
        precision=torch.bfloat16 if config.client.precision == "bfloat16" else None,
    )
