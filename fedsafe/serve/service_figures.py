"""Counters of the service around a guarded model, for Prometheus, in a registry of their own."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_NAME: Final = "fedsafe_service"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class ServiceFigures:
    """Counts of requests by route and status, seconds, and what waits."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(f"{_NAME}_requests", "Requests", ["route", "status"], registry=self.registry)
        self._seconds = Histogram(
            f"{_NAME}_seconds",
            "Seconds of answered requests",
            ["route"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.waiting = Gauge(f"{_NAME}_waiting", "Instances that wait for the model", registry=self.registry)
        self._by: dict[tuple[str, int], Counter] = {}
        self._timed: dict[str, Histogram] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request; its route is one of the service's own, so that no caller makes up labels."""
        counter = self._by.get((route, status))
        if counter is None:
            counter = self._by.setdefault((route, status), self._requests.labels(route, str(status)))
        counter.inc()
        if status == 200:
            timed = self._timed.get(route)
            if timed is None:
                timed = self._timed.setdefault(route, self._seconds.labels(route))
            timed.observe(seconds)

    def text(self, *more: CollectorRegistry) -> bytes:
        """In Prometheus's own format, with what other registries hold."""
        return b"".join(generate_latest(registry) for registry in (self.registry, *more))
