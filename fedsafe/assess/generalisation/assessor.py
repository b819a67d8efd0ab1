"""Seen against unseen clients: what a random split of records promises, and what a new client gets."""

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.clients import SIMULATORS_VIEW, ClientRecords
from fedsafe.assess.performance.evenness import (
    FEWEST_SHARDS,
    SMALLEST_SHARD,
    alike,
    check_shares,
    fewest_clients,
    worst_share,
)
from fedsafe.assess.performance.numbers import moments, r_squared
from fedsafe.assess.resampling import cluster_sums, resample
from fedsafe.assess.scores import measure
from fedsafe.findings import Finding, Provenance, Scope, estimate, not_measured, percentile

Array = NDArray[np.float64]

_WORST = "generalisation.worst_clients_score"


@dataclass(frozen=True, kw_only=True)
class Generalisation:
    """Accuracy, or R squared, on new records of clients who took part and on records of clients who did not.

    The gap is that of Yuan et al. (2022). Whole clients are resampled, on each side alone: records of one client are
    alike, which is why a random split of records flatters a model.

    Attributes:
        fewest: Clients that each side needs.
        worst: Shares of the clients of each side whose mean score is wanted.

    Raises:
        ConfigError: A share is not in (0, 1).
    """

    name: ClassVar[str] = "generalisation"
    fewest: int = 5
    worst: tuple[float, ...] = (0.1,)

    def __post_init__(self) -> None:
        check_shares(self.worst)

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
                not_measured(m, reason, status="not_applicable", **context)
                for m in (metric, f"{metric}_gap", _WORST)
            ]
        scored = {"seen": self._score(subject, seen), "unseen": self._score(subject, unseen)}
        sides = {which: found.sums for which, found in scored.items()}
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
                for m in (metric, f"{metric}_gap", _WORST)
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
        return [
            *findings,
            replace(gap, anchors={"clients_alike": 0.0}, detail={**gap.detail, **records}),
            *(
                _worst(found, which, share, resamples, rng, context)
                for which, found in scored.items()
                for share in self.worst
            ),
        ]

    def _score(self, subject: Subject, side: ClientRecords) -> "_Scored":
        rows = [rows for rows in side.rows if len(rows)]
        examples = side.examples.take(np.concatenate(rows))
        if subject.task.kind == "regression":
            outputs = subject.logits(examples.x)
            values, scores = moments(outputs[:, 0], examples.y), measure("regression", outputs, examples.y)[1]
        else:
            scores = subject.per_record(examples)[1]
            values = np.stack([np.ones_like(scores), scores], axis=1)
        sizes = np.array([len(part) for part in rows])
        sums = cluster_sums(values, np.repeat(np.arange(len(rows)), sizes))
        return _Scored(sums=sums, scores=scores, sizes=sizes)


class _Scored(NamedTuple):
    """``(clients, columns)`` sums that the figure follows from, of clients with records; scores client by client."""

    sums: Array
    scores: Array
    sizes: NDArray[np.int64]


def _worst(
    found: _Scored, which: str, share: float, resamples: int, rng: np.random.Generator, context: Provenance
) -> Finding:
    """Mean score of the worst share of the clients of one side, beside that of clients who are alike."""
    scope: Scope = {"where": {"clients": which, "share": share}, **context}
    kept = found.sizes >= SMALLEST_SHARD
    sizes, needed = found.sizes[kept], max(FEWEST_SHARDS, fewest_clients(share))
    if len(sizes) < needed:
        reason = f"{len(sizes)} clients have {SMALLEST_SHARD} records or more, {needed} are needed"
        return not_measured(_WORST, reason, status="insufficient", n=len(sizes), unit="clients", **scope)
    scores = found.scores[np.repeat(kept, found.sizes)]
    means = np.add.reduceat(scores, np.cumsum([0, *sizes[:-1]])) / sizes
    drawn = means[rng.integers(0, len(means), size=(resamples, len(means)))]
    finding = _estimate(
        _WORST,
        float(worst_share(means[None], share=share)[0]),
        worst_share(drawn, share=share),
        len(means),
        scope,
    )
    random = float(worst_share(alike(scores, sizes, rng), share=share).mean())
    return replace(finding, anchors={"clients_alike": random})


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
