"""Evaluation pairs know who judged them; whatever does not fit together is refused."""

import numpy as np
import pytest

from fedsafe.data.preferences import Preferences
from fedsafe.errors import DataError


def some(**changes):
    values = {
        "annotators": ["a", "b", "a"],
        "first": [0, 1, 2],
        "second": [1, 2, 0],
        "items": ("x", "yy", "z"),
        "lengths": [1.0, 2.0, 1.0],
        "raters": [0, 1],
        "rated": [2, 0],
        "ratings": [3.0, -1.0],
        "annotator_names": ("a", "b"),
        "features": np.ones((3, 4)),
    }
    return Preferences(**values | changes)


def test_pairs_are_taken_in_order_and_items_stay():
    taken = some().take(np.array([2, 0]))
    assert (taken.annotators.tolist(), taken.first.tolist(), taken.second.tolist()) == (
        ["a", "a"],
        [2, 0],
        [0, 1],
    )
    assert (len(some()), len(taken), taken.item_count) == (3, 2, 3)
    assert taken.ratings.tolist() == [3.0, -1.0]


def test_items_that_nobody_described_are_counted_by_their_numbers():
    assert Preferences(annotators=["a"], first=[4], second=[7]).item_count == 8
    assert Preferences(annotators=[], first=[], second=[]).item_count == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": [0, 1]}, "one of each for every row: got 3 annotators, 2 first, 3 second"),
        ({"first": [0, 1, 3]}, "first, row 2 .* names number 3; items are numbered from 0 to 2"),
        ({"second": [1, -2, 0]}, "second, row 1 .* names number -2"),
        ({"first": [0, 2, 2]}, "Pair 1 .* compares item 2 with itself"),
        ({"first": [0.5, 1.0, 2.0]}, "first came as float64 of shape"),
        ({"raters": [0, 2]}, "raters, row 1 .* names number 2; annotator_names are numbered from 0 to 1"),
        ({"ratings": [1.0]}, "2 raters, 2 rated, 1 ratings"),
        ({"ratings": [1.0, np.nan]}, "ratings hold a number that is not finite"),
        ({"lengths": [1.0]}, "different numbers of items: 3 items, 1 lengths, 3 features"),
        ({"features": np.full((3, 4), np.inf)}, "features hold a number that is not finite"),
        ({"annotators": [["a"]] * 3}, "annotators came as .* of shape"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        some(**changes)
