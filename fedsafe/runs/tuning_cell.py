"""What a search keeps of each of its trials: the score on the records that are kept apart, and what was released."""

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from fedsafe.data import Task
from fedsafe.params import Vector, fingerprint
from fedsafe.records import headline_metric, to_plain
from fedsafe.runs.cells import CellStore, Result
from fedsafe.runs.client_config import objective_of
from fedsafe.runs.comparison_cell import released, without_noise
from fedsafe.runs.config import Config
from fedsafe.runs.metrics import RoundMetrics
from fedsafe.runs.stacked_runs import PreparedRun, prepare_runs, stacked_runs


def tuning_cells(
    configs: Sequence[Config], *, model: nn.Module | None = None, data: Task | None = None
) -> Iterator[tuple[int, Result]]:
    """Train trials in one stack, and score the last model of each; see `fedsafe.runs.cells.Work`.

    Args:
        configs: Of the trials, each judged on the records that are for tuning.
        model: A module to train in place of the configured one.
        data: A task in place of the configured one.

    Yields:
        Which trial, and what is kept of it, as plain values.
    """
    began = time.process_time()
    prepared = prepare_runs(configs, model=model, data=data)
    runs = [replace(run, plan=without_noise(run.plan)) for run in prepared]
    last: dict[int, Vector] = {}
    for number, outcome in stacked_runs(runs):
        last[number] = outcome.parameters
    seconds = (time.process_time() - began) / len(runs)
    metrics: dict[int, RoundMetrics] = {}
    for number, run in enumerate(runs):
        parts = run.parts
        # The module of runs that are composed together is the same, and what is fixed in it is applied once.
        shared = metrics.setdefault(
            id(parts.module),
            RoundMetrics(parts.module, parts.task, objective_of(parts.config.client, parts.task)),
        )
        yield number, _kept(run, last.pop(number), shared, seconds)


def _kept(run: PreparedRun, parameters: Vector, metrics: RoundMetrics, seconds: float) -> Result:
    task = run.parts.task
    figures = metrics(parameters)
    score = figures[headline_metric(task.kind)]
    found: Result = to_plain(
        {
            "metric": headline_metric(task.kind),
            "score": score if math.isfinite(score) else None,
            "metrics": {key: value for key, value in figures.items() if math.isfinite(value)},
            "parameters_sha256": fingerprint(parameters),
            "releases": released(run.plan),
            "noise": {"record": run.plan.record.noise, "client": run.plan.client.noise},
            "scored_on": task.evaluation_name,
            "scored_records": len(task.evaluation.y),
            "seconds": seconds,
        }
    )
    return found


class TrialStore(CellStore):
    """Results of trials: two trials of one search are two runs, even where they got the same settings.

    Args:
        folder: One that only its owner reads.
        work: Names what computes the results.
        labels: For each trial's configuration, by its identity, which trial of which search it is.
    """

    def __init__(self, folder: Path, *, work: str, labels: Mapping[int, str]) -> None:
        super().__init__(folder, work=work)
        self._labels = dict(labels)

    def key(self, config: Config) -> str:
        """What decides a trial's result, as a digest."""
        return hashlib.sha256(f"{super().key(config)} {self._labels[id(config)]}".encode()).hexdigest()

    def __getstate__(self) -> dict[str, object]:
        """For a worker, which is told the keys."""
        return {**self.__dict__, "_labels": {}}
