"""Ratification: what randomised votes say of how many agree, in all and in each group, and who does not."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedsafe.alignment.voting import Ballot
from fedsafe.errors import ConfigError
from fedsafe.findings import Interval, clopper_pearson
from fedsafe.privacy.claim import Claim

UNKNOWN_RANDOMNESS = "not known: whoever counts votes does not see how voters randomised them"

Status = Literal["ratified", "rejected", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many of some voters agree.

    Attributes:
        votes: Randomised answers.
        agree: The unbiased estimate; by the noise it may leave [0, 1].
        variance: Of the estimate, at most.
        interval: Of the true share, in [0, 1].
        confidence: Of the interval.
    """

    votes: int
    agree: float | None
    variance: float | None
    interval: Interval
    confidence: float


def tally(agreeing: int, votes: int, ballot: Ballot, confidence: float = 0.95) -> Tally:
    """The share that agrees, from randomised answers.

    With p the probability that an answer is kept and q that of each other one, a share s of true agreement gives
    answers that agree with probability ``q + (p - q) s``: solved for s, the observed share is unbiased. The interval is
    Clopper and Pearson's (1934) for that probability, solved likewise: it covers the truth at its level whatever the
    share is, 0 and 1 included, both for the people who were asked and for those whom they were drawn from (answers of
    given people vary less than those of drawn ones; Hoeffding, 1956). It is never a point: more or fewer answers than
    the share 1 or 0 leads to on average count as so many.

    Args:
        agreeing: Answers that agree.
        votes: All answers; none gives the interval (0, 1).
        ballot: How they were randomised.
        confidence: Two-sided.

    Raises:
        ConfigError: Not 0 <= agreeing <= votes.
    """
    clopper_pearson(agreeing, votes, confidence)  # refuses impossible counts
    kept = ballot.keeping
    other = (1 - kept) / (len(ballot.opinions) - 1)
    slope = kept - other
    if slope <= 0:
        raise ConfigError(
            f"an epsilon of {ballot.epsilon / ballot.each:g} for a question leaves nothing to count"
        )
    if votes == 0:
        return Tally(votes=0, agree=None, variance=None, interval=(0.0, 1.0), confidence=confidence)
    share = agreeing / votes
    # Counts that no true share leads to on average count as the nearest that one does: a wider interval, and no point.
    near = min(max(agreeing, math.floor(other * votes)), math.ceil(kept * votes))
    low, high = clopper_pearson(near, votes, confidence)
    return Tally(
        votes=votes,
        agree=(share - other) / slope,
        variance=share * (1 - share) / votes / slope**2,
        interval=(_cut((low - other) / slope), _cut((high - other) / slope)),
        confidence=confidence,
    )


@dataclass(frozen=True, kw_only=True)
class Ratified:
    """What a vote says of one principle.

    Attributes:
        id: Of the principle.
        digest: What it said when it was voted on.
        status: "ratified" where the least that any group agrees is surely more than the threshold, "rejected" where the
            least is surely not, else "undecided".
        everybody: Over all voters.
        groups: By group; empty without groups. Their intervals hold together.
        product: Group-informed consensus: the product of the groups' shares, and its interval (Small and others, 2021:
            Polis); of everybody's share where there are no groups.
        least: The share of the group that agrees least, and its interval.
        minority: Groups that surely agree less than the threshold.
        threshold: What a share has to exceed.
    """

    id: str
    digest: str
    status: Status
    everybody: Tally
    groups: Mapping[str, Tally]
    product: tuple[float, Interval] | None
    least: tuple[float, Interval] | None
    minority: Sequence[str]
    threshold: float

    def to_table(self, epsilon: float, voters: int) -> dict[str, Any]:
        """What a constitution's `ratified_by` says."""
        low, high = self.everybody.interval
        table: dict[str, Any] = {
            "status": self.status,
            "voters": voters,
            "votes": self.everybody.votes,
            "local_epsilon": float(epsilon),
            "threshold": self.threshold,
            "confidence": self.everybody.confidence,
        }
        if self.everybody.agree is not None:
            table["agree"] = _short(_cut(self.everybody.agree))
        table |= {"low": _short(low), "high": _short(high)}
        if self.groups and self.product is not None and self.least is not None:
            table |= {"consensus": _short(self.product[0]), "least_group": _short(self.least[0])}
            table["minority"] = list(self.minority)
        return {**table, "digest": self.digest}


@dataclass(frozen=True, kw_only=True)
class Ratification:
    """A whole vote.

    Attributes:
        principles: By the order of the ballot.
        voters: Who voted.
        claim: What may be said of each voter's privacy.
    """

    principles: Sequence[Ratified]
    voters: int
    claim: Claim


def ratify(
    ballot: Ballot,
    asked: NDArray[np.int64],
    answers: NDArray[np.int64],
    *,
    groups: ArrayLike | None = None,
    threshold: float = 0.5,
    confidence: float = 0.95,
    randomness: str = UNKNOWN_RANDOMNESS,
) -> Ratification:
    """Counts randomised votes.

    A principle's verdict is reached at the confidence for all of its groups together (Bonferroni); over several
    principles it is each one's own.

    Args:
        ballot: What was asked.
        asked: ``(voters, each)`` positions of the questions.
        answers: ``(voters, each)`` positions of the randomised opinions.
        groups: ``(voters,)`` the group of each voter, which is public here; None for none.
        threshold: What the share that agrees has to exceed, in (0, 1).
        confidence: Two-sided.
        randomness: Where the voters' noise comes from, for the claim, by whoever knows.

    Raises:
        ConfigError: The votes are not of this form.
    """
    if asked.shape != answers.shape or asked.ndim != 2 or asked.shape[1] != ballot.each:
        raise ConfigError(f"votes are (voters, {ballot.each}), not {asked.shape} and {answers.shape}")
    if not len(asked):
        raise ConfigError("there is no vote to count")
    if not 0 < threshold < 1:
        raise ConfigError(f"the threshold is {threshold!r}; it is a share between 0 and 1, e.g. 0.5")
    for what, values, most in (
        ("question", asked, len(ballot.questions)),
        ("answer", answers, len(ballot.opinions)),
    ):
        if not 0 <= values.min() <= values.max() < most:
            wrong = values.max() if values.max() >= most else values.min()
            raise ConfigError(f"a vote has {what} {wrong}; they are counted from 0 to {most - 1}")
    in_order = np.sort(asked, axis=1)
    twice = np.flatnonzero((in_order[:, 1:] == in_order[:, :-1]).any(axis=1))
    if len(twice):
        raise ConfigError(
            f"voter {twice[0] + 1} answers one question more than once: {asked[twice[0]].tolist()}; each has "
            f"{ballot.each} different ones"
        )
    names = None if groups is None else np.asarray(groups).astype(str)
    if names is not None and names.shape != (len(asked),):
        raise ConfigError(f"there are {len(asked)} voters and groups of {names.shape}")
    found = []
    for question, (name, digest) in enumerate(zip(ballot.questions, ballot.digests, strict=True)):
        here = asked == question
        agrees = here & (answers == 0)
        everybody = tally(int(agrees.sum()), int(here.sum()), ballot, confidence)
        own: dict[str, Tally] = {}
        if names is not None:
            labels = np.unique(names)
            strict = 1 - (1 - confidence) / len(labels)
            for label in labels:
                rows = names == label
                own[str(label)] = tally(int(agrees[rows].sum()), int(here[rows].sum()), ballot, strict)
        found.append(_judged(name, digest, everybody, own, threshold))
    return Ratification(
        principles=found, voters=len(asked), claim=claim_of(ballot, randomness, names is not None)
    )


def _judged(
    name: str, digest: str, everybody: Tally, groups: Mapping[str, Tally], threshold: float
) -> Ratified:
    parts = list(groups.values()) or [everybody]
    low, high = min(part.interval[0] for part in parts), min(part.interval[1] for part in parts)
    status: Status = "ratified" if low > threshold else "rejected" if high <= threshold else "undecided"
    product = least = None
    shares = [part.agree for part in parts if part.agree is not None]
    if len(shares) == len(parts):
        cut = [_cut(share) for share in shares]
        ends = [float(np.prod([part.interval[end] for part in parts])) for end in (0, 1)]
        product = float(np.prod(cut)), (ends[0], ends[1])
        least = min(cut), (low, high)
    return Ratified(
        id=name,
        digest=digest,
        status=status,
        everybody=everybody,
        groups=groups,
        product=product,
        least=least,
        minority=tuple(label for label, part in groups.items() if part.interval[1] < threshold),
        threshold=threshold,
    )


def claim_of(ballot: Ballot, randomness: str, grouped: bool) -> Claim:
    """What a ballot claims for each voter."""
    opinions = len(ballot.opinions)
    group = ("a voter's group, which is counted as public",) if grouped else ()
    return Claim(
        unit="client",
        epsilon=float(ballot.epsilon),
        delta=0.0,
        adjacency="replace-one: all opinions of a voter become any others",
        adversary="everybody, the server included: each vote is randomised where the voter is",
        cohort_secret=False,
        release="every randomised vote",
        sampler=f"{ballot.each} of {len(ballot.questions)} questions for each voter, drawn apart from her opinions",
        accountant=f"randomised response on {opinions} answers, pure epsilon {ballot.epsilon / ballot.each:g} a "
        "question, added up",
        horizon="one vote; votes again, on whatever is asked then, add their epsilon",
        regime="planned",
        randomness=randomness,
        arithmetic="integers of 64 bits; probabilities rounded towards less of the truth",
        assumptions=("one vote for each person", "each voter's key stays hers, and is used once"),
        not_covered=("that somebody voted, and on which questions", *group),
    )


def _cut(value: float) -> float:
    return min(1.0, max(0.0, value))


def _short(value: float) -> float:
    return float(f"{value:.4f}")
