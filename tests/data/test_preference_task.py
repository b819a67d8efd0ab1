"""Preferences as tasks: no held-out item is trained on, labels say who won, and nobody's pairs move another's."""

from dataclasses import replace

import numpy as np
import pytest

from fedsafe.data import Source, federate
from fedsafe.data.preference_task import Items, preference_task
from fedsafe.data.rated_pairs import Pairs, Ratings, pairs_of_ratings
from fedsafe.errors import ConfigError, DataError

ITEMS = 40
SOURCE = Source(name="made up")


def items(**changes) -> Items:
    """Feature 0 of an item says which it is; feature 1 how good it is."""
    place = np.arange(ITEMS)
    features = np.stack([place / ITEMS, np.sin(place)], axis=1).astype(np.float32)
    return replace(
        Items(features=features, names=tuple(f"item {at}" for at in place), lengths=place + 1.0), **changes
    )


def ratings(people: int = 5, levels: int = 3) -> Ratings:
    rng = np.random.default_rng(0)
    each = [rng.permutation(ITEMS)[:30] for _ in range(people)]
    of = np.concatenate(each)
    return Ratings(
        annotators=np.repeat([f"p{at}" for at in range(people)], 30),
        items=of,
        values=rng.integers(levels, size=len(of)).astype(float),
    )


def made(judged=None, **options):
    return preference_task("made", items(), judged or ratings(), source=SOURCE, **options)


def numbers_of(x):
    """Which items the pairs are of, read from their features."""
    return np.rint(x[:, :, 0] * ITEMS).astype(int)


def test_no_item_is_trained_on_and_judged():
    task = made(evaluation_fraction=0.4)
    train, evaluation = (set(numbers_of(part.x).ravel()) for part in (task.train, task.evaluation))
    assert train
    assert evaluation
    assert train.isdisjoint(evaluation)


@pytest.mark.parametrize("ties", [False, True])
def test_every_pair_says_what_the_two_ratings_say(ties):
    given = ratings()
    value = {(who, item): v for who, item, v in zip(given.annotators, given.items, given.values, strict=True)}
    task = made(given, ties=ties, evaluation_fraction=0.4, most=None)
    count = 0
    for part in (task.train, task.evaluation):
        for who, (first, second), label in zip(
            part.holders["annotator"], numbers_of(part.x), part.y, strict=True
        ):
            gap = value[who, first] - value[who, second]
            assert label == (2 if gap == 0 else gap > 0)
        count += len(part)
    # By brute force: all pairs of one person on one side.
    apart = items().held_out(0.4, 0)
    expected = sum(
        (ties or value[who, one] != value[who, other])
        for who in set(given.annotators)
        for one in range(ITEMS)
        for other in range(one)
        if (who, one) in value and (who, other) in value and apart[one] == apart[other]
    )
    assert count == expected
    assert (task.kind, len(task.classes)) == (("multiclass", 3) if ties else ("binary", 2))
    # Which is shown first is a coin: neither side is the better one.
    assert abs(np.mean(task.train.y[task.train.y < 2]) - 0.5) < 0.05


def test_the_preferences_describe_the_evaluation_pairs():
    given = ratings()
    task = made(
        given,
        evaluation_fraction=0.4,
        evaluation_public=True,
        groups={"team": {f"p{at}": f"t{at % 2}" for at in range(5)}},
    )
    known = task.preferences
    place = [int(name.removeprefix("item ")) for name in known.items]
    np.testing.assert_array_equal(np.array(place)[known.first], numbers_of(task.evaluation.x)[:, 0])
    np.testing.assert_array_equal(np.array(place)[known.second], numbers_of(task.evaluation.x)[:, 1])
    np.testing.assert_array_equal(known.features[known.first], task.evaluation.x[:, 0])
    np.testing.assert_array_equal(known.annotators, task.evaluation.holders["annotator"])
    np.testing.assert_array_equal(known.lengths, np.array(place) + 1)
    value = {(who, item): v for who, item, v in zip(given.annotators, given.items, given.values, strict=True)}
    for rater, item, rating in zip(known.raters, known.rated, known.ratings, strict=True):
        assert value[known.annotator_names[rater], place[item]] == rating
    assert len(known.ratings) == sum(item in place for item in given.items)
    assert set(task.train.groups["team"][task.train.holders["annotator"] == "p3"]) == {"t1"}


def test_texts_stay_out_of_a_task_whose_judgements_are_private():
    task = made(evaluation_fraction=0.4)
    assert not task.evaluation_public
    assert task.preferences.items == ()
    assert "each figure computed on them is a release" in task.evaluation_name


def test_one_persons_ratings_move_nobody_elses_pairs():
    given, apart = ratings(), items().held_out(0.4, 0)
    away = given.annotators != "p0"
    without = Ratings(annotators=given.annotators[away], items=given.items[away], values=given.values[away])
    several = pairs_of_ratings(given, apart, ties=False, most=20, seed=3)
    fewer = pairs_of_ratings(without, apart, ties=False, most=20, seed=3)
    rest = several.take(np.flatnonzero(several.annotators != "p0"))
    for column in ("annotators", "first", "second", "outcomes"):
        np.testing.assert_array_equal(getattr(rest, column), getattr(fewer, column))


def test_a_new_item_moves_no_other_to_the_other_side():
    more = Items(features=np.zeros((ITEMS + 1, 2), np.float32), names=(*items().names, "another"))
    np.testing.assert_array_equal(items().held_out(0.4, 7), more.held_out(0.4, 7)[:-1])
    assert not np.array_equal(items().held_out(0.4, 7), items().held_out(0.4, 8))


def test_blocks_are_held_out_together():
    blocks = tuple(f"b{at // 4}" for at in range(ITEMS))
    apart = items(blocks=blocks).held_out(0.4, 0).reshape(-1, 4)
    assert (apart == apart[:, :1]).all()
    assert 0 < apart.mean() < 1


def test_most_bounds_the_pairs_of_a_person():
    task = made(most=7, least=(5, 0), evaluation_fraction=0.4)
    for part in (task.train, task.evaluation):
        assert np.unique(part.holders["annotator"], return_counts=True)[1].max() == 7


def test_whoever_has_too_few_pairs_is_no_client():
    given = ratings()
    few = np.flatnonzero((given.annotators != "p4") | (np.cumsum(given.annotators == "p4") <= 4))
    given = Ratings(annotators=given.annotators[few], items=given.items[few], values=given.values[few])
    cut = federate(made(given), clients=None, partition={"name": "natural", "by": "annotator"}, seed=0)
    assert cut.names == ("p0", "p1", "p2", "p3")
    assert "p4" not in cut.task.preferences.annotator_names


def test_judging_other_records_keeps_the_preferences_with_them():
    task = made(evaluation_fraction=0.4)
    rows = np.array([5, 1])
    part = task.judged_on(rows, "two of them")
    np.testing.assert_array_equal(part.preferences.first, task.preferences.first[rows])
    assert task.with_validation(0.2, 0).preferences is None
    own = federate(
        task,
        clients=None,
        partition={"name": "natural"},
        client_validation=0.2,
        evaluation="client_validation",
        seed=0,
    )
    assert own.task.preferences is None
    with pytest.raises(DataError, match="preferences about"):
        replace(task, evaluation=task.evaluation.take(rows))


def test_trajectories_are_items_too():
    features = np.zeros((ITEMS, 6, 3), np.float32)
    pairs = Pairs(
        annotators=np.array(["a"] * 200), first=np.arange(200) % ITEMS, second=(np.arange(200) * 7 + 3) % ITEMS,
        outcomes=np.arange(200) % 3,
    )  # fmt: skip
    kept = pairs.take(np.flatnonzero(pairs.first != pairs.second))
    task = preference_task("steps", Items(features=features), kept, source=SOURCE, evaluation_fraction=0.5)
    assert task.schema.shape == (2, 6, 3)
    assert set(task.train.y) == {0, 1}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"evaluation_fraction": 1.0}, ConfigError, "evaluation_fraction = 1.0 is not a number in"),
        ({"least": (10_000, 0)}, DataError, "Nobody in 'made' has 10000 training pairs"),
        ({"groups": {"team": {"p0": "x"}}}, DataError, "The annotator 'p1' has no group 'team'"),
    ],
)
def test_what_leaves_no_task_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        made(**{"evaluation_fraction": 0.4} | options)


def test_a_number_that_is_no_item_is_refused():
    given = ratings()
    wrong = Ratings(annotators=given.annotators, items=given.items + 20, values=given.values)
    with pytest.raises(DataError, match=r"Row \d+ .* of items names item \d+, but there are 40"):
        made(wrong)
