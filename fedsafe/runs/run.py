"""A run: from a configuration to a folder that can be defended, in one go or in several."""

import gc
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from fedsafe.aggregation import OptimizerState
from fedsafe.data import Task
from fedsafe.engine import Grid, InlineGrid, LocalGrid, require_device
from fedsafe.errors import ConfigError
from fedsafe.extensions import searched
from fedsafe.federation import (
    NoisyAverage,
    RoundOutcome,
    make_server_app,
    score_deviation,
    server_context,
    server_noise,
)
from fedsafe.params import Vector
from fedsafe.privacy.chain import Head
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.records import End, Start
from fedsafe.runs.acceptance import Acceptance, recorded_failure
from fedsafe.runs.audit import RunAudit, check_audit, recorded_stop
from fedsafe.runs.availability import presence, with_availability
from fedsafe.runs.callbacks import Callback, require_callbacks
from fedsafe.runs.commit import Commit
from fedsafe.runs.compose import (
    Parts,
    aggregator_of,
    client_apps,
    client_cost,
    compose,
    server_optimizer_of,
)
from fedsafe.runs.config import Config, EngineConfig, make_config, read_config
from fedsafe.runs.given import GIVEN_IN_PYTHON, IMPORT_FOLDERS
from fedsafe.runs.judge import Judge, read_assessment
from fedsafe.runs.keys import create_key, data_fingerprint, key_fingerprint
from fedsafe.runs.period import Period
from fedsafe.runs.planning import plan_and_claims
from fedsafe.runs.result import Run
from fedsafe.runs.secure import rounds_on_nodes, simulated_rounds
from fedsafe.runs.sinks import SinkCallback, make_sinks
from fedsafe.runs.start import describe_start
from fedsafe.store import RunFolder, checkpoint_name

# Asks the nodes of another runtime to take part while the plan is calibrated, then waits for what they say to it.
Connect = Callable[[Parts], Callable[[PrivacyPlan], Grid]]


def run(
    config: Config | Mapping[str, Any] | Path | str | None = None,
    *,
    model: nn.Module | None = None,
    data: Task | None = None,
    out: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
    connect: Connect | None = None,
) -> Run:
    """Train, assess and record a federation.

    Args:
        config: A :class:`Config`, plain values, or a TOML file; the default experiment if left out.
        model: A module to train in place of ``config.model``; it keeps its weights as the start.
        data: A task to train on in place of ``config.task``.
        out: The run folder; by default a new one under ``runs/``.
        callbacks: Told what happens.
        connect: Gives a grid of another runtime, in place of one of ours; ``engine.name`` must be ``"flower"``.

    Returns:
        The run, complete.

    Raises:
        FedSafeError: Something cannot be used as it is. Nothing half-written is left.
    """
    # A result must not depend on how many threads a machine has.
    torch.set_num_threads(1)
    began = time.perf_counter()
    callbacks = require_callbacks(callbacks)
    resolved = _resolve(config)
    if resolved.engine.name == "flower" and connect is None:
        raise ConfigError(
            "engine.name = 'flower' is for runs that `flwr run .` starts: use 'ray' or 'inline' here"
        )
    if model is not None:
        resolved = resolved.model_copy(update={"model": GIVEN_IN_PYTHON})
    if data is not None:
        resolved = resolved.model_copy(update={"task": GIVEN_IN_PYTHON})
    path = Path(out) if out is not None else _new_path(resolved, data)
    _require_free(path)
    parts = compose(resolved, model=model, data=data)
    check_audit(parts)
    read_assessment(resolved.assess)  # a wrong assessor or requirement is reported before anything slow
    callbacks = [*callbacks, SinkCallback(*make_sinks(resolved.sinks, path))]
    seed = resolved.seed if resolved.privacy.noise_key == "seed" else None
    planning = _Background(lambda: plan_and_claims(parts, key_from_seed=seed is not None))
    with ExitStack() as stack:
        device = _start_engine(resolved.engine, stack)
        joined = connect(parts) if connect is not None else None
        planned = planning.result()
        plan = planned.plan
        grid = joined(plan) if joined is not None else None
        start = describe_start(path.name, parts, planned, Judge(parts, planned.claims, plan).planned())
        # From here to the start line nothing is slow: a run that is killed in between cannot be resumed.
        # A round that is repeated on another device would meet its noise with other bits: "auto" is settled now.
        engine = resolved.engine.model_copy(update={"device": device})
        folder = RunFolder.create(path, resolved.model_copy(update={"engine": engine}).to_toml())
        stack.enter_context(folder.lock())
        key = create_key(folder.private, seed=seed)
        # Import paths of the configuration must lead to the same modules when the run is resumed elsewhere.
        folder.append(IMPORT_FOLDERS, {"folders": searched()})
        ledger = Ledger.create(
            folder.private / "ledger.sqlite",
            plan,
            key_fingerprint=key_fingerprint(key),
            data_fingerprint=data_fingerprint(key, parts.arrays()),
        )
        stack.callback(ledger.close)
        folder.append_record(start)
        state = replace(first_state(parts), seconds=time.perf_counter() - began)
        return execute(parts, plan, folder, key, ledger, start, state, callbacks, grid=grid)


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run stands.

    Args:
        round: The last round whose model is on the disk.
        parameters: The global model after it.
        optimizer_state: The server optimiser's state.
        aggregator_state: What an aggregator that remembers knew after it; None before the first round.
        seconds: Wall time so far.
        unrecorded: Where the run stopped between that round's checkpoint and its record line: the ledger's head
            after the round, which must be recorded before the next one begins.
        evaluation: The clients' mean score of that round's model, if they evaluated it.
    """

    round: int
    parameters: Vector
    optimizer_state: OptimizerState
    aggregator_state: Mapping[str, NDArray[Any]] | None = None
    seconds: float
    unrecorded: Head | None = None
    evaluation: float | None = None


def first_state(parts: Parts) -> State:
    """Before the first round."""
    optimizer_state = server_optimizer_of(parts).initial(parts.layout.total)
    return State(round=0, parameters=parts.initial, optimizer_state=optimizer_state, seconds=0.0)


def execute(
    parts: Parts,
    plan: PrivacyPlan,
    folder: RunFolder,
    key: bytes,
    ledger: Ledger,
    start: Start,
    state: State,
    callbacks: Sequence[Callback],
    *,
    grid: Grid | None = None,
) -> Run:
    """Run the rounds that are left on the grid given, or on one of ours, and close the record."""
    began = time.perf_counter()
    curve = _Background(plan.spending)
    judge, paired = Judge(parts, start.claims, plan), parts.config.privacy.paired
    with ExitStack() as stack:
        # Told first: whoever interrupts while workers start should hear how to resume.
        for callback in callbacks:
            callback.on_start(folder.path, start, state.round + 1)
        on_nodes = grid is not None
        grid = _grid(parts, plan, key, stack) if grid is None else grid
        there = None
        if parts.availability is not None:
            there = with_availability(grid, parts.config, parts.availability, ledger.events, state.round)
        spend = curve.result()
        aggregator = aggregator_of(parts, plan)
        if state.aggregator_state is not None:
            aggregator.restore(state.aggregator_state)
            aggregator.recall(parts.layout.total, server_noise(key, ledger, paired=paired))
        secure, rounds = parts.config.aggregation, None
        if secure.secure and on_nodes:
            rounds = rounds_on_nodes(secure, aggregator, grid, parts.layout.total)
        elif secure.secure:
            rounds = simulated_rounds(secure, aggregator, plan, key, parts.layout.total)
        present = presence(parts.config, parts.availability) if parts.availability is not None else None
        strategy = NoisyAverage(
            plan=plan,
            aggregator=aggregator,
            layout=parts.layout,
            optimizer=server_optimizer_of(parts),
            ledger=ledger,
            key=key,
            optimizer_state=state.optimizer_state,
            present=present,
            paired=paired,
            sizes=parts.records.sizes.tolist() if on_nodes else None,
            secure=rounds,
        )
        sizes = parts.federated.validation.sizes.tolist()
        audit = None
        if parts.config.audit is not None:
            audit = RunAudit(parts.config.audit, parts, plan, key)
            stack.callback(audit.close)
        acceptance = Acceptance(parts.config.assess, folder)
        commit = Commit(
            folder=folder,
            judge=judge,
            acceptance=acceptance,
            period=Period(parts.config, plan.rounds, folder),
            clock=lambda: state.seconds + time.perf_counter() - began,
            spend=spend,
            callbacks=callbacks,
            score_deviation=_score_deviation(plan, sizes, present),
            audit=audit,
            figures=aggregator.figures,
        )
        # A run that was interrupted after its last round, which an alarm or a requirement made the last, has nothing
        # left to do.
        done = state.round
        stopped = recorded_stop(parts.config.audit, folder.read("findings.jsonl")) or recorded_failure(
            parts.config.assess, folder.read("requirements.jsonl")
        )
        if state.unrecorded is not None:
            stopped = commit.record(
                state.round,
                state.parameters,
                state.unrecorded,
                state.evaluation,
                strategy.spent_before(state.round + 1) if state.round < plan.rounds else None,
            )

        def on_round(outcome: RoundOutcome) -> bool:
            nonlocal done, stopped
            commit.save(outcome, commit.clock(), there)
            stopped = commit.record(
                outcome.round, outcome.parameters, outcome.head, outcome.evaluation, outcome.stopped
            )
            done = outcome.round
            return stopped is None

        # What is loaded stays: the garbage collector need not walk through it in the middle of a round.
        gc.freeze()
        stack.callback(gc.unfreeze)
        app = make_server_app(
            strategy,
            state.parameters,
            first_round=state.round + 1,
            last_round=plan.rounds if stopped is None else done,
            on_round=on_round,
        )
        app(there or grid, server_context())
    stopped = stopped or strategy.stopped or _spent(plan, parts.config)
    end = End(
        rounds=done,
        seconds=state.seconds + time.perf_counter() - began,
        status="completed" if stopped is None else "stopped",
        reason=stopped,
        accuracy=Run(folder.path).accuracy,
        accepted=acceptance.round,
        checkpoint=None if acceptance.round is None else checkpoint_name(acceptance.round),
    )
    folder.append_record(end)
    for callback in callbacks:
        callback.on_end(end)
    return Run(folder.path)


def _spent(plan: PrivacyPlan, config: Config) -> str | None:
    """Why a plan is shorter than the configuration: its noise is given, and its budget lasts so long."""
    if plan.rounds == config.rounds:
        return None
    return (
        f"the budget of privacy.client is spent after {plan.rounds} of {config.rounds} rounds: one more would cost "
        f"more than epsilon {plan.client.epsilon:g}"
    )


def _score_deviation(
    plan: PrivacyPlan, sizes: Sequence[int], present: Callable[[int], float] | None
) -> float | None:
    """The largest of any evaluation that is planned."""
    if plan.evaluation is None:
        return None
    due = [number for number in range(1, plan.rounds + 1) if plan.evaluation.due(number)]
    least = min((present(number) for number in due), default=1.0) if present is not None else 1.0
    return score_deviation(plan.evaluation, sizes, least)


def _grid(parts: Parts, plan: PrivacyPlan, key: bytes, stack: ExitStack) -> LocalGrid:
    engine = parts.config.engine
    make_apps = client_apps(parts, plan, key)
    if engine.name == "inline":
        return InlineGrid(clients=plan.clients, apps=make_apps(), chunk=engine.chunk)
    # Ray costs a second to import, and an inline run does not need it.
    from fedsafe.engine.cluster import resources_for
    from fedsafe.engine.ray_grid import RayGrid

    sizes = parts.records.sizes
    grid = RayGrid(
        clients=plan.clients,
        make_apps=make_apps,
        workers=engine.workers,
        chunk=engine.chunk,
        cost=lambda node: client_cost(parts, int(sizes[node - 2])),
        address=engine.address,
        resources=resources_for(engine.device, engine.gpus, engine.workers),
    )
    stack.callback(grid.close)
    grid.wait_until_ready()
    return grid


def _start_engine(engine: EngineConfig, stack: ExitStack) -> str:
    """Start or join Ray where it is asked for, and see that the device is there before a folder exists.

    Returns:
        Where clients train; for nodes of Flower's runtimes, which decide for themselves, what is configured.
    """
    if engine.name == "flower":
        return engine.device
    if engine.name == "inline":
        return require_device(engine.device)
    from fedsafe.engine.cluster import resources_for, start_ray, stop_ray

    if start_ray(engine.workers, engine.address):
        stack.callback(stop_ray)
    return resources_for(engine.device, engine.gpus, engine.workers).device


def _resolve(config: Config | Mapping[str, Any] | Path | str | None) -> Config:
    if isinstance(config, Config):
        return config
    return make_config(config) if isinstance(config, Mapping) else read_config(config)


def _new_path(config: Config, data: Task | None) -> Path:
    named = config.task if isinstance(config.task, str) else str(config.task.get("name", "run"))
    name = data.name if data is not None else named.replace(":", "-").replace("/", "-")
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{name}-{moment}-{secrets.token_hex(2)}"


def _require_free(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"output folder in use: {path}; choose another --out, or --resume it")


class _Background:
    """Work that goes on while Ray starts. A daemon: an interrupted run does not wait for it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._do, args=(work,), daemon=True)
        self._thread.start()

    def _do(self, work: Callable[[], Any]) -> None:
        try:
            self._value = work()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value
