"""Votes that protect themselves: what leaves a voter is randomised where she is, and nobody is trusted with the truth.

Randomised response (Warner, 1965) on k answers: the true one is kept with probability ``e^eps / (e^eps + k - 1)``, and
each other one is given with the same small probability (Kairouz, Bonawitz and Ramage, 2016). Whatever else anybody
knows, and whoever sees the answer, no opinion makes it more than ``e^eps`` times as likely as another.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedsafe.alignment.constitution import Constitution
from fedsafe.errors import ConfigError
from fedsafe.rng import Stream, StreamId, new_key, words_of

Opinion = Literal["agree", "disagree", "pass"]

OPINIONS: tuple[str, ...] = get_args(Opinion)
_WORDS_PER_VOTE = 2


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """What is asked, and how each voter answers it.

    Each voter answers `each` of the questions, which are drawn for her whatever she thinks, and her epsilon is split
    evenly over them. One question of the whole epsilon tells more than many of a part of it: with K questions, the
    variance of a tally is about K / epsilon^2 against K^2 / epsilon^2, for as many voters.

    Attributes:
        questions: Ids of the principles.
        digests: What each says, see `Article.digest`.
        epsilon: Of everything that a voter sends, pure (delta is 0).
        each: Questions that a voter answers.
        passing: Whether "pass" is an answer, too.

    Raises:
        ConfigError: There is no question, or a number is out of range.
    """

    questions: Sequence[str]
    digests: Sequence[str]
    epsilon: float = 1.0
    each: int = 1
    passing: bool = False

    def __post_init__(self) -> None:
        if not self.questions or len(self.questions) != len(self.digests):
            raise ConfigError("a ballot needs a question at least, and what each says")
        epsilon = self.epsilon
        number = isinstance(epsilon, int | float) and not isinstance(epsilon, bool)
        if not number or not 1e-3 <= epsilon <= 20:
            raise ConfigError(
                f"a voter's epsilon is {epsilon!r}; it lies between 0.001 and 20 (1 flips 27 % of yes and no)"
            )
        if (
            isinstance(self.each, bool)
            or not isinstance(self.each, int)
            or not 1 <= self.each <= len(self.questions)
        ):
            raise ConfigError(
                f"each voter answers {self.each!r} questions, but there are {len(self.questions)} principles"
            )

    @classmethod
    def of(
        cls, constitution: Constitution, *, epsilon: float = 1.0, each: int = 1, passing: bool = False
    ) -> "Ballot":
        """The ballot on all principles of a constitution."""
        return cls(
            questions=tuple(article.id for article in constitution.articles),
            digests=tuple(article.digest for article in constitution.articles),
            epsilon=epsilon,
            each=each,
            passing=passing,
        )

    @property
    def opinions(self) -> tuple[str, ...]:
        """The answers there are."""
        return OPINIONS if self.passing else OPINIONS[:2]

    @property
    def keeping(self) -> float:
        """The probability with which an answer is the true one, rounded down to what is drawn exactly."""
        return _kept_of(self.epsilon / self.each, len(self.opinions)) / 2.0**64

    @property
    def digest(self) -> bytes:
        """Of what is asked and how, for the streams of randomness."""
        return repr(
            (tuple(self.questions), tuple(self.digests), self.epsilon, self.each, self.passing)
        ).encode()


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What a voter sends: randomised answers and nothing else.

    Attributes:
        questions: ``(each,)`` positions of the questions, drawn whatever she thinks.
        answers: ``(each,)`` positions of the randomised opinions.
    """

    questions: tuple[int, ...]
    answers: tuple[int, ...]


def vote(ballot: Ballot, opinions: Mapping[str, str], *, key: bytes | None = None, voter: int = 0) -> Vote:
    """Answers a ballot, where the voter is: her opinions do not leave this function.

    Args:
        ballot: What is asked.
        opinions: "agree", "disagree" or "pass" by question; of every question, since she does not know which she is
            asked.
        key: 32 secret bytes of her own; drawn from the operating system where it is left out. The same key, ballot and
            voter give the same draws again: a key is for one vote.
        voter: Her number, where several vote with one key in a simulation.

    Raises:
        ConfigError: An opinion is missing or is none of the answers.
    """
    positions = np.array([[_position(ballot, opinions, name) for name in ballot.questions]])
    streams = _streams(ballot, new_key() if key is None else key, [voter])
    asked, answers = _randomised(ballot, positions, streams)
    return Vote(
        questions=tuple(int(question) for question in asked[0]),
        answers=tuple(int(answer) for answer in answers[0]),
    )


def simulate_votes(
    ballot: Ballot, opinions: NDArray[np.int64], key: bytes
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every voter's vote at once, as `vote` would give it with this key and her position as her number.

    Args:
        ballot: What is asked.
        opinions: ``(voters, questions)`` positions in ``ballot.opinions``.
        key: Of the simulation.

    Returns:
        ``(voters, each)`` positions of the questions that each is asked, and of her randomised answers.

    Raises:
        ConfigError: The opinions are not of this form.
    """
    shape = opinions.shape
    if len(shape) != 2 or shape[1] != len(ballot.questions):
        raise ConfigError(f"opinions are (voters, {len(ballot.questions)}), not {shape}")
    if opinions.size and not 0 <= opinions.min() <= opinions.max() < len(ballot.opinions):
        raise ConfigError(f"an opinion is a position in {', '.join(ballot.opinions)}")
    return _randomised(ballot, opinions, _streams(ballot, key, range(shape[0])))


def _streams(ballot: Ballot, key: bytes, voters: Sequence[int]) -> list[Stream]:
    return [
        Stream(key, StreamId(purpose="vote", client=voter, round=0, digest=ballot.digest)) for voter in voters
    ]


def _randomised(
    ballot: Ballot, opinions: NDArray[np.int64], streams: Sequence[Stream]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    count, choices = len(ballot.questions), len(ballot.opinions)
    words = words_of(streams, count + _WORDS_PER_VOTE * ballot.each)
    # The order of random words is a random order: the first few are asked. It does not depend on any opinion.
    asked = np.argsort(words[:, :count], axis=1, kind="stable")[:, : ballot.each].astype(np.int64)
    true = np.take_along_axis(opinions, asked, axis=1)
    kept = words[:, count : count + ballot.each] < np.uint64(_kept_of(ballot.epsilon / ballot.each, choices))
    # One of the k - 1 others; 2^64 is a multiple of 1 and of 2, so that none is likelier.
    step = words[:, count + ballot.each :] % np.uint64(choices - 1) + np.uint64(1)
    answers = np.where(kept, true, (true + step.astype(np.int64)) % choices)
    return asked, answers


def _kept_of(epsilon: float, choices: int) -> int:
    """How many of 2^64 equally likely words keep an answer: rounded down, so that epsilon is never exceeded.

    The exponential is right to its last bit but one; ten of the 53 are given away for that.
    """
    odds = math.exp(epsilon)
    share = odds / (odds + choices - 1) * (1 - 2.0**-43)
    return max(int(share * 2.0**64), -(-(2**64) // choices))


def _position(ballot: Ballot, opinions: Mapping[str, str], name: str) -> int:
    if name not in opinions:
        raise ConfigError(
            f"there is no opinion on principle {name!r}: a voter has one on each, and is asked a few"
        )
    if opinions[name] not in ballot.opinions:
        raise ConfigError(
            f"the opinion on principle {name!r} is {opinions[name]!r}; it is one of {', '.join(ballot.opinions)}"
        )
    return ballot.opinions.index(opinions[name])
