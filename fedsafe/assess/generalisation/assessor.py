"""Seen against unseen clients: what a random split of records promises, and what a new client gets."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.clients import SIMULATORS_VIEW, ClientRecords
from fedsafe.assess.performance.numbers import moments, r_squared
from fedsafe.assess.resampling import cluster_sums, resample
from fedsafe.findings import Finding, Provenance, Scope, estimate, not_measured, percentile

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Generalisation:
    """Accuracy, or R squared, on new records of clients who took part and on records of clients who did not.

    The gap is that of Yuan et al. (2022). Whole clients are resampled, on each side alone: records of one client are
    alike, which is why a random split of records flatters a model.

    Attributes:
        fewest: Clients that each side needs.
    """

    name: ClassVar[str] = "generalisation"
    fewest: int = 5

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """One forward pass over the records of both kinds of clients."""
        if _missing(subject):
            return Cost(description=f"nothing: {_missing(subject)}")
        sides = [side for side in (subject.validation, subject.unseen) if side is not None]
        n = sum(len(side.held) for side in sides)
        clients = " and ".join(str(len(side)) for side in sides)
        return Cost(description=f"scores on {n} records of {clients} clients", examples=n, forward=n)

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        number = subject.task.kind == "regression"
        name, figure = ("r2", r_squared) if number else ("accuracy", _mean)
        metric = f"generalisation.{name}"
        reason = _missing(subject)
        context: Provenance = {
            "data": "records of clients that were not trained on",
            "released": SIMULATORS_VIEW,
        }
        seen, unseen = subject.validation, subject.unseen
        if reason or seen is None or unseen is None:
            return [
                not_measured(m, reason, status="not_applicable", **context) for m in (metric, f"{metric}_gap")
            ]
        sides = {"seen": self._sums(subject, seen), "unseen": self._sums(subject, unseen)}
        few = [f"{len(sums)} {which}" for which, sums in sides.items() if len(sums) < self.fewest]
        if few:
            reason = f"{' and '.join(few)} clients with records are too few, {self.fewest} are needed"
            return [
                not_measured(
                    m,
                    reason,
                    status="insufficient",
                    n=min(map(len, sides.values())),
                    unit="clients",
                    **context,
                )
                for m in (metric, f"{metric}_gap")
            ]
        resamples = 1000 if tier == "cheap" else 5000
        replicates = {which: figure(resample(sums, rng, resamples)) for which, sums in sides.items()}
        values = {which: float(figure(sums.sum(axis=0)[None])[0]) for which, sums in sides.items()}
        findings = []
        for which, sums in sides.items():
            scope: Scope = {"where": {"clients": which}, **context}
            findings.append(_estimate(metric, values[which], replicates[which], len(sums), scope))
        between: Scope = {"where": {}, **context}
        gap = _estimate(
            f"{metric}_gap",
            values["seen"] - values["unseen"],
            replicates["seen"] - replicates["unseen"],
            sum(map(len, sides.values())),
            between,
        )
        records = {f"{which}_records": int(sums[:, 0].sum()) for which, sums in sides.items()}
        return [*findings, replace(gap, anchors={"clients_alike": 0.0}, detail={**gap.detail, **records})]

    def _sums(self, subject: Subject, side: ClientRecords) -> Array:
        """``(clients, columns)`` sums that the figure follows from, of clients with records."""
        rows = [rows for rows in side.rows if len(rows)]
        examples = side.examples.take(np.concatenate(rows))
        if subject.task.kind == "regression":
            values = moments(subject.logits(examples.x)[:, 0], examples.y)
        else:
            scores = subject.per_record(examples)[1]
            values = np.stack([np.ones_like(scores), scores], axis=1)
        return cluster_sums(values, np.repeat(np.arange(len(rows)), [len(part) for part in rows]))


def _mean(totals: Array) -> Array:
    return np.asarray(totals[:, 1] / totals[:, 0])


def _estimate(metric: str, value: float, replicates: Array, clients: int, scope: Scope) -> Finding:
    finite = replicates[np.isfinite(replicates)]
    return estimate(
        metric,
        value,
        interval=percentile(finite) if len(finite) else None,
        method="bootstrap over clients" if len(finite) else None,
        n=clients,
        unit="clients",
        **scope,
    )


def _missing(subject: Subject) -> str:
    """Which side there is none of; "" where both are there."""
    missing = []
    if subject.validation is None or not len(subject.validation.held):
        missing.append("no client keeps records for its own validation (federation.client_validation)")
    if subject.unseen is None or not len(subject.unseen.held):
        missing.append("no client is held out (federation.held_out)")
    return "; ".join(missing)
