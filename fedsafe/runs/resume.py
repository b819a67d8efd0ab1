"""Go on with a run that was interrupted, exactly as if it had not been."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from fedsafe.data import Task
from fedsafe.errors import ConfigError, LedgerError, RecordError
from fedsafe.extensions import search
from fedsafe.params import Vector, fingerprint
from fedsafe.privacy.chain import Head
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.records import End, Round, Start
from fedsafe.runs.callbacks import Callback, require_callbacks
from fedsafe.runs.compose import Parts, aggregator_of, compose, program_digest
from fedsafe.runs.config import Config, make_config, parse_config
from fedsafe.runs.given import GIVEN_IN_PYTHON, IMPORT_FOLDERS
from fedsafe.runs.keys import data_fingerprint, key_fingerprint, read_key
from fedsafe.runs.period import ASSESSMENTS
from fedsafe.runs.result import Run
from fedsafe.runs.run import Connect, State, execute, first_state
from fedsafe.runs.sinks import SinkCallback, make_sinks
from fedsafe.runs.start import package_versions
from fedsafe.store import RunFolder

RESUMED = "resumed.jsonl"
"""In a run folder: each time that a run on nodes went on, from which round, and whether its messages had left."""


def resume(
    path: Path | str,
    *,
    engine: dict[str, Any] | None = None,
    model: nn.Module | None = None,
    data: Task | None = None,
    callbacks: Sequence[Callback] = (),
    connect: Connect | None = None,
) -> Run:
    """Run the rounds that are left.

    A round that was interrupted before its model was written is repeated: it draws the same cohort, batches and
    noise, so it is the same release and costs nothing again. One whose model was written is only recorded.

    Args:
        path: The run folder.
        engine: Engine options to change; they cannot change a result. The device would, and stays.
        model: The module, if the run was started with one.
        data: The task, if the run was started with one.
        callbacks: Told what happens.
        connect: Gives the grid of a run on nodes that remember what they released, and refuses others.

    Raises:
        LedgerError: The ledger is older than the record, damaged or edited, or the key is another one.
        PlanViolation: The plan or the configuration is not the one that the run began with.
        RecordError: The folder is not a run, is in use, or is damaged.
    """
    torch.set_num_threads(1)
    callbacks = require_callbacks(callbacks)
    folder = RunFolder.open(path)
    with ExitStack() as stack:
        stack.enter_context(folder.lock())
        lines = folder.record()
        if not lines or not isinstance(lines[0], Start):
            raise RecordError(f"{path} stopped before anything was released: delete it and run it again")
        if isinstance(lines[-1], End):
            return Run(folder.path)
        for line in folder.read(IMPORT_FOLDERS):
            search(line.get("folders", ()))
        start, plan = lines[0], PrivacyPlan.from_numbers(lines[0].plan)
        config = parse_config(folder.config)
        on_nodes = "flower" in (config.engine.name, start.machine.get("engine"))
        if on_nodes and connect is None:
            raise ConfigError(
                f"{path} ran on Flower's own runtime, whose nodes forget their noise keys when it ends: a round that "
                "was under way would be released again under other noise; start a new run, or, where every client is "
                "behind a gate, `fedsafe deploy start --resume`"
            )
        if engine and engine.get("device", config.engine.device) != config.engine.device:
            raise ConfigError(
                f"the run began on engine.device = {config.engine.device!r}: on another device a repeated round would "
                "meet its noise with other bits; leave the device as it is, or start a new run"
            )
        if engine:
            merged = {**config.engine.model_dump(), **engine}
            config = config.model_copy(update={"engine": make_config({"engine": merged}).engine})
        _require_objects(config, folder, model, data)
        parts = compose(config, model=model, data=data)
        if config.digest != start.settings_sha256 or program_digest(parts) != plan.program:
            raise ConfigError(
                f"the configuration, model or task is not the one that {path} began with; restore config.toml, "
                "or start a new run"
            )
        _require_versions(start)
        key = read_key(folder.private)
        ledger = Ledger.open(
            folder.private / "ledger.sqlite",
            plan,
            key_fingerprint=key_fingerprint(key),
            data_fingerprint=data_fingerprint(key, parts.arrays()),
        )
        stack.callback(ledger.close)
        rounds = [line for line in lines if isinstance(line, Round)]
        state = _state(folder, parts, rounds, ledger, remembers=aggregator_of(parts, plan).remembers)
        recorded = len(rounds)
        for name, last in (
            ("findings.jsonl", recorded),
            ("requirements.jsonl", recorded),
            (ASSESSMENTS, recorded),
            ("private/timings.jsonl", state.round),
        ):
            folder.truncate_after(name, lambda line, last=last: line["round"] <= last)  # type: ignore[misc]
        callbacks = [*callbacks, SinkCallback(*make_sinks(config.sinks, folder.path))]
        grid = connect(parts)(plan) if on_nodes and connect is not None else None
        if grid is not None:
            folder.append(RESUMED, _resumption(state, ledger))
        return execute(parts, plan, folder, key, ledger, start, state, callbacks, grid=grid)


def _resumption(state: State, ledger: Ledger) -> dict[str, Any]:
    """What a resumed run on nodes says of itself: nodes that had answered the round under way send the same bytes."""
    last = ledger.trained[-1].round if ledger.trained else 0
    return {"round": state.round + 1, "under_way": last > state.round}


def _require_objects(config: Config, folder: RunFolder, model: nn.Module | None, data: Task | None) -> None:
    """A model or task that was given as an object cannot be made from the configuration again."""
    for option, given in (("model", model), ("data", data)):
        setting = config.model if option == "model" else config.task
        if given is None and setting == GIVEN_IN_PYTHON:
            raise ConfigError(
                f"{folder.path} was started from Python with {option}=...: go on with "
                f"fedsafe.resume({str(folder.path)!r}, {option}=...)"
            )


def _require_versions(start: Start) -> None:
    """Refuse other versions of what computes a release: a repeated round would meet its noise with other bits."""
    here = package_versions()
    changed = [name for name in ("fedsafe", "torch", "numpy") if start.versions.get(name) != here[name]]
    if changed:
        was = ", ".join(f"{name} {start.versions.get(name)} (now {here[name]})" for name in changed)
        raise ConfigError(f"the run began with {was}: install these versions to go on with it")


def _state(
    folder: RunFolder, parts: Parts, rounds: Sequence[Round], ledger: Ledger, *, remembers: bool
) -> State:
    """Where to go on: the newest checkpoint, which may be one ahead of the record.

    A round whose model was written is not repeated, even if its record line is missing: a client that failed the
    first time and not the second would leave two models that differ by its update alone.

    Raises:
        LedgerError: The ledger is older than a record line or the checkpoint, or the checkpoint was replaced.
    """
    for line in rounds:
        ledger.require_at_least(line.ledger["sequence"], line.ledger["head"])
    written = folder.checkpoints()
    newest = written[-1] if written else 0
    if newest not in (len(rounds), len(rounds) + 1):
        raise RecordError(
            f"{folder.path} has {len(rounds)} record lines, and its newest checkpoint is of round {newest}: a file "
            "is missing; restore it"
        )
    if not newest:
        return first_state(parts)
    tensors, metadata = folder.read_checkpoint(newest)
    head = Head(sequence=int(metadata["sequence"]), hash=metadata["head"])
    ledger.require_at_least(head.sequence, head.hash)
    ahead = newest > len(rounds)
    if not ahead and fingerprint(tensors["parameters"]) != rounds[-1].parameters_sha256:
        raise LedgerError(f"the checkpoint of round {newest} is not the one in the record: it was replaced")
    timings = [line for line in folder.read("private/timings.jsonl") if line["round"] <= newest]
    return State(
        round=newest,
        parameters=tensors["parameters"],
        optimizer_state={name: array for name, array in tensors.items() if name != "parameters"},
        aggregator_state=_aggregator_state(folder, newest, tensors["parameters"]) if remembers else None,
        seconds=timings[-1]["elapsed"] if timings else 0.0,
        unrecorded=head if ahead else None,
        evaluation=float(metadata["evaluation"]) if "evaluation" in metadata else None,
    )


def _aggregator_state(folder: RunFolder, round: int, parameters: Vector) -> Mapping[str, NDArray[Any]]:
    """What the aggregator remembered after a round.

    Raises:
        RecordError: It is missing or damaged, or belongs to another model.
    """
    tensors, metadata = folder.read_aggregator_state(round)
    if metadata.get("parameters") != fingerprint(parameters):
        raise RecordError(
            f"the aggregator's state in {folder.private} does not belong to the checkpoint of round {round}: restore "
            "the folder from a backup"
        )
    return tensors
