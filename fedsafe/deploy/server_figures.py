"""What the server shows to Prometheus on its own machine: how far the newest run is, and how its rounds went.

Counts and times of a round follow its cohort, so they are as private as the run's private folder, and stay on loopback.
"""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fedsafe.deploy.driving import lines_of, newest_run
from fedsafe.deploy.federation import Federation


class RunFigures(Collector):
    """Reads the newest run folder each time that somebody asks.

    Args:
        federation: Whose runs these are.
    """

    def __init__(self, federation: Federation) -> None:
        self._federation = federation

    def collect(self) -> Iterator[Metric]:
        """Rounds, epsilon, replies, refusals and times of the newest run; nothing before the first one."""
        run = newest_run(self._federation)
        if run is None:
            return
        rounds = [line for line in lines_of(run.out / "record.jsonl") if line.get("kind") == "round"]
        yield GaugeMetricFamily("fedsafe_server_rounds", "Rounds that count", value=len(rounds))
        yield GaugeMetricFamily("fedsafe_server_rounds_planned", "Rounds planned", value=run.rounds)
        spent = GaugeMetricFamily("fedsafe_server_epsilon_planned", "Planned epsilon so far", labels=["unit"])
        for unit, epsilon in (rounds[-1]["spend"] if rounds else {}).items():
            if epsilon is not None:
                spent.add_metric([unit], epsilon)
        yield spent
        exchanges = lines_of(run.out / "private" / "replies.jsonl")
        asked, replied = (sum(line[key] for line in exchanges) for key in ("asked", "replied"))
        yield CounterMetricFamily("fedsafe_server_messages", "Messages sent to clients", value=asked)
        yield CounterMetricFamily("fedsafe_server_replies", "Replies that came back", value=replied)
        refusals: Counter[str] = Counter()
        for line in exchanges:
            refusals.update(line.get("refused", {}))
        refused = CounterMetricFamily("fedsafe_server_refusals", "Clients that said no", labels=["reason"])
        for reason, count in sorted(refusals.items()):
            refused.add_metric([reason], count)
        yield refused
        timings = lines_of(run.out / "private" / "timings.jsonl")
        seconds = sum(line["seconds"] for line in timings)
        yield CounterMetricFamily("fedsafe_server_round_seconds", "Wall time of all rounds", value=seconds)


def listen(federation: Federation, port: int) -> None:
    """Answer Prometheus on a port of the loopback address."""
    registry = CollectorRegistry()
    registry.register(RunFigures(federation))
    start_http_server(port, addr="127.0.0.1", registry=registry)
