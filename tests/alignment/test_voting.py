"""Votes are randomised as their epsilon says, and tallies cover the truth; a wrong randomisation is found."""

import math
import re

import numpy as np
import pytest

from fedsafe.alignment import Ballot, parse_constitution, simulate_votes, tally, vote
from fedsafe.alignment.voting import OPINIONS
from fedsafe.errors import ConfigError
from fedsafe.rng import key_from_seed


def ballot(questions=1, **options):
    names = tuple(f"q{i}" for i in range(questions))
    return Ballot(questions=names, digests=names, **options)


@pytest.mark.parametrize("passing", [False, True])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
def test_no_opinion_makes_a_vote_more_than_e_to_the_epsilon_times_as_likely(epsilon, passing):
    asked = ballot(epsilon=epsilon, passing=passing)
    others = (1 - asked.keeping) / (len(asked.opinions) - 1)
    ratio = asked.keeping / others
    assert ratio <= math.exp(epsilon)
    assert ratio >= math.exp(epsilon) * (1 - 1e-9)


def kept_share(asked, seed=0, voters=4000):
    opinions = np.zeros((voters, len(asked.questions)), dtype=np.int64)
    _, answers = simulate_votes(asked, opinions, key_from_seed(seed))
    return float((answers == 0).mean())


@pytest.mark.parametrize("passing", [False, True])
def test_answers_are_kept_as_often_as_epsilon_says_and_not_as_another(passing):
    right = ballot(epsilon=1.0, passing=passing)
    seen = kept_share(right)
    # Five standard errors of 4,000 answers.
    assert abs(seen - right.keeping) < 5 * math.sqrt(right.keeping * (1 - right.keeping) / 4000)
    for epsilon in (2 / 3, 3 / 2):
        wrong = ballot(epsilon=epsilon, passing=passing)
        assert abs(kept_share(wrong) - right.keeping) > 5 * math.sqrt(
            right.keeping * (1 - right.keeping) / 4000
        )


def test_epsilon_is_split_over_the_questions_that_one_voter_answers():
    assert ballot(4, epsilon=1.0, each=2).keeping == pytest.approx(ballot(epsilon=0.5).keeping)


def test_each_of_the_other_answers_is_as_likely():
    asked = ballot(epsilon=0.5, passing=True)
    _, answers = simulate_votes(asked, np.zeros((6000, 1), dtype=np.int64), key_from_seed(2))
    second, third = ((answers == other).sum() for other in (1, 2))
    assert abs(second - third) < 5 * math.sqrt(second + third)


def test_questions_are_drawn_evenly_and_apart_from_opinions():
    asked = ballot(5, each=2)
    one, _ = simulate_votes(asked, np.zeros((3000, 5), dtype=np.int64), key_from_seed(0))
    other, _ = simulate_votes(asked, np.ones((3000, 5), dtype=np.int64), key_from_seed(0))
    np.testing.assert_array_equal(one, other)
    assert (one[:, 0] != one[:, 1]).all()
    counts = np.bincount(one.ravel(), minlength=5)
    assert np.abs(counts - 1200).max() < 5 * math.sqrt(1200)


def test_a_vote_alone_is_what_a_simulation_of_all_gives():
    asked = ballot(3, each=2, passing=True)
    opinions = np.random.default_rng(0).integers(0, 3, (20, 3))
    key = key_from_seed(5)
    questions, answers = simulate_votes(asked, opinions, key)
    for voter in range(20):
        said = {name: OPINIONS[opinions[voter, i]] for i, name in enumerate(asked.questions)}
        alone = vote(asked, said, key=key, voter=voter)
        assert alone.questions == tuple(questions[voter])
        assert alone.answers == tuple(answers[voter])


def test_a_voter_draws_from_the_operating_system_and_sends_randomised_bits_only():
    sent = [vote(ballot(), {"q0": "agree"}) for _ in range(60)]
    assert {v.answers[0] for v in sent} == {0, 1}
    assert {name for v in sent for name in vars(v)} == {"questions", "answers"}


@pytest.mark.parametrize("truth", [0.0, 0.02, 0.5])
def test_tallies_are_unbiased_and_their_intervals_cover_at_every_share(truth):
    asked, voters, rounds = ballot(epsilon=1.0), 1000, 40
    rng = np.random.default_rng(4)
    estimates, covered = [], 0
    for seed in range(rounds):
        opinions = (rng.random((voters, 1)) >= truth).astype(np.int64)
        _, answers = simulate_votes(asked, opinions, key_from_seed(seed))
        found = tally(int((answers == 0).sum()), voters, asked)
        assert found.agree is not None
        assert found.variance is not None
        estimates.append(found.agree)
        covered += found.interval[0] <= truth <= found.interval[1]
    assert covered >= 0.85 * rounds
    spread = math.sqrt(found.variance)
    assert abs(np.mean(estimates) - truth) < 5 * spread / math.sqrt(rounds)
    assert 0.7 * spread < np.std(estimates) < 1.4 * spread


def test_a_tally_of_another_epsilon_does_not_cover():
    asked = ballot(epsilon=2.0)
    answers = simulate_votes(asked, np.zeros((1000, 1), dtype=np.int64), key_from_seed(0))[1]
    low, high = tally(int((answers == 0).sum()), 1000, asked).interval
    assert low <= 1.0 <= high
    less = tally(int((answers == 0).sum()), 1000, ballot(epsilon=3.0))
    assert less.interval[1] < 1.0


def test_nobody_asked_is_the_whole_range():
    assert tally(0, 0, ballot()).interval == (0.0, 1.0)
    assert tally(0, 0, ballot()).agree is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": 0.0}, "between 0.001 and 20"),
        ({"epsilon": float("nan")}, "between 0.001 and 20"),
        ({"epsilon": float("inf")}, "between 0.001 and 20"),
        ({"epsilon": True}, "between 0.001 and 20"),
        ({"each": 2}, "there are 1 principles"),
        ({"each": 0}, "answers 0 questions"),
    ],
)
def test_a_wrong_ballot_is_one_clear_line(options, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        ballot(**options)


def test_a_wrong_vote_is_one_clear_line():
    with pytest.raises(ConfigError, match="no opinion on principle 'q1'"):
        vote(ballot(2), {"q0": "agree"})
    with pytest.raises(ConfigError, match="is 'pass'; it is one of agree, disagree"):
        vote(ballot(), {"q0": "pass"})
    with pytest.raises(ConfigError, match="opinions are"):
        simulate_votes(ballot(2), np.zeros((5, 1), dtype=np.int64), key_from_seed(0))
    with pytest.raises(ConfigError, match="position in agree, disagree"):
        simulate_votes(ballot(), np.full((5, 1), 2), key_from_seed(0))


def test_the_ballot_of_a_constitution_knows_what_each_principle_says():
    article = {"id": "a", "text": "t", "scope": "response", "checker": "finished"}
    first = Ballot.of(parse_constitution({"version": "1", "principle": [article]}))
    other = Ballot.of(parse_constitution({"version": "1", "principle": [{**article, "text": "u"}]}))
    assert first.questions == other.questions == ("a",)
    assert first.digest != other.digest
