"""A guarded model: inputs are checked before they are answered, answers before they go out, and decisions logged.

The order: is it a record of the schema; is it strange to the monitor; does the caller copy or probe the model; is there
anything private in its text; then the model; is it confident; would another group be decided otherwise. What fails
one of these gets an abstention with all reasons that were found.
"""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedsafe.data import Examples, Task
from fedsafe.errors import ConfigError, DataError, RecordError
from fedsafe.findings import Finding
from fedsafe.rng import public_generator
from fedsafe.serve.alerts import Alerts
from fedsafe.serve.counterfactuals import Flips
from fedsafe.serve.decision import Decision, Policy
from fedsafe.serve.decision_log import DecisionLog
from fedsafe.serve.detectors.base import Array, Floats
from fedsafe.serve.explaining import moved_by
from fedsafe.serve.figures import GuardFigures
from fedsafe.serve.input_check import InputCheck
from fedsafe.serve.monitor import ADVERSARIAL, OOD, Checks, Monitor
from fedsafe.serve.published import monitor_findings
from fedsafe.serve.queries import QueryPatterns
from fedsafe.serve.text_privacy import TextPrivacy

_ID = 9  # bytes


class Watcher(Protocol):
    """What follows the decisions over time, such as `fedsafe.serve.streams.StreamMonitor`."""

    def watch(self, x: Floats, checks: Checks, decisions: Sequence[Decision]) -> Sequence[tuple[str, str]]:
        """Take a batch of valid inputs; gives the kind and the message of each alarm."""

    def close(self) -> None:
        """Keep what is needed to go on later."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """Which model is guarded.

    Attributes:
        name: Of the run.
        round: Of the model; 0 outside a run.
        digest: SHA-256 of its parameters.
        failed: Requirements of severity `must` that it does not meet, where it is served all the same.
        folder: The run folder; None outside a run.
    """

    name: str = ""
    round: int = 0
    digest: str = ""
    failed: tuple[str, ...] = ()
    folder: Path | None = field(default=None, compare=False)


class Guard:
    """See the module. It is for one thread at a time: windows, streams and the log go on from decision to decision.

    Args:
        model: In evaluation mode.
        monitor: Fitted to it.
        task: Its task: classes, target and schema.
        policy: What keeps it from answering.
        log: The decision log; none where None.
        alerts: Where alerts go; only counted where None.
        queries: Patterns of queries; not looked for where None.
        texts: Checks of texts that come with inputs.
        stream: Follows the decisions over time.
        release: Which model it is.
        protected: Columns to try other values of; the categorical group columns where empty.
        figures: Counters; new ones where None.
        test: Public records that had no part in the monitor, to publish its figures from.

    Raises:
        ConfigError: The monitor was fitted to another model, or the task predicts tokens.
    """

    def __init__(
        self,
        model: nn.Module,
        monitor: Monitor,
        task: Task,
        *,
        policy: Policy | None = None,
        log: DecisionLog | None = None,
        alerts: Alerts | None = None,
        queries: QueryPatterns | None = None,
        texts: TextPrivacy | None = None,
        stream: Watcher | None = None,
        release: Release | None = None,
        protected: tuple[str, ...] = (),
        figures: GuardFigures | None = None,
        test: Examples | None = None,
    ) -> None:
        if monitor.forward.model is not model:
            raise ConfigError("the monitor was fitted to another model: fit it to the one that is guarded")
        if task.kind == "next_token":
            raise ConfigError("a guard answers one record at a time, and this task predicts tokens")
        self.model, self.monitor, self.task = model, monitor, task
        self.policy, self.release = policy or Policy(), release or Release()
        self.figures = figures or GuardFigures()
        self.alerts = alerts or Alerts(counted=self.figures.alerted)
        self.log, self.stream, self._test = log, stream, test
        self._queries, self._texts = queries, texts or TextPrivacy()
        self._inputs = InputCheck(task.schema)
        self._flips = Flips(monitor.forward, task, protected)

    def predict(
        self, x: object, caller: str = "", *, texts: Sequence[str] | None = None, explain: bool = False
    ) -> list[Decision]:
        """Decide a batch.

        Args:
            x: ``(n, *inputs)`` encoded inputs, from any source.
            caller: Who asks, such as the name of a key; "" where that is not known, and then patterns of queries are
                not looked for.
            texts: ``(n,)`` the texts that the inputs were made of, where they were.
            explain: Whether answers come with an explanation.

        Returns:
            One decision for each input.

        Raises:
            DataError: The batch is no array of the task's shape.
            RecordError: The log cannot be written: then nothing was decided.
        """
        given = self._inputs.array(x)
        if texts is not None and len(texts) != len(given):
            raise DataError(f"{len(texts)} texts came with {len(given)} inputs: give one for each")
        if not len(given):
            return []
        bad, why = self._inputs.wrong(given)
        found = given
        if why:
            found = given.copy()
            found[bad] = self.monitor.centre  # computed along, and never answered
        checks = self.monitor.check(found)
        reasons: list[list[str]] = [[] for _ in range(len(given))]
        notes: list[list[str]] = [[] for _ in range(len(given))]
        for row, text in why.items():
            reasons[row].append(f"schema:{text}")
        valid = ~bad
        self._before(given, valid, checks, caller, texts, reasons, notes)
        decisions = self._answer(found, valid, checks, reasons, notes, explain)
        self._log(decisions, given, caller)
        self._count(decisions)
        if self.stream is not None and len(why) < len(given):
            rows = np.flatnonzero(valid)
            self._watch(self.stream, found[rows], _rows(checks, rows), [decisions[row] for row in rows])
        return decisions

    def explain(self, x: object) -> list[Mapping[str, float]]:
        """What moved the explained output, by column or pixel, see `fedsafe.serve.explaining.moved_by`.

        Args:
            x: ``(n, *inputs)`` encoded inputs.

        Raises:
            DataError: They are no array of the task's shape, or not finite.
        """
        given = self._inputs.array(x)
        if not np.isfinite(given).all():
            raise DataError("an input that is not finite cannot be explained")
        return moved_by(self.monitor, self.task.schema, given) if len(given) else []

    def refuse(self, texts: Sequence[str], reasons: Sequence[str], caller: str = "") -> list[Decision]:
        """Abstain from what is no instance at all, and cannot be encoded: it is logged and counted like any other.

        Args:
            texts: ``(n,)`` as they came; only their keyed hashes are kept.
            reasons: ``(n,)`` codes. They are logged: nothing of a text may be in them.
            caller: Who asks.

        Raises:
            RecordError: The log cannot be written.
        """
        ids = _ids(len(reasons))
        decisions = [
            Decision(id=each, answered=False, reasons=(reason,))
            for each, reason in zip(ids, reasons, strict=True)
        ]
        self._log(decisions, [text.encode("utf-8", "surrogatepass") for text in texts], caller)
        self._count(decisions)
        return decisions

    def findings(self, seed: int = 0, **options: Any) -> list[Finding]:
        """The monitor's own figures on public records that had no part in it.

        Args:
            seed: Of the public randomness.
            **options: ``foreign`` and ``effort`` of `fedsafe.serve.published.monitor_findings`.

        Raises:
            ConfigError: The guard was made without such records.
        """
        if self._test is None:
            raise ConfigError("the monitor was given all public records: give test=... to measure it")
        rng = public_generator(seed, "monitor figures")
        return monitor_findings(
            self.monitor, self.task.schema, self._test, data=self.task.evaluation_name, rng=rng, **options
        )

    def close(self) -> None:
        """Close the log and the alerts' sinks; nothing can be decided after that."""
        self.alerts.close()
        try:
            if self.stream is not None:
                self.stream.close()
        finally:
            if self.log is not None:
                self.log.close()

    def _before(
        self,
        x: Floats,
        valid: NDArray[np.bool_],
        checks: Checks,
        caller: str,
        texts: Sequence[str] | None,
        reasons: list[list[str]],
        notes: list[list[str]],
    ) -> None:
        policy = self.policy
        if policy.strange != "off":
            self._strange(valid, checks, reasons if policy.strange == "abstain" else notes)
        if self._queries is not None and caller and policy.queries != "off" and valid.any():
            rows = np.flatnonzero(valid)
            asked = x if len(rows) == len(x) else x[rows]
            alarms = rows[self._queries.alarms(asked, caller)].tolist()
            for row in alarms:
                (reasons if policy.queries == "abstain" else notes)[row].append("queries")
            if alarms:
                message = (
                    "a caller asks for nearly the same record again and again, as one does who copies a model"
                )
                self.alerts.raise_alert("queries", "critical", message, queries=len(alarms))
        if texts is not None and policy.privacy != "off":
            for row, text in enumerate(texts):
                found = self._texts.check(text)
                (reasons if policy.privacy == "abstain" else notes)[row].extend(found)
                if found:
                    kinds = ", ".join(found)
                    self.alerts.raise_alert("privacy", "warning", f"a text holds what it should not: {kinds}")

    def _strange(self, valid: NDArray[np.bool_], checks: Checks, into: list[list[str]]) -> None:
        if not np.count_nonzero(checks.alarms):
            return
        alarms = np.flatnonzero(checks.alarms & valid).tolist()
        if not alarms:
            return
        against = checks.p_values.get(ADVERSARIAL)
        kinds: Counter[str] = Counter()
        for row in alarms:
            attacked = against is not None and against[row] < checks.p_values[OOD][row]
            kind = ADVERSARIAL if attacked else OOD
            into[row].append(kind)
            kinds[kind] += 1
        for kind, count in kinds.items():
            what = "from elsewhere" if kind == OOD else "changed to be misread"
            message = f"inputs look {what}; of ordinary ones {self.monitor.level:.0%} do"
            self.alerts.raise_alert(kind, "info", message, inputs=count)

    def _answer(
        self,
        x: Floats,
        valid: NDArray[np.bool_],
        checks: Checks,
        reasons: list[list[str]],
        notes: list[list[str]],
        explain: bool,
    ) -> list[Decision]:
        outputs, task, policy = checks.outputs, self.task, self.policy
        if np.count_nonzero(np.isfinite(outputs)) < outputs.size:
            outputs = self._finite(outputs, valid, reasons)
        labels: list[str | None] = [None] * len(x)
        values: list[float | None] = [None] * len(x)
        confidence: list[float] = []
        if self.monitor.classes:
            shares = self.monitor.probabilities(outputs)
            labels = [task.classes[label] for label in shares.argmax(axis=1).tolist()]
            confidence = shares.max(axis=1).tolist()
        else:
            target = task.target
            values = (outputs[:, 0] if target is None else target.decode(outputs[:, 0])).tolist()
        if policy.floor and confidence:
            for row, share in enumerate(confidence):
                if share < policy.floor and valid[row]:
                    reasons[row].append("confidence")
        if policy.flips != "off" and self._flips:
            rows = [row for row, found in enumerate(reasons) if not found]
            if rows:
                all_of_them = len(rows) == len(x)
                flips = self._flips.found(*((x, outputs) if all_of_them else (x[rows], outputs[rows])))
                for row, columns in zip(rows, flips, strict=True):
                    if columns:
                        into = reasons if policy.flips == "abstain" else notes
                        into[row].extend(f"flip:{column}" for column in columns)
        explained: dict[int, Mapping[str, float]] = {}
        if explain:
            rows = [row for row, found in enumerate(reasons) if not found]
            explained = dict(zip(rows, self.explain(x[rows]), strict=True)) if rows else {}
        names = tuple(checks.p_values)
        p_values = list(zip(*(found.tolist() for found in checks.p_values.values()), strict=True))
        decisions, ids = [], _ids(len(x))
        for row, there in enumerate(valid.tolist()):
            answered = not reasons[row]
            decisions.append(
                Decision(
                    id=ids[row],
                    answered=answered,
                    label=labels[row] if answered else None,
                    value=values[row] if answered else None,
                    confidence=confidence[row] if there and confidence else None,
                    reasons=tuple(reasons[row]),
                    notes=tuple(notes[row]),
                    p_values=dict(zip(names, p_values[row], strict=True)) if there else {},
                    explanation=explained.get(row),
                )
            )
        return decisions

    def _finite(self, outputs: Array, valid: NDArray[np.bool_], reasons: list[list[str]]) -> Array:
        """The outputs, with zeros for rows that are not finite: these are never answered."""
        finite = np.asarray(np.isfinite(outputs).all(axis=1))
        for row in np.flatnonzero(~finite & valid).tolist():
            reasons[row].append("model:output not finite")
        message = "the model's output is not a number for some inputs"
        self.alerts.raise_alert("model", "critical", message, inputs=int((~finite).sum()))
        return np.where(finite[:, None], outputs, 0.0)

    def _watch(self, stream: Watcher, x: Floats, checks: Checks, decisions: Sequence[Decision]) -> None:
        """Tell the stream; what fails from here on is an alert, since the decisions are made and logged."""
        for kind, message in stream.watch(x, checks, decisions):
            self.alerts.raise_alert(kind, "critical", message)
            if self.log is not None:
                try:
                    self.log.note("alert", {"alert": kind, "message": message})
                except RecordError:
                    self.alerts.raise_alert("log", "critical", "an alert could not be logged")

    def _log(self, decisions: Sequence[Decision], contents: Floats | Sequence[bytes], caller: str) -> None:
        if self.log is not None and decisions:
            self.log.append(decisions, contents, caller=caller)
            self.figures.lines.set(self.log.head.sequence + 1)

    def _count(self, decisions: Sequence[Decision]) -> None:
        reasons: dict[str, int] = {}
        abstained = 0
        for decision in decisions:
            if not decision.answered:
                abstained += 1
                for reason in decision.reasons:
                    code = reason.split(":")[0]
                    reasons[code] = reasons.get(code, 0) + 1
        self.figures.decided(len(decisions) - abstained, abstained, reasons)


def _ids(count: int) -> list[str]:
    """At random: numbers would tell a caller how much others ask."""
    found = secrets.token_hex(_ID * count)
    return [found[2 * _ID * at : 2 * _ID * (at + 1)] for at in range(count)]


def _rows(checks: Checks, rows: NDArray[np.int64]) -> Checks:
    return Checks(
        p_values={name: values[rows] for name, values in checks.p_values.items()},
        outputs=checks.outputs[rows],
        alarms=checks.alarms[rows],
        score=checks.score[rows],
    )
