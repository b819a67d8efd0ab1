"""Attacks on whole clients: whether one took part, from broadcast models; and whose an upload is, from uploads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.clients import SIMULATORS_VIEW, ClientRecords, Federation
from fedsafe.assess.privacy.client_scores import (
    centred,
    cosines,
    fall_of_losses,
    gradients,
    known_records,
)
from fedsafe.assess.privacy.roc import Guarantee, at, figures, guarantee_of
from fedsafe.assess.privacy.threat import Threat
from fedsafe.assess.privacy.uploads import parameters_of, updates
from fedsafe.assess.privacy.visible import visible_models
from fedsafe.findings import Finding, Scope, not_measured

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_AUC, _RATE = "client_membership.auc", "client_membership.true_positive_rate"
_HAS = "some records of the client"
_NEEDS = "clients that took part and clients that did not, cut by one rule"
FALL = Threat(
    attack="fall of a client's loss",
    adversary="outsider",
    sees="the model before training, and the judged one",
    costs=f"two forward passes; {_HAS} must be known",
    needs=_NEEDS,
)
COURSE = Threat(
    attack="loss trajectory of a client",
    adversary="client",
    sees="models of several rounds, as everyone who takes part does",
    costs=f"one forward pass for each model; {_HAS} must be known",
    needs=_NEEDS,
)
DIRECTION = Threat(
    attack="direction of the model",
    adversary="outsider",
    sees="two broadcast models",
    costs=f"one gradient for each client; {_HAS} must be known",
    needs=_NEEDS,
)
UPLOADS = Threat(
    attack="cosine with uploads",
    adversary="server",
    sees="each client's upload of one round, before any sum or noise of the client level",
    costs="one gradient for each client; records of the client that it did not train on must be known",
    needs="clients that differ: of clients of one distribution, an upload tells little",
)
_UNITS = ("clients", "members", "non-members")
_PAIRS = ("pairs", "right pairs", "wrong pairs")
_SMALLEST = 5  # records of a client that the adversary has
_FEWEST = 5  # clients, on each side


@dataclass(frozen=True, kw_only=True)
class ClientMembership:
    """Whether a whole client took part, and whose an upload is (Nasr, Shokri and Houmansadr 2019; Hu et al. 2021).

    Members are clients that train, non-members clients that took no part; members' known records are those that they
    train on. The cosine with uploads asks another question: which of two uploads of the next round is a client's, by
    records that it does not train on. What canary clients prove of the noised sum, the bracket [audited, accounted]
    (Andrew et al. 2024), is the audit's, see `fedsafe.audit`.

    Attributes:
        rates: False positive rates at which the true positive rate is told.
        clients: Clients of each side, at most.
        records: Known records of each client, at most.
        uploads: Clients whose uploads are made, in the full tier, at most.
    """

    name: ClassVar[str] = "client_membership"
    rates: tuple[float, ...] = (0.1, 0.01)
    clients: int = 300
    records: int = 50
    uploads: int = 100

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Forward passes over known records; in the full tier their gradients, and one round of some clients."""
        members, others, reason = self._sides(subject)
        if reason:
            return Cost(description=f"nothing: {reason}")
        read = self._read(subject.training, members) + self._read(subject.unseen, others)
        if tier == "cheap":
            return Cost(description=f"losses of {read} records of clients", forward=2 * read)
        models = len(visible_models(subject))
        return Cost(
            description=f"losses and gradients of {read} records of clients, and uploads of {self.uploads} clients",
            forward=(models + 1) * read + self.uploads * self.records,
            backward=read + self.uploads * self.records,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        context: Scope = {"data": "records of clients", "released": SIMULATORS_VIEW}
        members, others, reason = self._sides(subject)
        federation, training, unseen = subject.federation, subject.training, subject.unseen
        if reason or federation is None or training is None or unseen is None:
            return list(self._nothing(FALL, reason, "not_applicable", context))
        if min(len(members), len(others)) < _FEWEST:
            reason = (
                f"{len(members)} clients that took part and {len(others)} that did not have {_SMALLEST} records, "
                f"{_FEWEST} of each are needed"
            )
            return list(self._nothing(FALL, reason, "insufficient", context))
        members, others = (
            np.sort(rng.choice(side, size=min(len(side), self.clients), replace=False))
            for side in (members, others)
        )
        known = known_records(training, members, self.records, rng)
        known += known_records(unseen, others, self.records, rng)
        models = visible_models(subject)
        models = models if tier == "full" else [models[0], models[-1]]
        fall, course = fall_of_losses(models, known)
        guarantee = guarantee_of(subject, "client")
        count = len(members)
        findings = self._figures(fall, count, FALL, guarantee, context)
        if tier == "full":
            further = {"models": len(models)}
            if len(models) > 2:
                findings += self._figures(course, count, COURSE, guarantee, context, further)
            else:
                reason = "two models are at hand, whose course is the fall of the loss"
                findings += self._nothing(COURSE, reason, "not_applicable", context)
            before = models[-2]
            moved = parameters_of(before.model).astype(np.float64) - parameters_of(subject.model)
            own = gradients(before, federation, known)
            along = cosines(centred(own), np.broadcast_to(moved, own.shape))
            findings += self._figures(along, count, DIRECTION, guarantee, context)
            findings += self._uploads(subject, federation, training, rng, context)
        return findings

    def _figures(
        self,
        scores: Array,
        count: int,
        threat: Threat,
        guarantee: Guarantee | None,
        context: Scope,
        further: dict[str, Any] | None = None,
    ) -> list[Finding]:
        return figures(
            _AUC,
            _RATE,
            scores[:count],
            scores[count:],
            threat,
            self.rates,
            context,
            guarantee=guarantee,
            units=_UNITS,
            detail=further,
        )

    def _uploads(
        self,
        subject: Subject,
        federation: Federation,
        training: ClientRecords,
        rng: np.random.Generator,
        context: Scope,
    ) -> list[Finding]:
        """Right pairs of a client's upload and its other records, and pairs with the upload of another client."""
        own = federation.own
        if own is None:
            reason = "no client has records that it does not train on (federation.client_validation)"
            return list(self._nothing(UPLOADS, reason, "not_applicable", context))
        able = np.flatnonzero(
            [
                len(rows) > 0 and len(other) >= _SMALLEST
                for rows, other in zip(training.rows, own.rows, strict=True)
            ]
        )
        if len(able) < 2 * _FEWEST:
            reason = f"{len(able)} clients have {_SMALLEST} records besides, {2 * _FEWEST} are needed"
            return list(self._nothing(UPLOADS, reason, "insufficient", context))
        chosen = rng.choice(able, size=min(len(able), self.uploads), replace=False)
        rows = [training.rows[int(client)] for client in chosen]
        sent = centred(updates(subject, federation, training.examples, rows, federation.training, rng))
        expected = centred(gradients(subject, federation, known_records(own, chosen, self.records, rng)))
        right, wrong = cosines(sent, expected), cosines(np.roll(sent, 1, axis=0), expected)
        return figures(
            _AUC,
            _RATE,
            right,
            wrong,
            UPLOADS,
            self.rates,
            context,
            units=_PAIRS,
            detail={
                "steps": federation.training.steps,
                "clip": federation.training.clip,
                "noise_multiplier": federation.training.noise,
            },
        )

    def _nothing(self, threat: Threat, reason: str, status: Any, context: Scope) -> Iterator[Finding]:
        for metric, rate in ((_AUC, None), *((_RATE, rate) for rate in self.rates)):
            detail = threat.detail(f"Nothing is said: {reason}.")
            yield not_measured(metric, reason, status=status, detail=detail, **at(context, threat, rate))

    @staticmethod
    def _sides(subject: Subject) -> tuple[Indices, Indices, str]:
        """Clients with enough records that took part, and that did not; and why there is nothing to compare."""
        none = np.zeros(0, np.int64)
        if subject.federation is None or subject.training is None:
            return none, none, "who took part is not known here: only a simulation knows it"
        if subject.unseen is None:
            return (
                none,
                none,
                "no client is known that took no part: federation.held_out with data.evaluation = 'held_out_clients'",
            )
        return _able(subject.training), _able(subject.unseen), ""

    def _read(self, part: ClientRecords | None, clients: Indices) -> int:
        if part is None:
            return 0
        sizes = sorted((min(self.records, len(part.rows[int(c)])) for c in clients), reverse=True)
        return sum(sizes[: self.clients])


def _able(part: ClientRecords) -> Indices:
    return np.flatnonzero([len(rows) >= _SMALLEST for rows in part.rows])
