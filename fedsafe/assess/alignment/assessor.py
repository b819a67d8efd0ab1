"""How far a model of preferences agrees with people, with whom, and with what besides."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedsafe.assess.alignment.accuracy import accuracy
from fedsafe.assess.alignment.best_of_n import best_of_n
from fedsafe.assess.alignment.ceiling import ceiling
from fedsafe.assess.alignment.confidence import confidence
from fedsafe.assess.alignment.groups import group_accuracies
from fedsafe.assess.alignment.judged import judge, why_not
from fedsafe.assess.alignment.people import worst_people
from fedsafe.assess.alignment.probes import length, position
from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.findings import Finding, not_measured

_FEWEST = 10


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Pairwise accuracy of all, of groups and of the worst tenth of the people, beside what people foretell.

    Further: calibration of ``sigma(r_first - r_second)``, leanings to a place or to length, and the best of n by
    reward. An interval comes from drawing people, whose pairs are alike, unless its finding says otherwise.

    Attributes:
        cheap: Pairs whose items change places in the cheap tier, at most.
        full: In the full tier.
    """

    name: ClassVar[str] = "alignment"
    cheap: int = 5000
    full: int = 100_000

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """One forward pass over the pairs, and one over pairs whose items have changed places."""
        if why_not(subject):
            return Cost(description=f"nothing: {why_not(subject)}")
        n = len(subject.evaluation)
        swapped = min(n, self.cheap if tier == "cheap" else self.full)
        return Cost(
            description=f"preferences of {n} pairs, {swapped} of them with places changed",
            examples=n,
            forward=n + swapped,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        reason, preferences, context = why_not(subject), subject.task.preferences, subject.provenance
        if reason or preferences is None:
            return [not_measured("alignment.accuracy", reason, status="not_applicable", **context)]
        judged = judge(subject, preferences)
        if len(judged.decided) < _FEWEST:
            reason = f"{len(judged.decided)} pairs are no tie, {_FEWEST} are needed"
            return [
                not_measured(
                    "alignment.accuracy",
                    reason,
                    status="insufficient",
                    n=len(judged.decided),
                    unit="pairs",
                    **context,
                )
            ]
        resamples = 500 if tier == "cheap" else 2000
        named, swapped = subject.shows_records, self.cheap if tier == "cheap" else self.full
        rows = subject.shared_rows(swapped)
        return [
            *accuracy(judged, rng, resamples, named=named, context=context),
            *ceiling(judged, rng, resamples, context),
            *worst_people(judged, rng, resamples, named=named, context=context),
            *group_accuracies(judged, rng, resamples, context),
            *confidence(judged, rng, resamples, context),
            *position(subject, judged, rows, rng, resamples, context),
            *length(judged, rng, resamples, context),
            *best_of_n(subject, judged, rng, resamples // 2, context),
        ]
