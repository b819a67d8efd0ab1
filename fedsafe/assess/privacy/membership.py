"""Membership inference: does the model tell who was trained on?

The cheap tier thresholds losses; the full one trains shadow models, and follows losses over the run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.clients import SIMULATORS_VIEW, ClientRecords, Federation
from fedsafe.assess.performance.ranking import auc
from fedsafe.assess.privacy.lira import confidence, halves, likelihood_ratios
from fedsafe.assess.privacy.roc import Guarantee, at, figures, guarantee_of
from fedsafe.assess.privacy.shadows import Recipe, losses_of, recipe_of, train_shadows
from fedsafe.assess.privacy.threat import Threat, against_chance
from fedsafe.assess.privacy.trajectory import trajectory_scores
from fedsafe.assess.privacy.visible import visible_models
from fedsafe.data import Examples
from fedsafe.errors import ConfigError, ModelError
from fedsafe.findings import Finding, Scope, difference, newcombe, not_measured

Array = NDArray[np.float64]

_AUC, _RATE, _ADVANTAGE = "membership.auc", "membership.true_positive_rate", "membership.advantage"
_NEEDS = "members and non-members of one distribution: records of other clients are not of it"
THRESHOLD = Threat(
    attack="loss threshold",
    adversary="outsider",
    sees="the model, once",
    costs="one forward pass for each record; no training",
    needs=_NEEDS,
)
ONLINE = Threat(
    attack="LiRA online",
    adversary="outsider",
    sees="the model, once",
    costs="shadow models trained with and without each record, on records of the same distribution",
    needs=_NEEDS,
)
OFFLINE = Threat(
    attack="LiRA offline",
    adversary="outsider",
    sees="the model, once",
    costs="shadow models trained without the record, on records of the same distribution",
    needs=_NEEDS,
)
TRAJECTORY = Threat(
    attack="loss trajectory",
    adversary="client",
    sees="models of several rounds, as everyone who takes part does",
    costs="one forward pass for each record and model; membership of half of the records must be known",
    needs=_NEEDS,
)
_FEWEST = 30  # members, and non-members


@dataclass(frozen=True, kw_only=True)
class Membership:
    """Attacks on membership: a loss threshold (Yeom et al. 2018), LiRA (Carlini et al. 2022) and trajectories.

    Members are training records, non-members evaluation records. Every figure is a lower bound on what an attacker
    could do; the accounted epsilon bounds it from above, and stands beside it as an anchor (Kairouz, Oh and
    Viswanath, 2015).

    Attributes:
        rates: False positive rates at which the true positive rate is told.
        cheap: Members, and non-members, of the cheap tier, at most.
        full: Of the full tier, at most.
        shadows: Shadow models of the full tier, even; 0 leaves LiRA out.
        attacked: Members, and non-members, that LiRA attacks, at most.
        passes: Examples that pass through all shadow models in training, at most.

    Raises:
        ConfigError: An odd number of shadow models, or fewer than 4.
    """

    name: ClassVar[str] = "membership"
    rates: tuple[float, ...] = (0.01, 0.001)
    cheap: int = 20_000
    full: int = 100_000
    shadows: int = 32
    attacked: int = 10_000
    passes: int = 5_000_000

    def __post_init__(self) -> None:
        if self.shadows and (self.shadows < 4 or self.shadows % 2):
            raise ConfigError(f"shadows = {self.shadows}: use an even number of 4 or more, or 0 for none")

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Forward passes over members and non-members; in the full tier, the training of shadow models."""
        if subject.training is None:
            return Cost(description="nothing: the training records are not known")
        size = self.cheap if tier == "cheap" else self.full
        n = min(size, len(subject.evaluation))
        members = min(size, len(subject.training.held))
        repeats = 1 if subject.federation is None else 2
        losses = f"losses of {members} training and {n} other records"
        forward, backward = repeats * (members + n), 0
        if tier == "full" and subject.federation is not None:
            forward += (len(visible_models(subject)) - 1) * (members + n)
            pool = 2 * min(self.attacked, members, n)
            forward += (self.shadows + 1) * pool
            if self.shadows:
                recipe = self._recipe(subject, subject.federation, subject.training)
                backward = self.shadows * recipe.passes
                forward += backward
                losses += f"; {self.shadows} shadow models train for {recipe.training.steps} steps each"
        return Cost(description=losses, examples=n, forward=forward, backward=backward)

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        context: Scope = {
            "data": f"training records, and {subject.evaluation_name}",
            "released": SIMULATORS_VIEW,
        }
        if subject.training is None:
            reason = "the training records are not known here: only a simulation has them"
            return list(self._nothing(reason, "not_applicable", context))
        size = self.cheap if tier == "cheap" else self.full
        held = subject.training.held
        chosen = np.sort(rng.choice(held, size=min(size, len(held)), replace=False))
        inside, outside = subject.training.examples.take(chosen), subject.sample(size, rng)
        if min(len(inside), len(outside)) < _FEWEST:
            reason = f"{len(inside)} members and {len(outside)} others, {_FEWEST} of each are needed"
            return list(self._nothing(reason, "insufficient", context, n=len(outside), unit="non-members"))
        members, others = (-subject.per_record(part)[0] for part in (inside, outside))
        guarantee = guarantee_of(subject)
        anchors = self._before(subject, inside, outside)
        findings = figures(
            _AUC,
            _RATE,
            members,
            others,
            THRESHOLD,
            self.rates,
            context,
            guarantee=guarantee,
            anchors=anchors,
        )
        findings.append(_advantage(members, others, guarantee, context))
        if tier == "full" and subject.federation is not None:
            findings += self._trajectory(subject, inside, outside, rng, guarantee, context)
            if self.shadows:
                findings += self._lira(subject, subject.federation, subject.training, rng, guarantee, context)
        return findings

    def _nothing(self, reason: str, status: Any, context: Scope, **counted: Any) -> Iterator[Finding]:
        for metric, rate in ((_AUC, None), *((_RATE, rate) for rate in self.rates), (_ADVANTAGE, None)):
            detail = THRESHOLD.detail(f"Nothing is said: {reason}.")
            yield not_measured(
                metric, reason, status=status, detail=detail, **counted, **at(context, THRESHOLD, rate)
            )

    def _before(self, subject: Subject, inside: Examples, outside: Examples) -> dict[str, float]:
        """The same attack on the model before training, which knows no member: 0.5 if the records are alike."""
        if subject.federation is None:
            return {}
        initial = subject.with_parameters(subject.federation.initial)
        members, others = (-initial.per_record(part)[0] for part in (inside, outside))
        return {"before_training": auc(members, others)[0]}

    def _trajectory(
        self,
        subject: Subject,
        inside: Examples,
        outside: Examples,
        rng: np.random.Generator,
        guarantee: Guarantee | None,
        context: Scope,
    ) -> list[Finding]:
        models = visible_models(subject)
        members, others = (
            np.stack([model.per_record(part)[0] for model in models], axis=1) for part in (inside, outside)
        )
        scores, scores_of_others, *_ = trajectory_scores(members, others, rng)
        detail = {"models": len(models)}
        return figures(
            _AUC,
            _RATE,
            scores,
            scores_of_others,
            TRAJECTORY,
            self.rates,
            context,
            guarantee=guarantee,
            detail=detail,
        )

    def _recipe(self, subject: Subject, federation: Federation, training: ClientRecords) -> Recipe:
        # A shadow has half of the attacked records, as many as of these are members, and all others.
        held = len(training.held)
        clients = sum(len(rows) > 0 for rows in training.rows)
        return recipe_of(
            federation,
            max(1, subject.round),
            max(1, clients),
            held,
            self.passes // self.shadows,
        )

    def _lira(
        self,
        subject: Subject,
        federation: Federation,
        training: ClientRecords,
        rng: np.random.Generator,
        guarantee: Guarantee | None,
        context: Scope,
    ) -> list[Finding]:
        """Shadow models on halves of the attacked records, and all training records that are not attacked."""
        held = rng.permutation(training.held)
        size = min(self.attacked, len(held), len(subject.evaluation))
        members, rest = training.examples.take(held[:size]), training.examples.take(held[size:])
        pool = _joined(members, subject.sample(size, rng))
        inside = halves(self.shadows, len(pool), rng)
        always = len(pool) + np.arange(len(rest))
        recipe = self._recipe(subject, federation, training)
        models = train_shadows(
            subject,
            federation,
            _joined(pool, rest),
            [np.concatenate([np.flatnonzero(row), always]) for row in inside],
            recipe,
            rng,
        )
        kind = subject.task.kind
        target = confidence(kind, subject.per_record(pool)[0])
        try:
            shadows = confidence(kind, losses_of(subject, models, pool))
        except ModelError as error:
            reason = f"shadow models diverged: {error}"
            return [
                not_measured(
                    _AUC, reason, detail=threat.detail(f"Nothing is said: {reason}."), **at(context, threat)
                )
                for threat in (ONLINE, OFFLINE)
            ]
        detail = {"shadows": self.shadows, "training_of_a_shadow": recipe.to_detail()}
        found = []
        for threat in (ONLINE, OFFLINE):
            scores = likelihood_ratios(target, shadows, inside, online=threat is ONLINE)
            found += figures(
                _AUC,
                _RATE,
                scores[:size],
                scores[size:],
                threat,
                self.rates,
                context,
                guarantee=guarantee,
                detail=detail,
            )
        return found


def _joined(first: Examples, second: Examples) -> Examples:
    return Examples(x=np.concatenate([first.x, second.x]), y=np.concatenate([first.y, second.y]))


def _advantage(members: Array, others: Array, guarantee: Guarantee | None, context: Scope) -> Finding:
    """The rule that needs no calibration: a loss at most the members' mean (Yeom et al., 2018)."""
    threshold = members.mean()
    anchors: dict[str, float | None] = {"chance": 0.0}
    if guarantee is not None:
        epsilon, delta = guarantee
        anchors["accounted"] = float(np.tanh(epsilon / 2) + 2 * delta / (1 + np.exp(epsilon)))
    counts = (int(np.sum(members >= threshold)), len(members), int(np.sum(others >= threshold)), len(others))
    gap = 100 * (counts[0] / counts[1] - counts[2] / counts[3])
    statement = against_chance(
        f"mean training loss as a threshold accuses {gap:.1f} points more of the members than of the non-members",
        newcombe(*counts),
        0.0,
    )
    return difference(
        _ADVANTAGE,
        *counts,
        unit="records",
        bound="lower",
        anchors=anchors,
        detail=THRESHOLD.detail(statement),
        **at(context, THRESHOLD),
    )
