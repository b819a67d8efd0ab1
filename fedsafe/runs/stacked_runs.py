"""Many runs in one process, trained as one stack: comparisons and grids, where a run alone is too small to be fast.

Each run keeps its own strategy, ledger, key, aggregator and server optimiser, in a thread of its own, and so its own
code path. Only training is shared: a run that asks for its cohort waits until every other one does too, and then the
clients of all of them train in one call, each from its own run's model, with its own run's numbers. A client's bits
depend on its job alone (``client/trainer.py:Trainer``), so that a run's models are those that it would have alone.

Sums behind masks (``aggregation.secure``) are added up without masks here, which gives the same to the last bit.

Nothing here is a release: ledgers are in a temporary folder, and there is no run folder. Whoever publishes what comes
of several runs on the same records publishes all of them, and their costs compose.
"""

import hashlib
import json
import logging
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsafe.client import ClientJob, LocalTraining, Trainer
from fedsafe.data import Task, load_task
from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.errors import ConfigError
from fedsafe.federation import NoisyAverage, RoundOutcome, make_server_app, server_context
from fedsafe.params import Layout, Vector
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import key_from_seed, new_key
from fedsafe.runs.adaptive import check_adaptive
from fedsafe.runs.adversaries import with_poisoned_records
from fedsafe.runs.availability import presence, with_availability
from fedsafe.runs.client_config import local_training
from fedsafe.runs.compose import Parts, aggregator_of, calibrate, client_runtime, compose, server_optimizer_of
from fedsafe.runs.config import Config

_LOG = logging.getLogger(__name__)
# What composing does not read: runs that differ in nothing else share their data, partition and model.
_NOT_COMPOSED = {"server", "privacy", "assess", "audit", "engine", "sinks", "card"}
# Of a client's settings, those that each row of a stack has for itself.
_OF_ROWS = {"optimizer", "steps", "rate", "batch_size", "proximal"}


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A run before its first round.

    Args:
        parts: Data, partition, model.
        plan: Its calibrated plan.
        key: Secret of its cohorts, batches and noise.
    """

    parts: Parts
    plan: PrivacyPlan
    key: bytes = field(repr=False)

    @property
    def training(self) -> LocalTraining:
        """How its clients train."""
        return local_training(self.parts.config.client, self.plan.record, self.parts.config.rounds)


def prepare_runs(
    configs: Sequence[Config], *, model: nn.Module | None = None, data: Task | None = None
) -> list[PreparedRun]:
    """Compose and calibrate runs; what several of them have in common is made once.

    Args:
        configs: Resolved configurations.
        model: A module to train in place of the configured ones; its weights are the start.
        data: A task in place of the configured ones.

    Returns:
        One for each configuration. The key follows from the seed where ``privacy.noise_key = "seed"``, as in a run of
        its own; otherwise it is new.

    Raises:
        FedSafeError: See `fedsafe.runs.compose.compose`; a configuration is for Flower's nodes.
    """
    if any(config.aggregation.secure for config in configs):
        _LOG.warning(
            "aggregation.secure = true: these runs train as one stack and add up without masks, which gives the same "
            "sums to the last bit"
        )
    tasks: dict[str, Task] = {}
    alike: dict[str, Parts] = {}
    prepared = []
    for config in configs:
        if config.engine.name == "flower":
            raise ConfigError(
                "engine.name = 'flower' trains on nodes, one run at a time: use 'ray' or 'inline'"
            )
        # Who is an adversary decides the records only where these are poisoned.
        poisons = config.byzantine is not None and config.byzantine.poison is not None
        key = _dumped(config.model_dump(exclude=_NOT_COMPOSED | (set() if poisons else {"byzantine"})))
        parts = alike.get(key)
        if parts is None:
            named = _dumped(config.task)
            if data is None and named not in tasks:
                tasks[named] = load_task(config.task)
            parts = alike[key] = compose(config, model=model, data=tasks[named] if data is None else data)
        else:
            check_adaptive(config)
            if not poisons:
                with_poisoned_records(
                    config, parts.federated
                )  # which checks the section, and changes nothing
            parts = replace(parts, config=config)
        secret = key_from_seed(config.seed) if config.privacy.noise_key == "seed" else new_key()
        plan = calibrate(parts)
        aggregator_of(parts, plan)  # refused now rather than in a thread
        prepared.append(PreparedRun(parts=parts, plan=plan, key=secret))
    return prepared


def trainers_of(runs: Sequence[PreparedRun]) -> list[Trainer]:
    """A trainer for each run: the same one for those that share data and architecture."""
    made: dict[str, Trainer] = {}
    keys = [_trainer_key(run) for run in runs]
    for key, run in zip(keys, runs, strict=True):
        if key not in made:
            made[key] = client_runtime(run.parts, run.plan, run.key).trainer
    return [made[key] for key in keys]


def stacked_runs(
    runs: Sequence[PreparedRun], trainers: Sequence[Trainer] | None = None
) -> Generator[tuple[int, RoundOutcome], None, None]:
    """Train runs together, round by round.

    Args:
        runs: Of any tasks, models and plans.
        trainers: As :func:`trainers_of` makes them, which is the default.

    Yields:
        Which run, and what a round of it left behind; rounds of one run in their order.

    Raises:
        ConfigError: Runs are paired whose noise is a secret.
        FedSafeError: A run failed; the others end with it.
    """
    paired = [run for run in runs if run.parts.config.privacy.paired]
    if any(run.key != key_from_seed(run.parts.config.seed) for run in paired):
        raise ConfigError(
            "paired runs share their noise, which would give their updates away: set privacy.noise_key = 'seed' "
            "(--reproducible), so that no guarantee is claimed"
        )
    torch.set_num_threads(1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedsafe-runs-")))
        meeting = _Meeting(len(runs))
        threads = []
        shared = trainers_of(runs) if trainers is None else trainers
        for number, (run, trainer) in enumerate(zip(runs, shared, strict=True)):
            joined = _JoinedTrainer(trainer, run.training, meeting)
            threads.append(
                threading.Thread(target=_in_thread, args=(number, run, joined, meeting, folder), daemon=True)
            )
        stack.callback(_end, threads, meeting)
        for thread in threads:
            thread.start()
        yield from meeting.outcomes()


def _in_thread(
    number: int,
    run: PreparedRun,
    trainer: "_JoinedTrainer",
    meeting: "_Meeting",
    folder: Path,
) -> None:
    try:
        _execute(number, run, trainer, meeting, folder / f"{number}.sqlite")
    except BaseException as error:
        meeting.leave(error)
    else:
        meeting.leave(None)


def _execute(
    number: int,
    run: PreparedRun,
    trainer: "_JoinedTrainer",
    meeting: "_Meeting",
    ledger_path: Path,
) -> None:
    """All rounds of a run, as `fedsafe.runs.run.execute` has them, but for what is written."""
    parts, plan = run.parts, run.plan
    ledger = Ledger.create(ledger_path, plan, key_fingerprint="not a release")
    try:
        runtime = client_runtime(parts, plan, run.key, trainer=trainer)
        grid = InlineGrid(
            clients=plan.clients, apps=ClientApps(one=runtime.answer, batch=runtime.answer_chunk)
        )
        there = present = None
        if parts.availability is not None:
            there = with_availability(grid, parts.config, parts.availability, ledger.events, 0)
            present = presence(parts.config, parts.availability)
        strategy = NoisyAverage(
            plan=plan,
            aggregator=aggregator_of(parts, plan),
            layout=parts.layout,
            optimizer=server_optimizer_of(parts),
            ledger=ledger,
            key=run.key,
            present=present,
            paired=parts.config.privacy.paired,
        )
        app = make_server_app(
            strategy,
            parts.initial,
            first_round=1,
            last_round=plan.rounds,
            on_round=lambda outcome: meeting.tell(number, outcome),
        )
        app(there or grid, server_context())
    finally:
        ledger.close()


class _Stopped(Exception):
    """The runs end before their last round: another one failed, or nobody listens any more."""


@dataclass(kw_only=True)
class _Asked:
    """Training that a run waits for."""

    trainer: Trainer
    parameters: Vector
    jobs: Sequence[ClientJob]
    trained: NDArray[np.float32] | None = None
    error: Exception | None = None


class _Meeting:
    """Where runs wait for each other, and hand over what their rounds left behind.

    Args:
        runs: How many there are.
    """

    def __init__(self, runs: int) -> None:
        self._changed = threading.Condition()
        self._going = runs
        self._asked: list[_Asked] = []
        self._outcomes: deque[tuple[int, RoundOutcome]] = deque()
        self._error: BaseException | None = None
        self._stopped = False

    def train(self, asked: _Asked) -> NDArray[np.float32]:
        """Called by a run: wait until everybody asks, and get what was trained."""
        with self._changed:
            self._asked.append(asked)
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: asked.trained is not None or asked.error is not None or self._stopped
            )
        if asked.error is not None:
            raise asked.error
        if asked.trained is None:
            raise _Stopped
        return asked.trained

    def tell(self, number: int, outcome: RoundOutcome) -> bool:
        """Called by a run after each round."""
        with self._changed:
            self._outcomes.append((number, outcome))
            self._changed.notify_all()
            return not self._stopped

    def leave(self, error: BaseException | None) -> None:
        """Called by a run that ends."""
        with self._changed:
            self._going -= 1
            if error is not None and not isinstance(error, _Stopped) and self._error is None:
                self._error = error
            self._changed.notify_all()

    def stop(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def outcomes(self) -> Iterator[tuple[int, RoundOutcome]]:
        """Train whenever everybody waits, and give what rounds leave behind, until all runs have ended."""
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._outcomes or self._error or len(self._asked) == self._going
                )
                outcomes, self._outcomes = self._outcomes, deque()
                asked: list[_Asked] = []
                if self._error is None and len(self._asked) == self._going:
                    asked, self._asked = self._asked, []
                error = self._error
            if error is not None:
                raise error
            if asked:
                _train_together(asked)
                with self._changed:
                    self._changed.notify_all()
            yield from outcomes
            with self._changed:
                if not self._going and not self._outcomes and self._error is None:
                    return


class _JoinedTrainer:
    """The trainer that a run sees: it trains when all runs do.

    Args:
        trainer: What trains.
        training: How this run's clients train.
        meeting: Where the runs wait.
    """

    def __init__(self, trainer: Trainer, training: LocalTraining, meeting: _Meeting) -> None:
        self.name = trainer.name
        self.layout: Layout = trainer.layout
        self._trainer, self._training, self._meeting = trainer, training, meeting

    def train(self, parameters: Vector, jobs: Sequence[ClientJob]) -> NDArray[np.float32]:
        """``(len(jobs), parameters)``: each client's parameters after its local steps."""
        own = [
            replace(
                job,
                training=job.training or self._training,
                start=parameters if job.start is None else job.start,
            )
            for job in jobs
        ]
        return self._meeting.train(_Asked(trainer=self._trainer, parameters=parameters, jobs=own))


def _train_together(asked: Sequence[_Asked]) -> None:
    """Train what was asked of each trainer in one call; where that fails, each run's alone: one is at fault."""
    groups: dict[int, list[_Asked]] = {}
    for one in asked:
        groups.setdefault(id(one.trainer), []).append(one)
    for group in groups.values():
        try:
            jobs = [job for one in group for job in one.jobs]
            trained = group[0].trainer.train(group[0].parameters, jobs)
        except Exception:
            for one in group:
                try:
                    one.trained = one.trainer.train(one.parameters, one.jobs)
                except Exception as error:
                    one.error = error
            continue
        ends = np.cumsum([len(one.jobs) for one in group])
        for one, rows in zip(group, np.split(trained, ends[:-1]), strict=True):
            one.trained = rows


def _end(threads: Sequence[threading.Thread], meeting: _Meeting) -> None:
    meeting.stop()
    for thread in threads:
        if thread.ident is not None:
            thread.join()


def _trainer_key(run: PreparedRun) -> str:
    """What a trainer depends on besides what each job says: records, architecture, what is fixed in it, objective."""
    parts, config = run.parts, run.parts.config
    trainable = {name for name, parameter in parts.module.named_parameters() if parameter.requires_grad}
    fixed = hashlib.sha256()
    for name, tensor in sorted(parts.module.state_dict().items()):
        if name not in trainable:
            fixed.update(f"{name}{tuple(tensor.shape)}".encode() + tensor.cpu().numpy().tobytes())
    described = [
        id(parts.task.train.x),
        id(parts.task.train.y),
        parts.task.kind,
        repr(parts.module),
        parts.trainer,
        fixed.hexdigest(),
        config.client.model_dump(exclude=_OF_ROWS),
        run.plan.record.local_steps,  # they may follow from those of a row
        config.engine.device,
        config.engine.stack,
    ]
    return _dumped(described)


def _dumped(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
