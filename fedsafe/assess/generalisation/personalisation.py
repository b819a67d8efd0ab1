"""What a client could have had alone, or by fine-tuning: local models beside the global one."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.clients import SIMULATORS_VIEW
from fedsafe.assess.generalisation.local_models import own_budget, own_scores, train_alone
from fedsafe.assess.performance.evenness import worst_tenth
from fedsafe.findings import Finding, Provenance, Scope, estimate, not_measured, percentile

Array = NDArray[np.float64]

_MEAN, _WORST, _GAIN = (f"personalisation.{name}" for name in ("mean_score", "worst_decile_score", "gain"))
_SMALLEST = 10  # records of its own that a client needs; below, its score is mostly chance
_FEWEST = 20  # clients, for a worst tenth of more than one
_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Personalisation:
    """Scores of the global model, of models trained by one client alone, and of the global one fine-tuned.

    A local model starts from the initial parameters and takes the steps of as many rounds as a client takes part in,
    with the run's rate, clip and noise; a fine-tuned one takes the steps of some rounds from the global model (Yu,
    Bagdasaryan and Shmatikov, 2020). Each is judged on records of its client that it does not train on. The random
    numbers are public, and none is the run's: these models are never released.

    Attributes:
        rounds: Rounds of fine-tuning.
        cheap: Clients of the cheap tier, at most.
        full: Clients of the full tier, at most.
    """

    name: ClassVar[str] = "personalisation"
    rounds: int = 1
    cheap: int = 50
    full: int = 300

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Local training of some clients, twice."""
        clients = len(_able(subject)) if not _missing(subject) else 0
        federation = subject.federation
        if federation is None or not clients:
            return Cost(
                description=f"nothing: {_missing(subject) or 'no client has enough records of its own'}"
            )
        clients = min(clients, self.cheap if tier == "cheap" else self.full)
        training, records = federation.training, subject.training
        steps = training.steps * (federation.participations + self.rounds)
        mean = len(records.held) / len(records) if records is not None else 0.0
        passes = int(clients * steps * training.rate * mean)
        return Cost(
            description=f"{clients} clients train alone for {steps} steps each",
            forward=passes,
            backward=passes,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        context: Provenance = {
            "data": "the clients' training records, and others of their own",
            "released": SIMULATORS_VIEW,
        }
        reason, federation, records = _missing(subject), subject.federation, subject.training
        if reason or federation is None or records is None or federation.own is None:
            return [
                not_measured(m, reason, status="not_applicable", **context) for m in (_MEAN, _WORST, _GAIN)
            ]
        able = _able(subject)
        if len(able) < _FEWEST:
            reason = f"{len(able)} clients have {_SMALLEST} records of their own, {_FEWEST} are needed"
            return [
                not_measured(m, reason, status="insufficient", n=len(able), unit="clients", **context)
                for m in (_MEAN, _WORST, _GAIN)
            ]
        size = min(len(able), self.cheap if tier == "cheap" else self.full)
        chosen = np.sort(rng.choice(able, size=size, replace=False))
        current = torch.nn.utils.parameters_to_vector(
            [p for p in subject.model.parameters() if p.requires_grad]
        )
        now = current.detach().float().cpu().numpy()
        lengths = {"local": federation.participations, "fine_tuned": self.rounds}
        starts = {"local": federation.initial, "fine_tuned": now}
        scores = {"global": own_scores(subject, federation.own, chosen, np.tile(now, (size, 1)))}
        for which, rounds in lengths.items():
            trained = train_alone(subject, federation, records, chosen, starts[which], rounds, rng)
            scores[which] = own_scores(subject, federation.own, chosen, trained)
        drawn = rng.integers(0, size, size=(_RESAMPLES, size))
        budget = {
            which: own_budget(federation, rounds, fine_tuned=which == "fine_tuned")
            for which, rounds in lengths.items()
        }
        findings = []
        for which, values in scores.items():
            scope: Scope = {"where": {"model": which}, **context}
            detail = budget.get(which, {})
            for metric, figure in ((_MEAN, _average), (_WORST, worst_tenth)):
                anchors = {} if which == "global" else {"global": float(figure(scores["global"][None])[0])}
                findings.append(
                    estimate(
                        metric,
                        float(figure(values[None])[0]),
                        interval=percentile(figure(values[drawn])),
                        method="bootstrap over clients",
                        n=size,
                        unit="clients",
                        anchors=anchors,
                        detail=detail,
                        **scope,
                    )
                )
            if which != "global":
                gain = values - scores["global"]
                findings.append(
                    estimate(
                        _GAIN,
                        float(gain.mean()),
                        interval=percentile(gain[drawn].mean(axis=1)),
                        method="bootstrap over clients, in pairs",
                        n=size,
                        unit="clients",
                        anchors={"global": 0.0},
                        detail={**detail, "clients_that_gain": float(np.mean(gain > 0))},
                        **scope,
                    )
                )
        return findings


def _average(scores: Array) -> Array:
    return np.asarray(scores.mean(axis=1))


def _able(subject: Subject) -> NDArray[np.int64]:
    """Clients with records to train on, and enough others of their own."""
    own = None if subject.federation is None else subject.federation.own
    if own is None or subject.training is None:
        return np.zeros(0, np.int64)
    pairs = zip(subject.training.rows, own.rows, strict=True)
    return np.flatnonzero([len(train) > 0 and len(judge) >= _SMALLEST for train, judge in pairs])


def _missing(subject: Subject) -> str:
    """What a comparison lacks; "" where nothing."""
    if subject.federation is None or subject.training is None:
        return "how the clients train, and on what, is not known here: only a simulation knows it"
    if subject.federation.own is None:
        return "no client has records of its own to judge on (federation.client_validation)"
    return ""
