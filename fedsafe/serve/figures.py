"""Counters of a guarded model, for Prometheus, in a registry of their own."""

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from fedsafe.serve.alerts import Alert

_NAME: Final = "fedsafe_guard"


class GuardFigures:
    """Counts of decisions, reasons and alerts; exact counts, for the operator's own eyes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._decisions = Counter(f"{_NAME}_decisions", "Decisions", ["answered"], registry=self.registry)
        self._reasons = Counter(
            f"{_NAME}_reasons", "Reasons for an abstention", ["reason"], registry=self.registry
        )
        self._alerts = Counter(
            f"{_NAME}_alerts", "Alerts that went out", ["kind", "severity"], registry=self.registry
        )
        self._withheld = Counter(
            f"{_NAME}_alerts_withheld", "Alerts held back by the rate limit", ["kind"], registry=self.registry
        )
        self._lost = Gauge(
            f"{_NAME}_alerts_lost", "Alerts that a sink could not pass on", ["sink"], registry=self.registry
        )
        self.lines = Gauge(f"{_NAME}_log_lines", "Lines of the decision log", registry=self.registry)
        self._answered = {
            answered: self._decisions.labels("yes" if answered else "no") for answered in (True, False)
        }
        self.totals = {True: 0, False: 0}

    def decided(self, answered: int, abstained: int, reasons: dict[str, int]) -> None:
        """Count a batch; reasons by their code, without details."""
        self._answered[True].inc(answered)
        self._answered[False].inc(abstained)
        self.totals[True] += answered
        self.totals[False] += abstained
        for reason, count in reasons.items():
            self._reasons.labels(reason).inc(count)

    def alerted(self, alert: Alert, sent: bool) -> None:
        """Count an alert."""
        if sent:
            self._alerts.labels(alert.kind, alert.severity).inc()
        else:
            self._withheld.labels(alert.kind).inc()

    def lost(self, failures: Mapping[str, int]) -> None:
        """Show what sinks of alerts could not pass on, see `Alerts.failures`."""
        for sink, count in failures.items():
            self._lost.labels(sink).set(count)
