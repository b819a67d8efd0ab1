"""What follows the decisions of a guarded model over time, and raises an alarm when something has changed.

Issues: ``drift`` of the inputs (the monitor's combined score), drift of the ``predictions``, ``calibration`` of the
confidence where labels come in later, and the ``rates`` of groups. Every test may be looked at after each decision
(`fedsafe.serve.streams.wealth`); `alpha` is split evenly over the issues that can occur, and that of the rates over the
groups.
"""

import json
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedsafe.errors import ConfigError, RecordError
from fedsafe.serve.decision import Decision
from fedsafe.serve.detectors.base import Array, Floats
from fedsafe.serve.monitor import Checks
from fedsafe.serve.streams.exchangeability import ExchangeabilityTest
from fedsafe.serve.streams.groups import GroupRate
from fedsafe.serve.streams.means import MeanTest
from fedsafe.store.files import replace_file

FORMAT: Final = "fedsafe.stream/1"
ALPHA: Final = 0.01
DRIFT, PREDICTIONS, CALIBRATION, RATES = "drift", "predictions", "calibration", "rates"
_PENDING: Final = 20_000
_EVENTS: Final = 1000
_UNSAVED: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is known before the stream, from public records.

    Attributes:
        scores: ``(n,)`` combined scores of the monitor's calibration.
        predictions: ``(m,)`` outputs that are followed.
        rates: Column to group to positive decisions among known records of the group, and how many these are.
        codes: Column to the names of its groups, in the order of their codes.
    """

    scores: Array
    predictions: Array
    rates: Mapping[str, Mapping[str, tuple[int, int]]]
    codes: Mapping[str, tuple[str, ...]]


class StreamMonitor:
    """See the module. Time and memory per decision do not grow with the stream.

    Args:
        expected: What is known before.
        alpha: Probability, at most, that anything here ever raises a false alarm.
        confidence_tolerance: How far confidence may be from being right on average.
        rate_tolerance: How far the rate of a group may be from its known one.
        window: Decisions of a group in a window.
        labels: Whether labels may come in: where they do not, nothing is spent on calibration.
        seed: Of the ties.

    Raises:
        ConfigError: Alpha or the window is out of range.
        CalibrationError: There are too few known scores.
    """

    def __init__(
        self,
        expected: Expected,
        *,
        alpha: float = ALPHA,
        confidence_tolerance: float = 0.05,
        rate_tolerance: float = 0.1,
        window: int = 1000,
        labels: bool = True,
        seed: int = 0,
    ) -> None:
        if not 0.0 < alpha < 1.0 or window < 10:
            raise ConfigError(
                f"a stream needs alpha between 0 and 1 and a window from 10: got {alpha} and {window}"
            )
        groups = [(column, group) for column, rates in expected.rates.items() for group in rates]
        share = alpha / (2 + bool(groups) + labels)
        self.alpha, self.seen, self.unmatched = alpha, 0, 0
        self.codes = {column: tuple(names) for column, names in expected.codes.items()}
        self.drift = ExchangeabilityTest(expected.scores, share, seed)
        self.predictions = ExchangeabilityTest(expected.predictions, share, seed + 1)
        self.calibration = MeanTest(confidence_tolerance, share) if labels else None
        self.rates = {
            (column, group): GroupRate(
                *expected.rates[column][group], rate_tolerance, share / len(groups), window
            )
            for column, group in groups
        }
        self.counts: Counter[str] = Counter()
        self.events: list[dict[str, Any]] = []
        self._pending: OrderedDict[str, float] = OrderedDict()
        self.reader: Any = None
        self.path: Path | None = None
        self.model, self._unsaved = "", 0

    def observe(
        self,
        scores: ArrayLike,
        predictions: ArrayLike,
        positive: ArrayLike = (),
        groups: Mapping[str, NDArray[np.int64]] | None = None,
    ) -> list[tuple[str, str]]:
        """Take a batch of decisions, in their order.

        Args:
            scores: ``(n,)`` combined scores of the monitor.
            predictions: ``(n,)`` outputs that are followed.
            positive: ``(n,)`` whether each decision is the one that is counted in the rates.
            groups: Column to ``(n,)`` codes of the group, -1 for none.

        Returns:
            The kind and the message of each alarm.
        """
        start = self.seen
        alarms: list[tuple[str, str]] = []
        one, two = np.asarray(scores, np.float64), np.asarray(predictions, np.float64)
        for test, kind, what in ((self.drift, DRIFT, "inputs"), (self.predictions, PREDICTIONS, "outputs")):
            text = f"the {what} no longer come as the known ones do"
            places = test.observe(one if kind == DRIFT else two)
            alarms += [self._alarm(kind, start + at, text) for at in places]
        hits = np.asarray(positive, np.float64).tolist()
        for column, codes in (groups or {}).items():
            names = self.codes.get(column, ())
            for at, (code, hit) in enumerate(zip(codes.tolist(), hits, strict=True)):
                rate = self.rates.get((column, names[code])) if 0 <= code < len(names) else None
                if rate is not None and rate.observe(hit):
                    text = f"the rate of {column}={names[code]} is no longer near {rate.expected:.3f}"
                    alarms.append(self._alarm(RATES, start + at, text))
        self.seen += len(one)
        return alarms

    def watch(self, x: Floats, checks: Checks, decisions: Sequence[Decision]) -> list[tuple[str, str]]:
        """Take a batch from a guard, see `fedsafe.serve.pipeline.Watcher`.

        Raises:
            ConfigError: The stream was not opened for a guard, by `open_stream`.
        """
        if self.reader is None:
            raise ConfigError("this stream does not know how to read decisions: open it with open_stream")
        for decision in decisions:
            self.counts["answered" if decision.answered else "abstained"] += 1
            self.counts.update({f"reason {reason.split(':')[0]}" for reason in decision.reasons})
            if self.calibration is not None and decision.answered and decision.confidence is not None:
                self._pending[decision.id] = round(decision.confidence, 2)  # as in the log
        while len(self._pending) > _PENDING:
            self._pending.popitem(last=False)
        alarms = self.observe(*self.reader.read(x, checks))
        self._unsaved += len(decisions)
        if self.path is not None and (alarms or self._unsaved >= _UNSAVED):
            try:
                self.save(self.path)
            except RecordError:
                # Its text names a file of the machine. The decisions are made and logged: they are not called off.
                alarms = [*alarms, ("stream", "the state of the tests over time cannot be written")]
        return alarms

    def close(self) -> None:
        """Save, where the stream has a file."""
        if self.path is not None:
            self.save(self.path)

    def label(self, decision: str, correct: bool) -> list[tuple[str, str]]:
        """Take a label that came later.

        That labels come in for these decisions and not for others must not depend on whether they are right: otherwise
        the test is of the labelled ones alone.

        Args:
            decision: Id of an answer that is still remembered (the newest 20,000 are); others are counted.
            correct: Whether it was right.

        Returns:
            The kind and the message of an alarm.
        """
        confidence = self._pending.pop(decision, None)
        if confidence is None:
            self.unmatched += 1
            return []
        return self.outcome(confidence, correct)

    def outcome(self, confidence: float, correct: bool) -> list[tuple[str, str]]:
        """Take a confidence and whether the answer was right; gives the alarm, if it raises one.

        Raises:
            ConfigError: The stream was made without labels.
        """
        if self.calibration is None:
            raise ConfigError("this stream was begun without labels: begin one with labels=True")
        if not self.calibration.observe(float(correct), confidence):
            return []
        text = f"confidence and being right differ by more than {self.calibration.tolerance:g} on average"
        return [self._alarm(CALIBRATION, self.seen, text)]

    def _alarm(self, kind: str, at: int, message: str) -> tuple[str, str]:
        self.counts[f"alarm {kind}"] += 1
        self.events = [*self.events[1 - _EVENTS :], {"kind": kind, "decision": at, "message": message}]
        return kind, message

    def state(self) -> dict[str, Any]:
        """What a reader sees: counts, alarms, anytime-valid p-values, and the newest windows of each group."""
        return {
            "decisions": self.seen,
            "alpha": self.alpha,
            "counts": dict(self.counts),
            "labels": {
                "matched": 0 if self.calibration is None else self.calibration.n,
                "unmatched": self.unmatched,
            },
            "p_values": {
                DRIFT: self.drift.wealth.p_value,
                PREDICTIONS: self.predictions.wealth.p_value,
                **({} if self.calibration is None else {CALIBRATION: self.calibration.wealth.p_value}),
                **{f"{RATES} {c}={g}": rate.test.wealth.p_value for (c, g), rate in self.rates.items()},
            },
            "rates": [
                {"column": c, "group": g, "expected": rate.expected, "windows": [*rate.closed, rate.shown()]}
                for (c, g), rate in self.rates.items()
            ],
            "events": list(self.events),
        }

    def save(self, path: Path | str) -> None:
        """Write everything, atomically, to go on later; no input is in it.

        Raises:
            RecordError: It cannot be written.
        """
        values = {
            "format": FORMAT,
            "model_sha256": self.model,
            "alpha": self.alpha,
            "seen": self.seen,
            "unmatched": self.unmatched,
            "codes": {column: list(names) for column, names in self.codes.items()},
            "drift": self.drift.to_json(),
            "predictions": self.predictions.to_json(),
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "rates": [[c, g, rate.to_json()] for (c, g), rate in self.rates.items()],
            "counts": dict(self.counts),
            "events": self.events,
            "pending": list(self._pending.items()),
        }
        try:
            self._unsaved = 0
            replace_file(Path(path), json.dumps(values, separators=(",", ":"), allow_nan=False).encode())
        except OSError as error:
            raise RecordError(f"the stream cannot be written to {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Go on where `save` was.

        Raises:
            RecordError: It cannot be read.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise RecordError(
                    f"{path} has the format {values['format']!r}, not {FORMAT!r}: begin a new stream"
                )
            stream = cls.__new__(cls)
            stream.alpha, stream.seen = float(values["alpha"]), int(values["seen"])
            stream.unmatched, stream.reader = int(values["unmatched"]), None
            stream.model, stream.path, stream._unsaved = str(values["model_sha256"]), None, 0
            stream.codes = {column: tuple(names) for column, names in values["codes"].items()}
            stream.drift = ExchangeabilityTest.from_json(values["drift"])
            stream.predictions = ExchangeabilityTest.from_json(values["predictions"])
            kept = values["calibration"]
            stream.calibration = None if kept is None else MeanTest.from_json(kept)
            stream.rates = {(c, g): GroupRate.from_json(rate) for c, g, rate in values["rates"]}
            stream.counts, stream.events = Counter(values["counts"]), list(values["events"])
            stream._pending = OrderedDict((name, float(value)) for name, value in values["pending"])
            return stream
        except OSError as error:
            raise RecordError(f"the stream {path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(f"the stream {path} cannot be read ({error}): begin a new one") from error
