"""A guard from a run folder: the accepted model, and a monitor fitted on public records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fedsafe.assess.requirements import Requirement
from fedsafe.data import Examples, Task
from fedsafe.errors import ConfigError, RecordError
from fedsafe.records import Round
from fedsafe.rng import public_generator
from fedsafe.runs.assessing import open_subject
from fedsafe.serve.alerts import Alerts, AlertSink, FileSink, Severity
from fedsafe.serve.decision import Policy
from fedsafe.serve.decision_log import DecisionLog, Sync, audit_key
from fedsafe.serve.figures import GuardFigures
from fedsafe.serve.monitor import Monitor
from fedsafe.serve.pipeline import Guard, Release
from fedsafe.serve.queries import QueryPatterns
from fedsafe.serve.text_privacy import TextPrivacy
from fedsafe.serve.webhook import WebhookSink, checked
from fedsafe.store import RunFolder

REFERENCE_SHARE = 0.7
"""Of the public evaluation records that a monitor is fitted on; the rest measures it."""

_MOST = 20_000


def open_guard(
    path: Path | str,
    *,
    round: int | None = None,
    allow_failed: bool = False,
    reference: Examples | None = None,
    level: float = 0.05,
    policy: Policy | None = None,
    log: Path | str | None = None,
    logged: bool = True,
    sync: Sync = "second",
    sinks: tuple[tuple[AlertSink, Severity], ...] | None = None,
    webhook: str | None = None,
    texts: TextPrivacy | None = None,
    stream: Any = None,
    labels: bool = True,
    model: nn.Module | None = None,
    data: Task | None = None,
) -> Guard:
    """Guard a model of a run folder.

    Args:
        path: The run folder.
        round: Whose model; the accepted one if left out.
        allow_failed: Serve a model though it fails requirements of severity `must`; its release names them.
        reference: Public records to fit the monitor on; a share of the task's public evaluation records if left out.
        level: False-alarm rate of the monitor.
        policy: What keeps the model from answering.
        log: The decision log; ``private/decisions.jsonl`` of the run if left out. Its key is beside it.
        logged: Whether decisions are logged at all.
        sync: See `DecisionLog`.
        sinks: Where alerts go; ``private/alerts.jsonl`` from "warning" on if left out.
        webhook: Address that alerts from "warning" on are posted to, besides.
        texts: Checks of texts.
        stream: What follows the decisions over time: a monitor, or True for one of the task's own
            (`fedsafe.serve.streams.open_stream`), which is kept beside the log, and in memory alone without one.
        labels: Whether labels may come in later, where `stream` is True.
        model: The module, if the run was started with one.
        data: The task, if the run was started with one.

    Raises:
        ConfigError: The model fails requirements, or no public records are there.
        RecordError: It is no run folder, has no such model, or the log cannot be opened.
        CalibrationError: There are too few public records.
    """
    if webhook is not None:
        checked(webhook)
    folder = RunFolder.open(path)
    number = _chosen(folder, round)
    opened = open_subject(path, number, model=model, data=data)
    failed = _failed(folder, number, round is not None, opened.requirements, allow_failed)
    module, task = opened.model, opened.subject.task
    known, test = (reference, None) if reference is not None else split_public(task, opened.seed)
    lines = [line for line in folder.record() if isinstance(line, Round)]
    release = Release(
        name=opened.name,
        round=number,
        digest=lines[number - 1].parameters_sha256,
        failed=failed,
        folder=folder.path,
    )
    monitor = Monitor.fit(module, task, known, level=level, seed=opened.seed)
    figures, private = GuardFigures(), folder.private
    if logged or sinks is None or stream is True:
        try:
            private.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise RecordError(
                f"{private} cannot be made: {error.strerror}; give log=... elsewhere"
            ) from error
    target = private / "decisions.jsonl" if log is None else Path(log)
    to = ((FileSink(private / "alerts.jsonl"), "warning"),) if sinks is None else sinks
    kept = (
        DecisionLog(
            target,
            audit_key(target.with_name(f"{target.stem}.key")),
            model=release.digest,
            sync=sync,
            about={"round": number, "level": level, "failed": list(failed)},
        )
        if logged
        else None
    )
    try:
        if stream is True:
            from fedsafe.serve.streams import open_stream

            # Beside the log, whose lock keeps a second process away from both.
            beside = stream_beside(target) if logged else None
            stream = open_stream(beside, monitor, task, test or known, labels=labels, seed=opened.seed)
    except BaseException:
        if kept is not None:
            kept.close()
        raise
    if webhook is not None:
        to = (*to, (WebhookSink(webhook), "warning"))
    return Guard(
        module,
        monitor,
        task,
        policy=policy,
        log=kept,
        alerts=Alerts(to, counted=figures.alerted),
        queries=QueryPatterns(known.x, seed=opened.seed),
        texts=texts,
        stream=stream,
        release=release,
        figures=figures,
        test=test,
    )


def stream_beside(log: Path) -> Path:
    """Where the stream of a log is kept."""
    return log.with_name(f"{log.stem}.stream.json")


def split_public(task: Task, seed: int) -> tuple[Examples, Examples]:
    """A task's public evaluation records, cut in those to fit a monitor on and those to measure it on.

    Raises:
        ConfigError: They are not declared public: a monitor keeps values of the records it is fitted on, and its
            thresholds are functions of them.
    """
    if not task.evaluation_public or not len(task.evaluation):
        raise ConfigError(
            f"the evaluation records of {task.name!r} are not declared public, and a monitor would release them: give "
            "public records as reference=..."
        )
    order = public_generator(seed, "monitor reference").permutation(len(task.evaluation))[:_MOST]
    cut = int(REFERENCE_SHARE * len(order))
    return task.evaluation.take(np.sort(order[:cut])), task.evaluation.take(np.sort(order[cut:]))


def _chosen(folder: RunFolder, round: int | None) -> int:
    """The round whose model is served."""
    rounds = [line for line in folder.record() if isinstance(line, Round)]
    if not rounds:
        raise RecordError(f"{folder.path} has no complete round: there is no model to serve")
    if round is not None and not 1 <= round <= len(rounds):
        raise RecordError(f"{folder.path} has rounds 1 to {len(rounds)}, and no round {round}")
    return round or rounds[-1].accepted or len(rounds)


def _failed(
    folder: RunFolder, number: int, named: bool, required: Sequence[Requirement], allow: bool
) -> tuple[str, ...]:
    """What the model does not meet: requirements of the run, and what `fedsafe assess` found in the run's folder.

    A run that requires something and has no verdict on it is no run that passed: its file may be gone.
    """
    rounds = [line for line in folder.record() if isinstance(line, Round)]
    verdicts = folder.read("requirements.jsonl")
    blocking = [line for line in verdicts if line.get("blocks")]
    own = tuple(_described(line) for line in blocking if line.get("round") == number)
    must = any(line.get("severity") == "must" for line in verdicts)
    must = must or any(rule.severity == "must" for rule in required)
    if must and not any(line.get("round") == number for line in verdicts):
        own = (f"round {number} was never judged, and what is not measured is no pass",)
    for path in sorted(folder.path.glob("assessments/*/requirements.jsonl")):
        name = path.parent.name
        own += tuple(
            f"assessments/{name}: {_described(line)}"
            for line in folder.read(f"assessments/{name}/{path.name}")
            if line.get("blocks") and line.get("round") == number
        )
    if (own or (blocking and not named and rounds[-1].accepted is None)) and not allow:
        what = own or (f"no model of {len(rounds)} rounds was accepted",)
        raise ConfigError(
            f"{folder.path}: the model of round {number} fails what it must meet ({'; '.join(what)}): train one that "
            "meets it, or serve it all the same with allow_failed (--allow-failed)"
        )
    return own


def _described(line: Any) -> str:
    where = "".join(f" {key} {value}" for key, value in dict(line.get("where") or {}).items())
    return f"{line.get('metric')}{where} {line.get('op')} {line.get('threshold')}: {line.get('verdict')}"
