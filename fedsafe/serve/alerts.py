"""Alerts by severity, rate-limited by kind, to a file, a webhook and counters."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from fedsafe.errors import ConfigError
from fedsafe.store.lines import append_lines

Severity = Literal["info", "warning", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "critical")


@dataclass(frozen=True, kw_only=True)
class Alert:
    """Something that somebody should know.

    Attributes:
        kind: What happened: "ood", "drift", "queries"...; the rate limit is by kind.
        severity: "info", "warning" or "critical".
        message: One sentence, without any value of an input.
        detail: Plain values.
        seconds: Time since 1970.
        withheld: Alerts of this kind since the last one that went out.
    """

    kind: str
    severity: Severity
    message: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    withheld: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "message": self.message,
            "detail": dict(self.detail),
            "time": datetime.fromtimestamp(self.seconds, UTC).isoformat(timespec="milliseconds"),
            "withheld": self.withheld,
        }


class AlertSink(Protocol):
    """Where alerts go. It neither waits nor raises: a decision must not hang on an alert."""

    def send(self, alert: Alert) -> None:
        """Take an alert."""

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""


class FileSink:
    """Appends alerts to a file of JSON lines.

    Args:
        path: The file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path, self.failures = Path(path), 0

    def send(self, alert: Alert) -> None:
        """Append it; a failure is counted."""
        try:
            append_lines(self.path, [alert.to_json()])
        except OSError:
            self.failures += 1

    def close(self) -> None:
        """Nothing is left."""


@dataclass
class _Bucket:
    tokens: float
    seconds: float
    withheld: int = 0


class Alerts:
    """Sends alerts to sinks, at most so many of each kind.

    A kind may send `burst` alerts at once and `per_minute` after that (a token bucket). What is withheld is counted,
    and told with the next that goes out; a more severe alert has a bucket of its own and is not held up by others.

    Args:
        sinks: Where alerts go; each with the least severity that it wants.
        per_minute: Of each kind and severity.
        burst: At once.
        clock: Seconds, rising.
        counted: Told of every alert and whether it went out, for counters.

    Raises:
        ConfigError: A severity is unknown, or a number is not positive.
    """

    def __init__(
        self,
        sinks: Sequence[tuple[AlertSink, Severity]] = (),
        *,
        per_minute: float = 6.0,
        burst: int = 5,
        clock: Callable[[], float] = time.monotonic,
        counted: Callable[[Alert, bool], None] | None = None,
    ) -> None:
        strange = [least for _, least in sinks if least not in SEVERITIES]
        if strange or per_minute <= 0 or burst < 1:
            raise ConfigError(
                f"alerts need severities of {SEVERITIES} and positive rates: got {strange or (per_minute, burst)}"
            )
        self._sinks, self._rate, self._burst, self._clock = tuple(sinks), per_minute / 60.0, burst, clock
        self._counted, self._lock = counted, threading.Lock()
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def raise_alert(self, kind: str, severity: Severity, message: str, **detail: Any) -> bool:
        """Raise an alert; whether it went out.

        Args:
            kind: One of a fixed set: a kind that held values would make buckets without end.
            severity: "info", "warning" or "critical".
            message: One sentence.
            **detail: Plain values.
        """
        with self._lock:
            now = self._clock()
            bucket = self._buckets.setdefault((kind, severity), _Bucket(float(self._burst), now))
            bucket.tokens = min(float(self._burst), bucket.tokens + (now - bucket.seconds) * self._rate)
            bucket.seconds = now
            sent = bucket.tokens >= 1.0
            alert = Alert(
                kind=kind,
                severity=severity,
                message=message,
                detail=detail,
                seconds=time.time(),
                withheld=bucket.withheld,
            )
            if sent:
                bucket.tokens -= 1.0
                bucket.withheld = 0
            else:
                bucket.withheld += 1
        if self._counted is not None:
            self._counted(alert, sent)
        if sent:
            for sink, least in self._sinks:
                if SEVERITIES.index(severity) >= SEVERITIES.index(least):
                    sink.send(alert)
        return sent

    @property
    def failures(self) -> dict[str, int]:
        """Kind of a sink to alerts that it could not pass on, or that its queue did not take."""
        found: dict[str, int] = {}
        for sink, _ in self._sinks:
            lost = int(getattr(sink, "failures", 0)) + int(getattr(sink, "dropped", 0))
            found[type(sink).__name__] = found.get(type(sink).__name__, 0) + lost
        return found

    def close(self) -> None:
        """Close every sink."""
        for sink, _ in self._sinks:
            sink.close()
