"""What parameters that stay with a person give her: each person's own reward beside the one that all share."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsafe.alignment.rewards import personal_outputs, reconstruct
from fedsafe.assess.alignment.judged import (
    FEW,
    agreement,
    clusters_of_pairs,
    counted,
    margins,
    ratio,
    resampled,
    why_not,
)
from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.clients import SIMULATORS_VIEW, ClientRecords
from fedsafe.assess.performance.evenness import SMALLEST_SHARD, worst_tenth
from fedsafe.findings import Finding, Provenance, bounded_mean, estimate, not_measured, percentile

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_ACCURACY, _GAIN, _WORST = (
    f"personal_alignment.{name}" for name in ("accuracy", "gain", "worst_decile_accuracy")
)
_FEWEST = 10
_STEPS = 60  # those of `reconstruct`


@dataclass(frozen=True, kw_only=True)
class PersonalAlignment:
    """Pairwise accuracy where each person's local parameters are found again from her training pairs.

    The people are those of the evaluation pairs who train as clients of their own. What is found never leaves a client;
    here it is a simulator's view.
    """

    name: ClassVar[str] = "personal_alignment"

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Training of every client's local parameters, and a forward pass over the pairs."""
        if _missing(subject) or subject.training is None:
            return Cost(description=f"nothing: {_missing(subject)}")
        held, n = len(subject.training.held), len(subject.evaluation)
        return Cost(
            description=f"{len(subject.training)} clients find their own parameters in {_STEPS} steps",
            examples=n,
            forward=_STEPS * held + 2 * n,
            backward=_STEPS * held,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        context: Provenance = {
            "data": f"the clients' training records, and {subject.evaluation_name}",
            "released": SIMULATORS_VIEW,
        }
        reason, known = _missing(subject), subject.task.preferences
        training, federation = subject.training, subject.federation
        if reason or known is None or training is None or federation is None:
            return [
                not_measured(m, reason, status="not_applicable", **context)
                for m in (_ACCURACY, _GAIN, _WORST)
            ]
        clients = client_of(training)
        owners = np.array([clients.get(str(name), -1) for name in known.annotators], np.int64)
        rows = np.flatnonzero((owners >= 0) & (subject.evaluation.y < 2))
        if len(rows) < _FEWEST:
            reason = f"{len(rows)} decided pairs are of people who train as clients of their own, {_FEWEST} are needed"
            return [
                not_measured(m, reason, status="insufficient", n=len(rows), unit="pairs", **context)
                for m in (_ACCURACY, _GAIN, _WORST)
            ]
        parameters = reconstruct(
            subject.model,
            subject.task.kind,
            training.examples,
            training.rows,
            local=federation.local,
            objective=federation.objective,
            trainer=federation.trainer,
        )
        x, y = subject.evaluation.x[rows], subject.evaluation.y[rows]
        own = agreement(margins(personal_outputs(subject.model, parameters, x, owners[rows])), y)
        shared = agreement(margins(subject.logits(x)), y)
        people = np.unique(owners[rows], return_inverse=True)[1].reshape(-1).astype(np.int64)
        clusters = clusters_of_pairs(people, known.first[rows], known.second[rows])
        resamples = 500 if tier == "cheap" else 2000
        detail = {"local": list(federation.local), "annotators": int(people.max()) + 1}
        notes = {"interval": clusters.note} if clusters.note else {}
        findings = []
        for metric, values, bounds, anchors in (
            (_ACCURACY, own, (0.0, 1.0), {"chance": 0.5, "shared": float(shared.mean())}),
            (_GAIN, own - shared, (-1.0, 1.0), {"shared": 0.0}),
        ):
            found = resampled(ratio, counted(values), clusters, rng, resamples, bounds=bounds)
            findings.append(
                estimate(
                    metric,
                    found.value,
                    interval=found.interval,
                    method=found.method,
                    n=len(rows),
                    unit="pairs",
                    anchors=anchors,
                    diagnostics=notes,
                    detail=detail,
                    **context,
                )
            )
        return [*findings, _worst(own, shared, people, rng, resamples, context)]


def _worst(
    own: Array, shared: Array, people: Indices, rng: np.random.Generator, resamples: int, context: Provenance
) -> Finding:
    number = np.bincount(people)
    kept = number >= SMALLEST_SHARD
    if kept.sum() < FEW:
        reason = f"{kept.sum()} people have {SMALLEST_SHARD} pairs or more, {FEW} are needed"
        return not_measured(
            _WORST, reason, status="insufficient", n=int(kept.sum()), unit="annotators", **context
        )
    means, before = ((np.bincount(people, weights=part) / number)[kept] for part in (own, shared))
    drawn = means[rng.integers(0, len(means), size=(resamples, len(means)))]
    interval, method = percentile(worst_tenth(drawn)), "bootstrap over annotators"
    if np.ptp(means) < 1e-12:  # alike people are no proof that others are
        interval, method = bounded_mean(means, 0.0, 1.0)
    return estimate(
        _WORST,
        float(worst_tenth(means[None])[0]),
        interval=interval,
        method=method,
        n=len(means),
        unit="annotators",
        anchors={"chance": 0.5, "shared": float(worst_tenth(before[None])[0])},
        **context,
    )


def client_of(training: ClientRecords) -> dict[str, int]:
    """The client of each person who trains as a client of her own: all its records are hers."""
    holders = training.examples.holders.get("annotator")
    if holders is None:
        return {}
    found = {}
    for client, rows in enumerate(training.rows):
        names = np.unique(holders[rows])
        if len(names) == 1:
            found[str(names[0])] = client
    return found


def _missing(subject: Subject) -> str:
    """What there is none of; "" where nothing is missing."""
    if why_not(subject):
        return why_not(subject)
    if subject.training is None or subject.federation is None:
        return "how the clients train, and on what, is not known here: only a simulation knows it"
    if not subject.federation.local:
        return "no parameter stays with a client (client.local)"
    if not client_of(subject.training):
        return "no client is one person (federation.partition by annotator)"
    return ""
