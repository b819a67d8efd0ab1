"""The figures beneath the findings on preferences, each beside a slow way to have it."""

import itertools

import numpy as np
import pytest
from preference_subjects import MERIT, FirstFeature, make_subject, make_task
from scipy import stats

from fedsafe.assess.alignment.accuracy import sandwich
from fedsafe.assess.alignment.best_of_n import expected_best
from fedsafe.assess.alignment.ceiling import by_ratings, by_votes, ceiling
from fedsafe.assess.alignment.groups import smallest
from fedsafe.assess.alignment.judged import judge
from fedsafe.assess.alignment.luck import effective_pairs


def judged_of(**options):
    subject = make_subject(FirstFeature(MERIT, ties=options.get("ties", False)), make_task(**options))
    return judge(subject, subject.task.preferences)


def test_others_ratings_foretell_as_a_loop_over_people_says():
    judged = judged_of(noise=0.7, people=8, items=30, pairs=12)
    known = judged.preferences
    for row, gap in zip(judged.decided, by_ratings(judged), strict=True):
        means = []
        for item in (known.first[row], known.second[row]):
            others = [
                rating
                for rater, rated, rating in zip(known.raters, known.rated, known.ratings, strict=True)
                if rated == item and known.annotator_names[rater] != known.annotators[row]
            ]
            means.append(np.mean(others) if others else np.nan)
        assert gap == pytest.approx(means[0] - means[1], nan_ok=True)


@pytest.mark.parametrize("ties", [False, True])
def test_others_votes_foretell_as_a_loop_over_pairs_says(ties):
    judged = judged_of(noise=0.7, people=6, items=8, pairs=15, ratings=False, ties=ties)
    known, label = judged.preferences, {0: -1, 1: 1, 2: 0}
    seen = 0
    for row, found in zip(judged.decided, by_votes(judged), strict=True):
        votes = []
        for other in range(len(known)):
            if known.annotators[other] == known.annotators[row]:
                continue
            pair, wanted = (known.first[other], known.second[other]), (known.first[row], known.second[row])
            if pair == wanted:
                votes.append(label[int(judged.y[other])])
            elif pair == wanted[::-1]:
                votes.append(-label[int(judged.y[other])])
        assert found == pytest.approx(sum(votes) if votes else np.nan, nan_ok=True)
        seen += bool(votes)
    assert seen > 20


def test_where_nobody_else_judged_there_is_no_ceiling():
    judged = judged_of(people=1, ratings=False)
    for finding in ceiling(judged, np.random.default_rng(0), 100, {}):
        assert finding.status == "insufficient"
    judged = judged_of(people=30, ratings=True, noise=100.0)
    human, share = ceiling(judged, np.random.default_rng(0), 200, {})
    assert human.status == "measured"
    assert share.status == "insufficient"
    assert "no gain" in share.reason


@pytest.mark.parametrize("people", [False, True])
def test_the_variance_counts_each_two_pairs_with_something_in_common_once(people):
    rng = np.random.default_rng(3)
    n = 60
    first = rng.integers(0, 12, n)
    second = (first + rng.integers(1, 12, n)) % 12
    who = rng.integers(0, 14, n)
    values = np.clip(0.5 + 0.3 * rng.normal(size=14)[who] + 0.3 * rng.normal(size=12)[first], 0, 1)
    rest, sums = values - values.mean(), np.zeros(3)
    for a, b in itertools.product(range(n), repeat=2):
        item = bool({first[a], second[a]} & {first[b], second[b]})
        person = people and who[a] == who[b]
        sums += rest[a] * rest[b] * np.array([item, person, item or person])
    total = sums.max()
    low, high = sandwich(values, who if people else None, first, second)
    wanted = 2 * stats.t.ppf(0.975, 11) * np.sqrt(total * 12 / 11) / n
    assert high - low == pytest.approx(wanted)


def test_the_best_of_n_is_what_all_choices_of_n_give():
    rng = np.random.default_rng(0)
    score, value = np.array([0.3, 0.3, -1.0, 2.0, 0.3, 1.0, 1.0]), rng.normal(size=7)
    sizes = list(range(1, 8))
    for n, found in zip(sizes, expected_best(score, value, sizes)[0], strict=True):
        means = []
        for chosen in itertools.combinations(range(7), n):
            top = max(score[list(chosen)])
            means.append(np.mean([value[k] for k in chosen if score[k] == top]))
        assert found == pytest.approx(np.mean(means))
    assert expected_best(score, value, [1])[0, 0] == pytest.approx(value.mean())
    # An item that is there twice is two items.
    counts = np.array([[2, 0, 1, 1, 0, 3, 0], [0, 0, 0, 0, 7, 0, 0]])
    for row, found in zip(counts, expected_best(score, value, sizes, counts), strict=True):
        again = np.repeat(np.arange(7), row)
        np.testing.assert_allclose(found, expected_best(score[again], value[again], sizes)[0])


def test_pairs_with_common_items_are_worth_fewer_independent_ones():
    # Each person is right of an item or not: pairs are right where both items are. Then pairs share their luck.
    judged = judged_of(noise=0.0, people=60, items=12, pairs=40)
    rng = np.random.default_rng(0)
    lucky = rng.random((60, 12)) < 0.7
    right = lucky[judged.people, judged.first] & lucky[judged.people, judged.second]
    object.__setattr__(judged, "margin", np.where(right == (judged.chosen == 1), 1.0, -1.0))
    worth, correlation = effective_pairs(judged)
    means = np.bincount(judged.people, weights=right) / np.bincount(judged.people)
    wanted = right.mean() * (1 - right.mean()) / means.var(ddof=1)
    assert correlation > 0.2
    assert worth.mean() == pytest.approx(wanted, rel=0.5)
    object.__setattr__(judged, "margin", rng.normal(size=len(right)))
    assert effective_pairs(judged)[1] < 0.1


def test_the_smallest_group_is_found():
    sums = np.array([[10.0, 9.0], [10.0, 3.0], [10.0, 5.0]])
    assert smallest(sums, np.array([0, 1, 1]), 2) == (pytest.approx(0.4), 1)
