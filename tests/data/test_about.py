"""What is said about data in memory: mistakes are named, nothing is ignored, and bounds that do not fit are told."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from fedsafe.data import (
    ArraySchema,
    Categorical,
    Examples,
    Label,
    Numeric,
    Schema,
    Split,
    TokenSchema,
    as_task,
    load_task,
)
from fedsafe.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
X = RNG.random((40, 3))
Y = np.arange(40) % 2
BOUNDS = {"low": 0.0, "high": 1.0}
GROUP = np.array(["a", "b"])[Y]

SCHEMA = Schema(
    label=Label(column="bought", classes=("no", "yes")),
    columns=(
        Numeric(name="age", low=0, high=100),
        Categorical(name="shop", categories=("n", "s"), group=True),
    ),
)
FRAME = pd.DataFrame({"age": range(20), "shop": ["n", "s"] * 10, "bought": ["no", "no", "yes", "yes"] * 5})


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"hgih": 1}, "nothing called 'hgih'.* Did you mean 'high'.*Known: name, kind"),
        ({"target": 4}, r"`target` = 4: give two numbers, \(low, high\)"),
        ({"target": (0, 4, 1)}, r"`target` = \(0, 4, 1\): give two numbers"),
        ({"target": (0, "4")}, r"`target\[1\]` = '4' is not a finite number"),
        ({"target": (4, 0)}, r"`target\[0\]` = 4 is not below `target\[1\]` = 0"),
        ({"low": "0"}, "`low` = '0' is not a finite number"),
        ({"high": float("inf")}, "`high` = inf is not a finite number"),
        ({"low": 1}, "`low` = 1 is not below `high` = 1.0"),
        ({"groups": ["a"] * 40}, "`groups` is list: give a mapping"),
        ({"holders": GROUP}, "`holders` is ndarray: give a mapping"),
        ({"evaluation_fraction": "0.2"}, "`evaluation_fraction` = '0.2' is not a finite number"),
        ({"evaluation_public": "yes"}, "`evaluation_public` = 'yes': say True or False"),
        ({"seed": 0.5}, "`seed` = 0.5 is not a whole number"),
        ({"evaluation": (X, X[:, 0]), "evaluation_fraction": 0.5}, "leave `evaluation_fraction` out"),
        ({"evaluation_groups": {"g": GROUP}}, "leave `evaluation_groups` out"),
        ({"classes": 2}, "The task is regression, which has no classes: leave `classes` out"),
    ],
)
def test_a_mistake_in_what_is_said_names_its_key(said, message):
    with pytest.raises(ConfigError, match=message):
        as_task((X, X[:, 0]), **{**BOUNDS, "target": (0, 1), **said})


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"classes": ["a", "a"]}, "`classes` names 'a' twice"),
        ({"classes": ["a"]}, "at least two"),
        ({"classes": 2.0}, "`classes` = 2.0: give their names, or how many"),
        ({"target": (0, 1)}, "leave it out. If y is a number .* say kind='regression'"),
        ({"tokens": 5}, "`tokens` have no range: leave `low`, `high` out"),
    ],
)
def test_a_mistake_about_classes_is_named(said, message):
    with pytest.raises(ConfigError, match=message):
        as_task((X, Y), **BOUNDS, **said)


@pytest.mark.parametrize(
    "said",
    [
        {"kind": "regression"},
        {"classes": 7},
        {"low": 0, "high": 1},
        {"target": (0, 1)},
        {"tokens": 3},
        {"groups": {"g": GROUP[:20]}},
        {"holders": {"g": GROUP[:20]}},
        {"clients": 4},
        {"evaluation_groups": {"g": GROUP[:20]}, "evaluation": FRAME},
    ],
)
def test_what_the_schema_of_a_data_frame_says_cannot_be_said_again(said):
    unused = ", ".join(f"`{key}`" for key in said if key != "evaluation")
    with pytest.raises(ConfigError, match=f"described by its schema alone: leave {unused} out"):
        as_task(FRAME, schema=SCHEMA, **said)


def test_a_data_frame_is_judged_on_the_records_that_are_given():
    told = as_task(FRAME, schema=SCHEMA, evaluation=FRAME[:6], evaluation_public=True)
    assert (len(told.train), len(told.evaluation), told.evaluation_public) == (20, 6, True)
    assert told.evaluation_name == "evaluation records given in Python (public)"
    mapped = as_task({"train": FRAME[6:], "evaluation": FRAME[:6]}, schema=SCHEMA)
    assert (len(mapped.train), len(mapped.evaluation), mapped.evaluation_public) == (14, 6, False)
    np.testing.assert_array_equal(mapped.evaluation.x, told.evaluation.x)
    parted = {"data": FRAME.assign(part=["train", "test"] * 10)}
    parted["schema"] = replace(SCHEMA, split=Split(column="part"))
    for more in ({"evaluation": FRAME}, {"evaluation_fraction": 0.3}):
        with pytest.raises(ConfigError, match=f"split column 'part' says .*: leave `{next(iter(more))}` out"):
            as_task(**parted, **more)
    with pytest.raises(ConfigError, match="`evaluation` is tuple, but the data is a data frame"):
        as_task(FRAME, schema=SCHEMA, evaluation=(X, Y))
    with pytest.raises(ConfigError, match="`schema` = 3: give"):
        as_task(FRAME, schema=3)


def test_a_task_says_everything_itself():
    with pytest.raises(ConfigError, match=r"A task says everything .*: leave `low`, `evaluation_public` out"):
        as_task(load_task("digits"), low=0, evaluation_public=True)


def client_two_is(other):
    return lambda client: (X, other if client == 2 else Y)


def spoilt(value, row=5, like=X):
    found = like.copy()
    found[row] = value
    return found


@pytest.mark.parametrize(
    ("data", "said", "message"),
    [
        ((spoilt(np.inf), Y), {}, r"Row 5 \(counted from 0\) of x of the data has inf"),
        ((spoilt(np.nan), Y), {}, "Row 5 .* of x of the data has nan"),
        ((X, spoilt(-np.inf)[:, 0]), {"target": (0, 1)}, "Row 5 .* of y of the data has -inf"),
        ((torch.tensor(X), torch.tensor(spoilt(np.nan)[:, 0])), {"target": (0, 1)}, "Row 5 .* of y of"),
        ((X + 1j, Y), {}, "x of the data holds complex128, not real numbers"),
        (
            client_two_is(spoilt(np.nan)[:, 0]),
            {"clients": 3},
            "Row 5 .* of y of the data of client 2 has nan",
        ),
        (client_two_is(X[:, 0]), {"clients": 3}, "Client 2 has targets of type float64, client 0 of int64"),
        (client_two_is(Y + 0.5), {"clients": 3, "kind": "binary"}, r"row 0 of client 2 has 0\.5"),
        ((X, X[:, :2]), {"target": (0, 1)}, r"y has the shape \(40, 2\): give one number for each record"),
        ((X, np.eye(2)[Y]), {}, "for one-hot classes"),
        ((X, np.eye(2, dtype=np.int64)[Y]), {}, "for one-hot classes"),
        (X, {}, "must be pairs .*, but item 0 of the data is ndarray. If it is x"),
        ([(X[0], 1, 2)] * 9, {}, "but item 0 of the data is tuple of 3 parts"),
        ((X, Y), {"evaluation": (X, Y + 1), "classes": 2}, r"^An evaluation label lies outside 0\.\.1"),
        ((X, Y), {"evaluation": (X, Y[1:])}, r"the evaluation records came as \(40, 3\) and \(39,\)"),
    ],
)
def test_records_that_cannot_be_used_are_named(data, said, message):
    with pytest.raises(DataError, match=message):
        as_task(data, **BOUNDS, **said)


def test_targets_of_both_types_can_be_one_regression():
    task = as_task(client_two_is(X[:, 0]), clients=3, kind="regression", target=(0, 1), **BOUNDS)
    assert task.kind == "regression"


def test_bounds_that_many_values_exceed_are_refused_and_a_few_outliers_are_clamped():
    few, many = X.copy(), X.copy()
    few.flat[:6] = 9.0  # 5 % of 120 values
    many.flat[:7] = 9.0
    assert as_task((few, Y), **BOUNDS).train.x.max() == 1.0
    with pytest.raises(
        DataError, match=r"7 of 120 values of x of the data lie outside \[0, 1\].*not read bounds"
    ):
        as_task((many, Y), **BOUNDS)
    with pytest.raises(DataError, match="7 of 120 values of x of the evaluation records"):
        as_task((X, Y), evaluation=(many, Y), **BOUNDS)
    with pytest.raises(DataError, match=r"y of the data lie outside \[0, 0.5\], the public bounds `target`"):
        as_task((X, X[:, 0]), target=(0, 0.5), **BOUNDS)
    with pytest.raises(DataError, match=r"40 of 40 .* All would count as 4, so nothing could be learned"):
        as_task((X, X[:, 0] + 10), target=(0, 4), **BOUNDS)
    with pytest.raises(DataError, match=r"has the target 4 \(values outside"):
        as_task((X, np.full(40, 4.0)), target=(0, 4), **BOUNDS)


def test_a_bound_that_float32_rounds_is_not_exceeded_by_the_value_it_names():
    x = np.full((40, 1), 0.1, np.float32)
    as_task((x, Y), low=0, high=0.1)
    as_task((X, np.where(Y, np.float32(0.1), np.float32(0))), target=(0, 0.1), **BOUNDS)
    as_task((spoilt(1e300, row=(5, 0)), Y), **BOUNDS)  # beyond float32: clamped, and no warning


def test_classes_that_one_stray_label_would_make_are_refused():
    stray = spoilt(100_000, like=Y)
    with pytest.raises(ConfigError, match="makes 100,001 classes, but only 3 of them occur"):
        as_task((X, stray), **BOUNDS)
    assert len(as_task((X, stray), classes=100_001, **BOUNDS).classes) == 100_001
    every = np.arange(1500)
    x = np.zeros((1500, 1))
    assert len(as_task((x, every), evaluation=(x, every), **BOUNDS).classes) == 1500
    assert len(as_task((X, spoilt(999, like=Y)), **BOUNDS).classes) == 1000


def test_evaluation_records_have_groups_of_their_own():
    task = as_task(
        (X, Y), groups={"g": GROUP}, evaluation=(X[:9], Y[:9]), evaluation_groups={"g": GROUP[:9]}, **BOUNDS
    )
    np.testing.assert_array_equal(task.evaluation.groups["g"], GROUP[:9])
    assert len(task.train.groups["g"]) == 40


def test_the_description_of_a_task_is_what_is_public_about_it():
    def said(data=(X, Y), **more):
        return as_task(data, **{**BOUNDS, **more}).description

    def regression(target):
        return said((X, X[:, 0]), target=target)

    def table(**changes):
        return as_task(FRAME, schema=replace(SCHEMA, **changes)).description

    age = Numeric(name="age", low=0, high=200)
    other = (age, SCHEMA.columns[1])
    assert said() == said(low=0, high=1) == said((X[::-1] * 0.5, Y)) == said(seed=3)
    assert regression((0, 1)) == regression((0.0, 1.0))
    assert table() == table(note="Another note.")
    different = [
        said(), said(high=2), said(low=-1), said(classes=3), said(classes=["a", "b"]), said(evaluation_public=True),
        said((X[:, :2], Y)), said((X.reshape(40, 1, 3), Y)), regression((0, 1)), regression((0, 2)),
        said((np.ones((40, 2), np.int64), Y), low=None, high=None, tokens=3),
        said((np.ones((40, 2), np.int64), Y), low=None, high=None, tokens=4), table(), table(columns=other),
    ]  # fmt: skip
    assert len(set(different)) == len(different)


class Own:
    """Somebody's schema, which is no dataclass."""

    def __init__(self, high: float) -> None:
        self._as = ArraySchema(shape=(3,), lowest=0, highest=high)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._as, name)


def test_a_schema_of_ones_own_is_described_by_what_every_schema_has():
    task = as_task((X, Y), **BOUNDS)
    one, again, other = (replace(task, schema=Own(high)).description for high in (1, 1, 2))
    assert one == again != other
    short = TokenSchema(tokens=("a", "b"), length=3)
    assert replace(task, schema=short).description != replace(task, schema=Own(1)).description


def test_examples_name_the_row_that_is_not_finite():
    with pytest.raises(DataError, match=r"Row 5 \(counted from 0\) of x has inf"):
        Examples(x=spoilt(np.inf), y=Y)
