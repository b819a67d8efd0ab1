"""A run folder made of invented numbers, for the tests of the report."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixture_findings import EXAMPLES, make_findings, make_requirements

from fedsafe.records import End, Round, Start
from fedsafe.store import RunFolder

CONFIG = """\
# Numbers of this run are invented: it is a fixture of the test suite.
task = "adult"
rounds = 40

[model]
name = "mlp"
hidden = [64]

[federation]
clients = 300
partition = { name = "dirichlet", by = "label", alpha = 1.0, sizes = { name = "lognormal", sigma = 0.5 } }
cohort = { name = "poisson", rate = 0.3 }

[privacy.record]
epsilon = 3.0
delta = 1e-5
clip = 1.0

[privacy.client]
epsilon = 8.0
delta = 1e-3
clip = 1.0
"""
NO_CLAIM = "No record-level differential privacy is claimed: this level ran without clip and noise."
STOPPED = "requirement fairness.equalised_odds_difference <= 0.1 (must) failed"
SECRET = "SECRET-COHORT"
_NEITHER = [
    "the choice of hyper-parameters, if earlier runs on the same records guided it",
    "timing, memory and other side channels of the machines",
]
_RECORD_CLAIM: dict[str, Any] = {
    "unit": "record",
    "delta": 1e-5,
    "adjacency": "zero-out (one record replaced by nothing; each client's number of records is public)",
    "adversary": "the server and all other clients, who see each update and when the client took part",
    "cohort_secret": False,
    "release": "every update that one client uploads, and so every model",
    "sampler": "Poisson batches of rate 0.1 inside the client, empty ones included",
    "accountant": "PLD, dp-accounting 0.6.0, discretisation 1e-4",
    "horizon": "40 participations of 10 steps, noise multiplier 2.71, clip 1; the worst client's",
    "regime": "planned",
    "randomness": "statistical generator, OS key",
    "assumptions": [
        "one record per person, in one client",
        "each client runs this code, and keeps its batches and noise to itself",
        "preprocessing uses the public schema alone",
    ],
    "not_covered": [*_NEITHER, "how many records a client holds", "persons with records in several clients"],
}
_RECORD_STATEMENT = (
    "At the record level, the run is (2.999, 1e-05)-differentially private under zero-out adjacency against "
    "the server and all other clients, for the release of every update that one client uploads, and so every "
    "model. The bound composes 40 participations of 10 steps (planned regime) with Poisson batches of rate "
    "0.1, and does not rely on the secrecy of the cohorts. For a person with two records in one client, "
    "epsilon is 7.214. Not covered: persons with records in several clients."
)
_CLIENT_CLAIM: dict[str, Any] = {
    "unit": "client",
    "epsilon": 7.99312,
    "delta": 1e-3,
    "adjacency": "zero-out (one client's updates replaced by zero; the registered population is public)",
    "adversary": "an outsider who sees every broadcast model, but neither cohorts nor updates",
    "cohort_secret": True,
    "release": "every broadcast model",
    "sampler": "Poisson cohorts of rate 0.3 over 300 registered clients, empty ones included",
    "accountant": "PLD, dp-accounting 0.6.0, discretisation 1e-4",
    "horizon": "40 rounds, noise multiplier 0.82, clip 1",
    "regime": "planned",
    "randomness": "statistical generator, OS key",
    "assumptions": [
        "the server is trusted: it sees each update and adds the noise",
        "nobody but the server learns who was in a cohort",
        "one person is one client",
    ],
    "not_covered": [*_NEITHER, "the server itself, and clients, who see that they were chosen"],
    "group_epsilon": None,
    "statement": (
        "At the client level, the run is (7.993, 0.001)-differentially private under zero-out adjacency "
        "against an outsider who sees every broadcast model, but neither cohorts nor updates, for releasing "
        "every broadcast model. The bound composes 40 rounds (planned regime) with Poisson cohorts of rate "
        "0.3, and relies on the secrecy of the cohorts. Not covered: the server itself."
    ),
}


@dataclass(frozen=True, kw_only=True)
class FixtureRun:
    """What varies between the fixtures.

    Attributes:
        name: Name of the run and of its task, hostile in some tests.
        rounds: Complete rounds out of 40.
        ended: Status of the end line, or None where the run has none.
        record_epsilon: None for a run without a record-level guarantee.
    """

    name: str = "adult"
    rounds: int = 40
    ended: str | None = "completed"
    record_epsilon: float | None = 2.99871

    def build(self, path: Path) -> Path:
        """Writes the run folder and returns its path."""
        run = RunFolder.create(path, CONFIG)
        run.append_record(self._start())
        for number in range(1, self.rounds + 1):
            if number % 10 == 0:
                for assessor, found in make_findings(self.accuracy(number), self.record_epsilon):
                    run.append("findings.jsonl", {**found.to_json(), "round": number, "assessor": assessor})
                run.append("requirements.jsonl", *make_requirements(number, self.accuracy(number)))
            run.append_record(self._round(number))
        if self.ended:
            run.append_record(
                End(
                    rounds=self.rounds,
                    seconds=61.5,
                    status=self.ended,
                    reason=STOPPED if self.ended == "stopped" else None,
                    accuracy=self.accuracy(self.rounds) if self.rounds else None,
                )
            )
        run.append("private/cohorts.jsonl", {"cohort": SECRET})
        return path

    def accuracy(self, number: int) -> float:
        """Accuracy after a round: a count over the evaluation set."""
        return round(EXAMPLES * (0.8395 - 0.085 * math.exp(-number / 7))) / EXAMPLES

    def _start(self) -> Start:
        private = self.record_epsilon is not None
        record_claim = {
            **_RECORD_CLAIM,
            "epsilon": self.record_epsilon,
            "group_epsilon": 7.2134 if private else None,
            "statement": _RECORD_STATEMENT if private else NO_CLAIM,
        }
        sizes = {"name": "lognormal", "sigma": 0.5}
        record = {"clip": 1.0, "delta": 1e-5, "rate": 0.1, "steps": 10, "max_participations": 40}
        return Start(
            run=self.name,
            created="2026-01-02T03:04:05+00:00",
            revision="0123456789abcdef0123456789abcdef01234567",
            versions={"fedsafe": "0.1.0", "torch": "2.13.0", "flwr": "1.42.0", "dp-accounting": "0.6.0"},
            machine={"system": "Linux x86_64", "processor": "fixture processor", "cores": 2},
            seed=7,
            reproducible=False,
            task={
                "name": self.name,
                "kind": "binary",
                "classes": ["<=50K", ">50K"],
                "features": 104,
                "train_records": 32561,
                "evaluation": "UCI Adult test split (public)",
                "evaluation_records": EXAMPLES,
                "source": {"name": "UCI Adult", "licence": "CC BY 4.0", "sha256": "5b" * 32},
            },
            model={"name": "mlp", "parameters": 6785},
            trainer="stacked",
            federation={
                "clients": 300,
                "partition": {"name": "dirichlet", "by": "label", "alpha": 1.0, "sizes": sizes},
                "records_per_client": {"min": 21, "median": 96, "max": 412},
            },
            claims=(record_claim, _CLIENT_CLAIM),
            settings_sha256="0" * 64,
            plan={
                "hash": "c0ffee" + "0" * 58,
                "clients": 300,
                "rounds": 40,
                "record": {**record, "epsilon": 3.0 if private else None, "noise": 2.71 if private else 0.0},
                "client": {"epsilon": 8.0, "delta": 1e-3, "clip": 1.0, "rate": 0.3, "noise": 0.82},
            },
        )

    def _round(self, number: int) -> Round:
        share = math.sqrt(number / 40)
        record = None if self.record_epsilon is None else self.record_epsilon * share
        return Round(
            round=number,
            metrics={"accuracy": self.accuracy(number), "loss": 0.352 + 0.21 * math.exp(-number / 6)},
            spend={"record": record, "client": 7.99312 * share},
            ledger={"sequence": 2 * number, "head": f"{number:064x}"},
            checkpoint=f"checkpoints/round-{number:05d}.safetensors",
            parameters_sha256=f"{number:0>64}",
        )
