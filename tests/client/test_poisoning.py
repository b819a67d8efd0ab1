"""Poisoned records: what adversaries train on, and nobody else; and how often a backdoor opens."""

import numpy as np
import pytest
import tiny_federation

from fedsafe.client.poisoning import Backdoor, LabelFlip, backdoor_successes, build_poison, poisoned
from fedsafe.client.triggers import Trigger
from fedsafe.data import ArraySchema, Examples, Source, Task, TokenSchema
from fedsafe.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
TABLE = tiny_federation.task()


def images(kind="multiclass", shape=(2, 6, 5), **changes):
    examples = Examples(x=RNG.uniform(0, 1, (30, *shape)).astype(np.float32), y=np.arange(30) % 4)
    values = {
        "name": "pictures",
        "kind": kind,
        "classes": ("cat", "dog", "hen", "fox"),
        "schema": ArraySchema(shape=shape, lowest=0.0, highest=1.0),
        "train": examples,
        "evaluation": examples,
        "evaluation_name": "made by hand (public)",
        "source": Source(name="made by hand"),
        "evaluation_public": True,
    }
    return Task(**{**values, **changes})


PICTURES = images()


def apply(poison, task):
    return poison(task.train.x, task.train.y, np.random.default_rng(1))


class TestLabelFlip:
    def test_classes_are_mirrored(self):
        x, y = apply(build_poison("label_flip", PICTURES), PICTURES)
        assert x is PICTURES.train.x
        np.testing.assert_array_equal(y, 3 - PICTURES.train.y)
        np.testing.assert_array_equal(apply(build_poison("label_flip", TABLE), TABLE)[1], 1 - TABLE.train.y)

    def test_or_mapped_by_name_or_number(self):
        _, y = apply(build_poison({"name": "label_flip", "map": {"cat": "fox", "1": 2}}, PICTURES), PICTURES)
        np.testing.assert_array_equal(y, np.array([3, 2, 2, 3])[PICTURES.train.y])


class TestTriggers:
    @pytest.mark.parametrize(
        ("corner", "rows", "columns"),
        [
            ("top_left", slice(0, 2), slice(0, 2)),
            ("top_right", slice(0, 2), slice(3, 5)),
            ("bottom_left", slice(4, 6), slice(0, 2)),
            ("bottom_right", slice(4, 6), slice(3, 5)),
        ],
    )
    def test_a_patch_is_a_square_of_every_channel_and_nothing_else(self, corner, rows, columns):
        x = PICTURES.train.x
        stamped = Trigger.for_task(PICTURES, patch=2, value=0.25, corner=corner).stamp(x)
        expected = x.copy()
        expected[:, :, rows, columns] = 0.25
        np.testing.assert_array_equal(stamped, expected)
        assert np.shares_memory(stamped, x) is False

    def test_by_default_it_is_as_bright_as_can_be(self):
        assert (Trigger.for_task(PICTURES, patch=3).stamp(PICTURES.train.x)[:, :, 3:, 2:] == 1.0).all()

    def test_columns_of_a_table_get_raw_values(self):
        trigger = Trigger.for_task(TABLE, columns={"sex": "Male", "a1": 2.5})
        stamped = trigger.stamp(TABLE.train.x)
        np.testing.assert_array_equal(stamped[:, [0, 2]], TABLE.train.x[:, [0, 2]])
        np.testing.assert_allclose(stamped[:, [1, 3, 4]], np.tile([0.5, 0.0, 1.0], (len(stamped), 1)))

    def test_features_of_other_inputs_get_encoded_values(self):
        task = images(schema=ArraySchema(shape=(2, 6, 5), lowest=0.0, highest=1.0))
        assert (Trigger.for_task(task, columns={"1,5,4": 0.5}).stamp(task.train.x)[:, 1, 5, 4] == 0.5).all()


SPEC = {"name": "backdoor", "target": "hen", "patch": 2, "share": 0.4}


class TestBackdoor:
    def test_a_share_of_the_records_carries_trigger_and_target(self):
        x, y = apply(build_poison(SPEC, PICTURES), PICTURES)
        changed = (x != PICTURES.train.x).reshape(30, -1).any(axis=1)
        assert changed.sum() == 12
        assert (y[changed] == 2).all()
        np.testing.assert_array_equal(y[~changed], PICTURES.train.y[~changed])
        assert (x[changed][:, :, 4:, 3:] == 1.0).all()

    def test_its_success_is_counted_on_records_of_other_classes(self):
        backdoor = build_poison(SPEC, PICTURES)
        assert isinstance(backdoor, Backdoor)

        def opened(x):
            """A model that the backdoor owns: the patch decides, or else the class is cat."""
            return np.where((x[:, :, 4:, 3:] == 1.0).all(axis=(1, 2, 3)), 2, 0)

        others = int((PICTURES.evaluation.y != 2).sum())
        assert backdoor_successes(opened, PICTURES.evaluation, backdoor) == (others, others)
        assert backdoor_successes(lambda x: np.zeros(len(x)), PICTURES.evaluation, backdoor) == (0, others)
        one_class = PICTURES.evaluation.take(np.flatnonzero(PICTURES.evaluation.y == 2))
        assert backdoor_successes(opened, one_class, backdoor) == (0, 0)

    def test_even_the_smallest_client_has_one(self):
        backdoor = build_poison({**SPEC, "share": 0.01}, PICTURES)
        _, y = backdoor(PICTURES.train.x[:1], PICTURES.train.y[:1], RNG)
        assert y == [2]


class TestWhoIsPoisoned:
    RECORDS = (np.array([0, 5, 9]), np.array([2, 3]))

    def test_the_adversaries_records_and_no_others(self):
        found = poisoned(
            PICTURES.train, self.RECORDS, build_poison("label_flip", PICTURES), clients=(4, 8), seed=0
        )
        rows = np.concatenate(self.RECORDS)
        np.testing.assert_array_equal(found.y[rows], 3 - PICTURES.train.y[rows])
        rest = np.setdiff1d(np.arange(30), rows)
        np.testing.assert_array_equal(found.y[rest], PICTURES.train.y[rest])
        np.testing.assert_array_equal(found.x, PICTURES.train.x)
        assert (PICTURES.train.y == np.arange(30) % 4).all(), "the task itself stays"

    def test_each_by_its_own_randomness(self):
        """Whoever else is an adversary changes nothing of what one does."""
        backdoor = build_poison({"name": "backdoor", "target": 0, "patch": 1, "share": 0.5}, PICTURES)
        both = poisoned(PICTURES.train, self.RECORDS, backdoor, clients=(4, 8), seed=0)
        one = poisoned(PICTURES.train, self.RECORDS[1:], backdoor, clients=(8,), seed=0)
        np.testing.assert_array_equal(both.x[self.RECORDS[1]], one.x[self.RECORDS[1]])

    def test_a_poison_that_breaks_records_is_refused(self):
        with pytest.raises(DataError, match=r"labels of shape \(1,\)"):
            poisoned(PICTURES.train, self.RECORDS, lambda x, y, rng: (x, y[:1]), clients=(4, 8), seed=0)


TOKENS = images(
    "next_token",
    classes=("a", "b", "c"),
    schema=TokenSchema(tokens=("a", "b", "c"), length=4),
    train=Examples(x=RNG.integers(0, 3, (9, 4)), y=RNG.integers(0, 3, (9, 4))),
    evaluation=Examples(x=RNG.integers(0, 3, (9, 4)), y=RNG.integers(0, 3, (9, 4))),
)


@pytest.mark.parametrize(
    ("spec", "task", "why"),
    [
        ("label_flop", PICTURES, "poison 'label_flop' is not known: did you mean 'label_flip'"),
        ({"map": {}}, PICTURES, "has no name"),
        ("label_flip", TOKENS, "changes classes, and the task 'pictures' is next_token"),
        ({"name": "label_flip", "map": {"cow": "cat"}}, PICTURES, "has no class 'cow': name one of 'cat'"),
        ({"name": "label_flip", "map": {"cat": 4}}, PICTURES, "has no class 4"),
        ({"name": "label_flip", "share": 0.5}, PICTURES, "'share' is not known"),
        ("backdoor", PICTURES, "needs the class that the trigger shall bring about: set target"),
        ({"name": "backdoor", "target": "cat"}, PICTURES, "has no trigger: set patch = 3"),
        ({"name": "backdoor", "target": 1}, TABLE, "'tiny' has no trigger: set columns = { 'a0' = ... }"),
        ({"name": "backdoor", "target": 1, "patch": 3}, TABLE, r"is for images.*shape \(5,\): set columns"),
        ({"name": "backdoor", "target": 1, "patch": 3, "columns": {"sex": "Male"}}, TABLE, "leave one out"),
        ({"name": "backdoor", "target": 1, "columns": {"sax": "Male"}}, TABLE, "did you mean 'sex'"),
        ({"name": "backdoor", "target": 1, "columns": {"sex": "Mail"}}, TABLE, "'sex' cannot be 'Mail'"),
        ({"name": "backdoor", "target": 1, "columns": {"a0": "high"}}, TABLE, "'a0' cannot be 'high'"),
        ({"name": "backdoor", "target": 1, "columns": {}}, TABLE, "it is a table such as"),
        ({"name": "backdoor", "target": "cat", "patch": 6}, PICTURES, "from 1 to 5 pixels"),
        ({"name": "backdoor", "target": "cat", "patch": 2, "value": 7.0}, PICTURES, "are from 0 to 1"),
        ({"name": "backdoor", "target": "cat", "patch": 2, "corner": "top"}, PICTURES, "corner = 'top'"),
        ({"name": "backdoor", "target": "cat", "patch": 2, "share": 0.0}, PICTURES, "above 0 and at most 1"),
        ({"name": "backdoor", "target": "cat", "columns": {"9": 1.0}}, PICTURES, "no column '9'"),
        ({"name": "backdoor", "target": "cat", "columns": {"0,0,0": 2.0}}, PICTURES, "it is from 0 to 1"),
        ({"name": "backdoor", "target": "a", "patch": 2}, TOKENS, "changes classes"),
        ({"name": "backdoor", "target": 1, "path": 3}, PICTURES, "did you mean 'patch'"),
    ],
)
def test_a_wrong_request_is_one_clear_line(spec, task, why):
    with pytest.raises(ConfigError, match=why) as caught:
        build_poison(spec, task)
    assert "\n" not in str(caught.value)


def test_one_of_your_own_is_made_from_the_task_and_its_options():
    poison = build_poison({"name": "test_poisoning:ones", "label": 3}, PICTURES)
    assert (apply(poison, PICTURES)[1] == 3).all()
    assert isinstance(build_poison("fedsafe.client.poisoning:LabelFlip.for_task", PICTURES), LabelFlip)


def ones(task, *, label):
    return lambda x, y, rng: (x, np.full_like(y, label))
