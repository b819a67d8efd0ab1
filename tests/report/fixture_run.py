"""A run folder made of invented numbers, for the tests of the report."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedsafe.findings import Finding, estimate, not_measured, proportion
from fedsafe.records import End, Round, Start
from fedsafe.store import RunFolder

PUBLIC = "fixture: invented evaluation set (public)"
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
_COVERED_BY_NEITHER = [
    "the choice of hyper-parameters, if earlier runs on the same records guided it",
    "timing, memory and other side channels of the machines",
]


@dataclass(frozen=True, kw_only=True)
class FixtureRun:
    """What varies between the fixtures.

    Attributes:
        name: Name of the run and its task's name, hostile in some tests.
        rounds: Complete rounds out of 40.
        ended: Whether there is an end line, and with which status.
        record_epsilon: None for a run without a record-level guarantee.
        findings: Whether the rounds 10, 20, ... were assessed.
    """

    name: str = "adult"
    rounds: int = 40
    ended: str | None = "completed"
    record_epsilon: float | None = 2.99871
    findings: bool = True

    def build(self, path: Path) -> Path:
        """Writes the run folder and returns its path."""
        run = RunFolder.create(path, CONFIG)
        run.append_record(self._start())
        for number in range(1, self.rounds + 1):
            if self.findings and number % 10 == 0:
                for assessor, found in self._findings(number):
                    run.append("findings.jsonl", {**found.to_json(), "round": number, "assessor": assessor})
                run.append("requirements.jsonl", *self._requirements(number))
            run.append_record(self._round(number))
        if self.ended:
            reason = (
                "requirement fairness.equalised_odds_difference <= 0.1 (must) failed"
                if self.ended == "stopped"
                else None
            )
            run.append_record(
                End(
                    rounds=self.rounds,
                    seconds=61.5,
                    status=self.ended,
                    reason=reason,
                    accuracy=self._accuracy(self.rounds) if self.rounds else None,
                )
            )
        (run.private / "cohorts.jsonl").write_text('{"secret": "SECRET-COHORT"}\n')
        return path

    def _accuracy(self, number: int) -> float:
        return round(16281 * (0.8395 - 0.085 * math.exp(-number / 7))) / 16281

    def _start(self) -> Start:
        return Start(
            run=self.name,
            created="2026-01-02T03:04:05+00:00",
            revision="0123456789abcdef0123456789abcdef01234567",
            versions={
                "fedsafe": "0.1.0",
                "torch": "2.13.0",
                "flwr": "1.42.0",
                "numpy": "2.4.6",
                "dp-accounting": "0.6.0",
            },
            machine={"system": "Linux x86_64", "processor": "fixture processor", "cores": 2, "memory_gib": 8},
            seed=7,
            reproducible=False,
            task={
                "name": self.name,
                "kind": "binary",
                "classes": ["<=50K", ">50K"],
                "features": 104,
                "train_records": 32561,
                "evaluation": "UCI Adult test split (public)",
                "evaluation_records": 16281,
                "source": {
                    "name": "UCI Adult",
                    "licence": "CC BY 4.0",
                    "sha256": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
                },
            },
            model={"name": "mlp", "parameters": 6785},
            trainer="stacked",
            federation={
                "clients": 300,
                "partition": {
                    "name": "dirichlet",
                    "by": "label",
                    "alpha": 1.0,
                    "sizes": {"name": "lognormal", "sigma": 0.5},
                },
                "records_per_client": {"min": 21, "median": 96, "max": 412},
            },
            claims=(self._record_claim(), self._client_claim()),
            plan={
                "hash": "c0ffee" + "0" * 58,
                "clients": 300,
                "rounds": 40,
                "record": {
                    "epsilon": 3.0 if self.record_epsilon else None,
                    "delta": 1e-5,
                    "clip": 1.0,
                    "rate": 0.1,
                    "steps": 10,
                    "max_participations": 40,
                    "noise": 2.71,
                },
                "client": {
                    "epsilon": 8.0,
                    "delta": 1e-3,
                    "clip": 1.0,
                    "rate": 0.3,
                    "noise": 0.82,
                    "grid_bits": 32,
                },
            },
        )

    def _record_claim(self) -> dict[str, Any]:
        statement = "No record-level differential privacy is claimed: this level ran without clip and noise."
        if self.record_epsilon is not None:
            statement = (
                "At the record level, the run is (2.999, 1e-05)-differentially private under zero-out adjacency against "
                "the server and all other clients, for the release of every update that one client uploads, and so "
                "every model. The bound composes 40 participations of 10 steps (planned regime) with Poisson batches "
                "of rate 0.1, and does not rely on the secrecy of the cohorts. For a person with two records in one "
                "client, epsilon is 7.214. Not covered: persons with records in several clients."
            )
        return {
            "unit": "record",
            "epsilon": self.record_epsilon,
            "delta": 1e-5,
            "adjacency": "zero-out (one record replaced by nothing; the number of records of each client is public)",
            "adversary": "the server and all other clients, who see each update of the client and when it took part",
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
            "not_covered": [
                *_COVERED_BY_NEITHER,
                "how many records a client holds",
                "persons with records in several clients",
            ],
            "group_epsilon": 7.2134 if self.record_epsilon else None,
            "statement": statement,
        }

    def _client_claim(self) -> dict[str, Any]:
        return {
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
            "not_covered": [
                *_COVERED_BY_NEITHER,
                "the server itself, and clients, who see that they were chosen",
            ],
            "group_epsilon": None,
            "statement": (
                "At the client level, the run is (7.993, 0.001)-differentially private under zero-out adjacency "
                "against an outsider who sees every broadcast model, but neither cohorts nor updates, for the release "
                "of every broadcast model. The bound composes 40 rounds (planned regime) with Poisson cohorts of rate "
                "0.3, and relies on the secrecy of the cohorts. Not covered: the server itself."
            ),
        }

    def _round(self, number: int) -> Round:
        share = math.sqrt(number / 40)
        return Round(
            round=number,
            metrics={"accuracy": self._accuracy(number), "loss": 0.352 + 0.21 * math.exp(-number / 6)},
            spend={
                "record": None if self.record_epsilon is None else self.record_epsilon * share,
                "client": 7.99312 * share,
            },
            ledger={"sequence": 2 * number, "head": f"{number:064x}"},
            checkpoint=f"checkpoints/round-{number:05d}.safetensors",
            parameters_sha256=f"{number:0>64}",
        )

    def _findings(self, number: int) -> list[tuple[str, Finding]]:
        accuracy = self._accuracy(number)
        found: list[tuple[str, Finding]] = [
            (
                "performance",
                proportion(
                    "performance.accuracy",
                    round(accuracy * 16281),
                    16281,
                    data=PUBLIC,
                    anchors={"majority_class": 0.7638},
                ),
            ),
            (
                "performance",
                estimate(
                    "performance.auc",
                    0.893,
                    interval=(0.888, 0.898),
                    method="delong-logit",
                    n=16281,
                    unit="examples",
                    data=PUBLIC,
                    anchors={"chance": 0.5},
                ),
            ),
            (
                "performance",
                estimate(
                    "performance.nll",
                    0.358,
                    interval=(0.351, 0.365),
                    method="t",
                    n=16281,
                    unit="examples",
                    data=PUBLIC,
                    anchors={"class_shares": 0.546},
                ),
            ),
            (
                "performance",
                estimate(
                    "performance.ece",
                    0.0213,
                    interval=(0.0152, 0.0281),
                    method="bootstrap",
                    n=16281,
                    unit="examples",
                    data=PUBLIC,
                ),
            ),
            ("performance", self._worst_tenth()),
        ]
        found += [("fairness", finding) for finding in self._fairness()]
        found += [("robustness", finding) for finding in self._robustness(accuracy)]
        features = (
            "capital_gain",
            "education_num",
            "marital_status",
            "age",
            "hours_per_week",
            "relationship",
            "occupation",
            "capital_loss",
            "workclass",
            "sex",
            "race",
            "native_country",
        )
        table = [{"feature": name, "value": 0.91 * 0.74**place} for place, name in enumerate(features)]
        found += [
            (
                "interpretability",
                estimate(
                    "interpretability.completeness_gap",
                    0.00042,
                    n=256,
                    unit="examples",
                    data=PUBLIC,
                    detail={"attributions": table},
                ),
            ),
            (
                "interpretability",
                estimate(
                    "interpretability.infidelity_normalised",
                    0.183,
                    interval=(0.151, 0.221),
                    method="bootstrap",
                    n=256,
                    unit="examples",
                    data=PUBLIC,
                    anchors={"random_explanation": 1.04},
                ),
            ),
            (
                "privacy",
                estimate(
                    "privacy.epsilon", 7.99312, bound="upper", where={"unit": "client"}, data="the plan"
                ),
            ),
        ]
        if self.record_epsilon is None:
            found.append(
                (
                    "privacy",
                    not_measured(
                        "privacy.epsilon",
                        "the run claims nothing at this level",
                        status="not_applicable",
                        where={"unit": "record"},
                    ),
                )
            )
        else:
            found.append(
                (
                    "privacy",
                    estimate(
                        "privacy.epsilon",
                        self.record_epsilon,
                        bound="upper",
                        where={"unit": "record"},
                        data="the plan",
                    ),
                )
            )
        return found

    def _worst_tenth(self) -> Finding:
        detail = {
            "shards": "evaluation shards cut by the clients' partition rule",
            "too_small": 11,
            "quantiles": np.array([0.5, 0.742, 0.791, 0.84, 0.889, 0.935, 1.0]),
        }
        return estimate(
            "performance.worst_decile_accuracy",
            0.691,
            interval=(0.662, 0.713),
            method="bootstrap over clients",
            n=289,
            unit="clients",
            data=PUBLIC,
            detail=detail,
            anchors={"clients_alike": 0.748},
        )

    def _fairness(self) -> list[Finding]:
        found = []
        groups = {
            "sex": {"Female": (590, 4831), "Male": (3256, 7604)},
            "race": {
                "White": (3509, 10437),
                "Black": (204, 1357),
                "Asian-Pac-Islander": (122, 358),
                "Other": (12, 123),
                "Amer-Indian-Eskimo": (19, 140),
            },
            "sex & race": {
                "Female & White": (500, 3900),
                "Female & Black": (58, 690),
                "Male & White": (3009, 6537),
                "Male & Black": (146, 667),
                "Female & Other": (4, 45),
            },
            "age": {"17-25": (41, 3290), "26-40": (1502, 5046), "41-60": (2021, 3304), "over 60": (282, 795)},
        }
        for attribute, parts in groups.items():
            for group, (positives, negatives) in parts.items():
                where = {"attribute": attribute, "group": group}
                counts = {
                    "accuracy": (round(0.84 * (positives + negatives)), positives + negatives),
                    "selection_rate": (round(0.6 * positives + 0.06 * negatives), positives + negatives),
                    "true_positive_rate": (round(0.6 * positives), positives),
                    "false_positive_rate": (round(0.06 * negatives), negatives),
                }
                for rate, (k, n) in counts.items():
                    if positives < 30:
                        reason = "the group has fewer than 30 positives and negatives"
                        found.append(
                            not_measured(
                                f"fairness.{rate}",
                                reason,
                                status="insufficient",
                                n=n,
                                unit="examples",
                                where=where,
                                data=PUBLIC,
                            )
                        )
                    else:
                        found.append(proportion(f"fairness.{rate}", k, n, where=where, data=PUBLIC))
            detail = {"extremes": {"low": list(parts)[0], "high": list(parts)[1]}}
            for gap, value in (
                ("demographic_parity_difference", 0.172),
                ("equalised_odds_difference", 0.094),
            ):
                found.append(
                    estimate(
                        f"fairness.{gap}",
                        value,
                        interval=(value - 0.03, value + 0.035),
                        method="newcombe, simultaneous",
                        n=16281,
                        unit="examples",
                        where={"attribute": attribute},
                        data=PUBLIC,
                        detail=detail,
                        anchors={"null_gap": 0.012},
                    )
                )
        return found

    def _robustness(self, accuracy: float) -> list[Finding]:
        found = []
        anchors = {"clean": accuracy}
        for scale in (0.05, 0.1, 0.25):
            where = {"noise": "gaussian", "scale": scale}
            k = round(2000 * (accuracy - 0.4 * scale))
            found.append(
                proportion("robustness.noise_accuracy", k, 2000, where=where, data=PUBLIC, anchors=anchors)
            )
        for radius in (0.02, 0.05, 0.1, 0.25, 0.5):
            for attack, steep in (("fgsm", 1.1), ("pgd", 1.5)):
                where = {"attack": attack, "norm": "linf", "radius": radius}
                k = round(2000 * max(0.05, accuracy - steep * radius))
                found.append(
                    proportion(
                        "robustness.attacked_accuracy",
                        k,
                        2000,
                        method="clopper-pearson",
                        where=where,
                        data=PUBLIC,
                        bound="upper",
                        anchors=anchors,
                    )
                )
        found.append(
            not_measured(
                "robustness.attacked_accuracy",
                "PGD missed more than 1% of the examples broken_by_fgsm",
                status="unreliable",
                where={"attack": "pgd", "norm": "linf", "radius": 1.0},
                n=2000,
                unit="examples",
                anchors=anchors,
            )
        )
        return found

    def _requirements(self, number: int) -> list[dict[str, Any]]:
        def line(metric: str, op: str, threshold: float, verdict: str, **rest: Any) -> dict[str, Any]:
            body = {
                "where": {},
                "confidence": 0.95,
                "severity": "must",
                "value": None,
                "interval": None,
                "reason": None,
            }
            return {
                "round": number,
                "metric": metric,
                "op": op,
                "threshold": threshold,
                "verdict": verdict,
                **body,
                **rest,
            }

        sex = {"attribute": "sex"}
        return [
            line(
                "performance.accuracy",
                ">=",
                0.8,
                "pass" if number > 10 else "undecided",
                value=self._accuracy(number),
                interval=[0.826, 0.84],
                reason="the lower end 82.6 % is above 80 %",
            ),
            line(
                "fairness.equalised_odds_difference",
                "<=",
                0.1,
                "undecided",
                where=sex,
                value=0.094,
                interval=[0.064, 0.129],
                reason="the interval holds the threshold",
            ),
            line(
                "robustness.attacked_accuracy",
                ">=",
                0.7,
                "fail",
                where={"attack": "pgd", "norm": "linf", "radius": 0.1},
                severity="should",
                value=0.65,
                interval=[0.629, 0.671],
                reason="the upper end 67.1 % is below 70 %",
            ),
            line(
                "privacy.audited_epsilon",
                "<=",
                8.0,
                "unmeasured",
                severity="info",
                reason="no finding has this metric",
            ),
        ]
