"""Go on with a run that was interrupted, exactly as if it had not been."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedsafe.data import Task
from fedsafe.errors import ConfigError, LedgerError, RecordError
from fedsafe.params import fingerprint
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.records import End, Round, Start
from fedsafe.runs.compose import Parts, compose, follows, program_digest
from fedsafe.runs.config import make_config, parse_config
from fedsafe.runs.keys import key_fingerprint, read_key
from fedsafe.runs.result import Run
from fedsafe.runs.run import Callback, State, execute
from fedsafe.store import RunFolder


def resume(
    path: Path | str,
    *,
    engine: dict[str, Any] | None = None,
    model: nn.Module | None = None,
    data: Task | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Run the rounds that are left. What an unfinished round wrote is dropped, and the round is repeated.

    Repeating it draws the same cohort, batches and noise, so it is the same release and costs nothing again.

    Args:
        path: The run folder.
        engine: Engine options to change; they cannot change a result.
        model: The module, if the run was started with one.
        data: The task, if the run was started with one.
        callbacks: Told what happens.

    Raises:
        LedgerError: The ledger is older than the record, damaged or edited, or the key is another one.
        PlanViolation: The plan or the configuration is not the one that the run began with.
        RecordError: The folder is not a run, is in use, or is damaged.
    """
    torch.set_num_threads(1)
    folder = RunFolder.open(path)
    with ExitStack() as stack:
        stack.enter_context(folder.lock())
        lines = folder.record()
        if not lines or not isinstance(lines[0], Start):
            raise RecordError(f"{path} stopped before anything was released: delete it and run it again")
        if isinstance(lines[-1], End):
            return Run(folder.path)
        start, plan = lines[0], PrivacyPlan.from_numbers(lines[0].plan)
        config = parse_config(folder.config)
        if engine:
            merged = {**config.engine.model_dump(), **engine}
            config = config.model_copy(update={"engine": make_config({"engine": merged}).engine})
        parts = compose(config, model=model, data=data)
        reproducible = config.privacy.noise_key == "seed"
        same = program_digest(parts) == plan.program and follows(config, plan)
        if not same or reproducible != start.reproducible:
            raise ConfigError(
                f"the configuration, model or task is not the one that {path} began with; restore config.toml, "
                "or start a new run"
            )
        key = read_key(folder.private)
        ledger_path = folder.private / "ledger.sqlite"
        ledger = Ledger.open(ledger_path, plan, key_fingerprint=key_fingerprint(key))
        stack.callback(ledger.close)
        rounds = [line for line in lines if isinstance(line, Round)]
        _require_newest(ledger, folder, rounds)
        state = _state(folder, parts, rounds)
        for name in ("findings.jsonl", "requirements.jsonl", "private/timings.jsonl"):
            folder.truncate_after(name, lambda line: line["round"] <= state.round)
        return execute(parts, plan, folder, key, ledger, start, state, callbacks)


def _require_newest(ledger: Ledger, folder: RunFolder, rounds: Sequence[Round]) -> None:
    """Refuse a ledger older than any record line or checkpoint."""
    for line in rounds:
        ledger.require_at_least(line.ledger["sequence"], line.ledger["head"])
    checkpoints = folder.checkpoints()
    if checkpoints:
        _, metadata = folder.read_checkpoint(checkpoints[-1])
        ledger.require_at_least(int(metadata["sequence"]), metadata["head"])


def _state(folder: RunFolder, parts: Parts, rounds: Sequence[Round]) -> State:
    if not rounds:
        return State(round=0, parameters=parts.initial, velocity=np.zeros(parts.layout.total), seconds=0.0)
    last = rounds[-1]
    tensors, _ = folder.read_checkpoint(last.round)
    if fingerprint(tensors["parameters"]) != last.parameters_sha256:
        raise LedgerError(
            f"the checkpoint of round {last.round} is not the one in the record: it was replaced"
        )
    timings = [line for line in folder.read("private/timings.jsonl") if line["round"] <= last.round]
    return State(
        round=last.round,
        parameters=tensors["parameters"],
        velocity=tensors["velocity"],
        seconds=timings[-1]["elapsed"] if timings else 0.0,
    )
