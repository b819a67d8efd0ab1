"""What a client shows of itself: to its own people in ``state/status.json``, and to Prometheus on its own machine."""

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server
from prometheus_client import Counter as Total

from fedsafe.deploy.client_ledger import ClientLedger
from fedsafe.deploy.policy import Policy
from fedsafe.errors import RecordError
from fedsafe.records import dumps
from fedsafe.store.files import replace_file

STATUS = "status.json"
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counts and times of a gate, none of which is a function of a record's values.

    Times are not rounded up as those of answers are: they follow secret batches, and are for the client's own people.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "fedsafe_gate"
        self.replies = Total(f"{name}_replies", "Replies sent", ["kind", "repeated"], registry=self.registry)
        self.refusals = Total(f"{name}_refusals", "Requests refused", ["reason"], registry=self.registry)
        self.round = Gauge(f"{name}_round", "Newest round that was answered", registry=self.registry)
        self.spent = Gauge(
            f"{name}_epsilon_spent", "Epsilon that counts in the period", registry=self.registry
        )
        self.budget = Gauge(f"{name}_epsilon_budget", "Most epsilon of a period", registry=self.registry)
        self.seconds = Histogram(
            f"{name}_seconds", "Time to answer", ["kind"], buckets=_BUCKETS, registry=self.registry
        )

    def listen(self, port: int) -> tuple[Any, Any]:
        """Serve them on a port of the loopback address; gives the server and its thread."""
        return start_http_server(port, addr="127.0.0.1", registry=self.registry)


@dataclass
class Status:
    """What the client's people see.

    Args:
        path: The file.
        policy: The client's own.
    """

    path: Path
    policy: Policy
    own: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    curves: dict[str, list[float | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, policy: Policy, ledger: ClientLedger) -> "Status":
        """Go on with what an earlier process showed."""
        refused = Counter(str(event.body["reason"]) for event in ledger.events if event.kind == "refusal")
        status = cls(path=path, policy=policy, refusals=refused)
        try:
            shown = json.loads(path.read_text())
            status.own = {run["run"]: list(run["own"]) for run in shown["runs"]}
        except (OSError, ValueError, KeyError, TypeError):
            pass  # it is a convenience, and is made anew
        return status

    def measured(self, run: str, round: int, figures: dict[str, float]) -> None:
        """Remember how the model that a round began with does on the client's own records."""
        lines = [line for line in self.own.get(run, []) if line["round"] != round]
        self.own[run] = sorted([*lines, {"round": round, **figures}], key=lambda line: line["round"])

    def write(self, ledger: ClientLedger) -> None:
        """Bring the file up to date."""
        budget = self.policy.budget.record
        spent = ledger.spent(budget)
        content = {
            "format": "fedsafe.client-status/1",
            "client": self.policy.client,
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "spent": {
                "epsilon": spent.epsilon,
                "delta": spent.delta,
                "budget_epsilon": budget.epsilon,
                "budget_delta": budget.delta,
                "period_days": budget.period_days,
                "ever": spent.ever,
            },
            "server_noise": self.policy.server_noise,
            "runs": [self._run(ledger, name) for name in ledger.runs],
            "refusals": dict(self.refusals),
        }
        replace_file(self.path, (dumps(content) + "\n").encode())

    def _run(self, ledger: ClientLedger, name: str) -> dict[str, Any]:
        agreement = ledger.agreement(name)
        assert agreement is not None  # noqa: S101 - the ledger listed it
        done = ledger.released(name)
        curve = self.curves.get(name, [])
        realised = 0.0 if not done else curve[len(done) - 1] if len(done) <= len(curve) else None
        return {
            "run": name,
            "rounds": agreement.plan.rounds,
            "released": list(done),
            "planned_epsilon": agreement.epsilon,
            "delta": agreement.delta,
            "realised_epsilon": realised,
            "own": self.own.get(name, []),
        }


def lines_of_status(folder: Path) -> list[str]:
    """What a client's page says, for people.

    Args:
        folder: Of the client.

    Raises:
        RecordError: Its gate has not written one.
    """
    path = folder / "state" / STATUS
    try:
        shown = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}; its gate writes it when it starts") from error
    spent = shown["spent"]
    epsilon = f"epsilon {spent['epsilon']:.3f} of {spent['budget_epsilon']:g}"
    delta = f"delta {spent['delta']:.1e} of {spent['budget_delta']:.1e}"
    lines = [
        f"{shown['client']}: {epsilon} ({delta}) in {spent['period_days']:g} days",
        f"noise that the server adds: {shown['server_noise']}",
    ]
    for run in shown["runs"]:
        realised = "not known" if run["realised_epsilon"] is None else f"{run['realised_epsilon']:.3f}"
        epsilon = f"epsilon {realised} of the planned {run['planned_epsilon']:.3f} at delta {run['delta']:g}"
        rounds = f"{len(run['released'])} of {run['rounds']} rounds"
        lines.append(f"run {run['run'][:12]}: {rounds}, {epsilon}")
        for own in run["own"][-1:]:
            figures = ", ".join(
                f"{name} {value:.4f}" for name, value in own.items() if name != "round" and value is not None
            )
            lines.append(f"  on its own validation records, the model of round {own['round'] - 1}: {figures}")
    lines += [f"refused {count} times: {reason}" for reason, count in sorted(shown["refusals"].items())]
    return lines
