"""What a grid keeps of each of its runs: figures of the final model, and how long noise is beside updates.

The latter is measured once, in runs without attack.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsafe.client import Trainer
from fedsafe.client.poisoning import Backdoor, backdoor_successes, build_poison
from fedsafe.params import Vector
from fedsafe.privacy.accounting import FixedSizeGaussian, Release, SampledGaussian
from fedsafe.records import headline_metric
from fedsafe.runs.adversaries import adversaries_of
from fedsafe.runs.byzantine_noise import honest_updates
from fedsafe.runs.cells import Result
from fedsafe.runs.client_config import objective_of
from fedsafe.runs.config import Config
from fedsafe.runs.metrics import RoundMetrics
from fedsafe.runs.stacked_runs import PreparedRun, prepare_runs, stacked_runs, trainers_of

_RELEASES: dict[str, type[SampledGaussian] | type[FixedSizeGaussian]] = {
    "sampled": SampledGaussian,
    "fixed_size": FixedSizeGaussian,
}
_ROWS = 1024


def byzantine_cells(configs: Sequence[Config]) -> Iterator[tuple[int, Result]]:
    """Train cells in one stack; see `fedsafe.runs.cells.Work`.

    Args:
        configs: Of the cells.

    Yields:
        Which cell, and what is kept of it, as plain values.
    """
    runs = prepare_runs(configs)
    trainers = trainers_of(runs)
    last: dict[int, Vector] = {}
    for number, outcome in stacked_runs(runs, trainers):
        last[number] = outcome.parameters
    for number, (run, trainer) in enumerate(zip(runs, trainers, strict=True)):
        yield number, _kept(run, trainer, last[number])


def _kept(run: PreparedRun, trainer: Trainer, parameters: Vector) -> Result:
    parts, level = run.parts, run.plan.record
    config, task = parts.config, parts.task
    metrics = RoundMetrics(parts.module, task, objective_of(config.client, task))(parameters)
    metric = headline_metric(task.kind)
    section = config.byzantine
    found: Result = {
        "metric": metric,
        "value": metrics[metric],
        "loss": metrics["loss"],
        # Where a record has one prediction, the share has an interval of its own.
        "n": int(task.evaluation.y.size) if metric == "accuracy" and task.evaluation.y.ndim == 1 else None,
        "finite": bool(np.isfinite(parameters).all()),
        "rounds": run.plan.rounds,
        "clients": len(parts.records),
        "adversaries": len(adversaries_of(config, len(parts.records))),
        "parameters": parts.layout.total,
        "release": plain_release(level.mechanism()) if level.private else None,
        "delta": level.delta,
        # Records of one person, for all of whom the claim is.
        "group": level.group,
        "noise_multiplier": level.noise,
    }
    if section is None:
        found["honest"] = asdict(honest_updates(run, trainer))
    elif section.poison is not None:
        poison = build_poison(section.poison, task)
        if isinstance(poison, Backdoor):
            found["backdoor"] = backdoor_successes(
                lambda x: _predicted(parts.module, parameters, x, task.kind), task.evaluation, poison
            )
    return found


def plain_release(mechanism: Release) -> dict[str, Any]:
    """A release as plain values, for `read_release`."""
    kind = "sampled" if isinstance(mechanism, SampledGaussian) else "fixed_size"
    return {"kind": kind, **asdict(mechanism)}


def read_release(values: dict[str, Any]) -> Release:
    """The release that a cell kept."""
    options = {key: value for key, value in values.items() if key != "kind"}
    return _RELEASES[values["kind"]](**options)


@torch.no_grad()
def _predicted(module: nn.Module, parameters: Vector, x: NDArray[Any], kind: str) -> NDArray[np.int64]:
    """Classes of inputs."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    before = nn.utils.parameters_to_vector(trainable).clone()
    nn.utils.vector_to_parameters(torch.from_numpy(parameters.copy()), trainable)
    try:
        module.eval()
        outputs = torch.cat([module(part) for part in torch.from_numpy(x).split(_ROWS)])  # type: ignore[no-untyped-call]
    finally:
        nn.utils.vector_to_parameters(before, trainable)
    found: NDArray[np.int64] = (
        (outputs[:, 0] > 0).long() if kind == "binary" else outputs.argmax(-1)
    ).numpy()
    return found
