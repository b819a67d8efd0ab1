"""A record's features come from that record and the public schema alone, inside the stated bounds."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsafe.data import Categorical, Label, Numeric, Schema, Split, Target
from fedsafe.errors import DataError

SCHEMA = Schema(
    label=Label(column="y", classes=("no", "yes")),
    columns=(
        Numeric(name="hours", low=10, high=70, encoded=(-1, 1)),
        Numeric(name="gain", low=0, high=999, transform="log1p", fill=0),
        Numeric(name="age", low=17, high=90, encoding="bins", bins=(25, 45), group=True, immutable=True),
        Numeric(name="height", low=100, high=200, immutable=True),
        Categorical(name="job", categories=("a", "b"), merge={"b": ("bee", "wasp")}),
        Categorical(name="race", categories=("x", "Other"), unknown="Other", group=True, immutable=True),
    ),
    missing=("?",),
)


def frame(**columns: list[object]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    usual = {"hours": 40, "gain": 0, "age": 30, "height": 150, "job": "a", "race": "x", "y": "no"}
    return pd.DataFrame({name: columns.get(name, [value] * n) for name, value in usual.items()})


cells = st.one_of(
    st.none(), st.sampled_from(["?", "", "a", "bee", "x", " b ", "nan", "-inf", "1e999", "30"]),
    st.text(max_size=4), st.integers(-(10**9), 10**9), st.floats(),
)  # fmt: skip
records = st.fixed_dictionaries({c.name: cells for c in SCHEMA.columns})


@given(st.lists(records, min_size=1, max_size=8), records, st.data())
def test_changing_one_record_changes_no_other_records_features(rows, replacement, data):
    changed = data.draw(st.integers(0, len(rows) - 1))
    before = SCHEMA.encode(pd.DataFrame(rows))
    after = SCHEMA.encode(pd.DataFrame([*rows[:changed], replacement, *rows[changed + 1 :]]))
    others = np.arange(len(rows)) != changed
    np.testing.assert_array_equal(before[others], after[others])
    np.testing.assert_array_equal(after[changed], SCHEMA.encode(pd.DataFrame([replacement]))[0])


@given(st.lists(records, min_size=1, max_size=8))
def test_every_feature_is_finite_and_inside_the_public_bounds(rows):
    x = SCHEMA.encode(pd.DataFrame(rows))
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    assert x.shape == (len(rows), len(SCHEMA.feature_names))
    assert (x >= SCHEMA.low).all()
    assert (x <= SCHEMA.high).all()
    for group in SCHEMA.one_hot:
        part = x[:, list(group)]
        assert set(np.unique(part)) <= {0.0, 1.0}
        np.testing.assert_array_equal(part.sum(axis=1), 1.0)


def test_a_null_elsewhere_in_a_typed_column_does_not_change_a_record():
    whole = frame(race=["x", "x"], job=[1, 2])
    with_null = frame(race=["x", "x"], job=[1, None])
    schema = Schema(label=SCHEMA.label, columns=(Categorical(name="job", categories=("1", "2")),))
    np.testing.assert_array_equal(schema.encode(whole)[0], schema.encode(with_null)[0])
    assert schema.encode(with_null)[0].tolist() == [1, 0, 0]


def test_a_column_of_texts_reads_as_its_values_do_one_by_one():
    values = ["30", " 30", "?", "", "1e3", "nan", "30"]
    together = SCHEMA.encode(frame(hours=values, job=values))
    alone = [SCHEMA.encode(frame(hours=[value], job=[value]))[0] for value in values]
    mixed = SCHEMA.encode(frame(hours=[*values, 30], job=[*values, True]))[:-1]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, mixed)


def test_linear_values_are_mapped_from_the_bounds_and_clamped():
    x = SCHEMA.encode(frame(hours=[10, 40, 70, -5, 500, "25"]))[:, 0]
    np.testing.assert_allclose(x, [-1, 0, 1, -1, 1, -0.5])


def test_log1p_is_the_logarithm_of_one_plus_the_value():
    x = SCHEMA.encode(frame(gain=[0, 9, 999, 10**7]))[:, 1]
    np.testing.assert_allclose(x, [0, math.log(10) / math.log(1000), 1, 1], rtol=1e-6)


def test_missing_numbers_become_the_public_fill_or_the_middle_of_the_bounds():
    x = SCHEMA.encode(frame(gain=["?", None, "n/a"], height=["?", math.nan, ""]))
    np.testing.assert_array_equal(x[:, 1], 0)
    np.testing.assert_array_equal(x[:, SCHEMA.feature_names.index("height")], 0.5)


def test_bins_are_closed_on_the_left_and_the_last_on_both_sides():
    names = SCHEMA.groups(frame(age=[17, 24, 25, 44, 45, 90, 200, 3]))["age"].tolist()
    low, middle, high = "[17, 25)", "[25, 45)", "[45, 90]"
    assert names == [low, low, middle, middle, high, high, high, low]
    x = SCHEMA.encode(frame(age=[24, 25, 90]))
    columns = [SCHEMA.feature_names.index(f"age={name}") for name in (low, middle, high)]
    np.testing.assert_array_equal(x[:, columns], np.eye(3))


def test_unlisted_and_missing_values_have_a_category_of_their_own():
    x = SCHEMA.encode(frame(job=["a", "b", "wasp", "zebra", "?", None]))
    columns = [SCHEMA.feature_names.index(f"job={name}") for name in ("a", "b", "unknown")]
    assert x[:, columns].argmax(axis=1).tolist() == [0, 1, 1, 2, 2, 2]


def test_unlisted_values_may_join_a_listed_category():
    assert SCHEMA.groups(frame(race=["x", "unheard of", "?"]))["race"].tolist() == ["x", "Other", "Other"]
    assert "race=unknown" not in SCHEMA.feature_names


def test_only_numeric_mutable_features_are_perturbable():
    named = dict(zip(SCHEMA.feature_names, SCHEMA.perturbable.tolist(), strict=True))
    assert {name for name, yes in named.items() if yes} == {"hours", "gain"}
    fixed = dict(zip(SCHEMA.feature_names, SCHEMA.immutable.tolist(), strict=True))
    assert {name.split("=")[0] for name, yes in fixed.items() if yes} == {"age", "height", "race"}


def test_features_are_either_linear_or_in_exactly_one_one_hot_group():
    grouped = [index for group in SCHEMA.one_hot for index in group]
    assert len(grouped) == len(set(grouped))
    linear = set(range(len(SCHEMA.feature_names))) - set(grouped)
    assert {SCHEMA.feature_names[index] for index in linear} == {"hours", "gain", "height"}


def test_moving_a_perturbable_feature_inside_its_bounds_gives_the_encoding_of_a_possible_record():
    base, index = SCHEMA.encode(frame(hours=[40])), SCHEMA.feature_names.index("hours")
    moved = base.copy()
    moved[0, index] += 0.25
    np.testing.assert_allclose(moved, SCHEMA.encode(frame(hours=[40 + 0.25 * 30])), atol=1e-6)


def test_labels_are_class_indices_and_strange_or_missing_ones_are_refused():
    assert SCHEMA.answers(frame(y=["no", " yes", "no"])).tolist() == [0, 1, 0]
    with pytest.raises(DataError, match=r"'yess'.*no, yes.*Did you mean 'yes'"):
        SCHEMA.answers(frame(y=["no", "yess"]))
    with pytest.raises(DataError, match="missing in 2 of 3"):
        SCHEMA.answers(frame(y=["no", "?", None]))


def test_integer_labels_read_the_same_in_integer_and_float_columns():
    schema = Schema(label=Label(column="y", classes=("0", "1")), columns=SCHEMA.columns)
    assert schema.answers(frame(y=[0, 1])).tolist() == schema.answers(frame(y=[0.0, 1.0])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 5, "high": 5}, "low < high"),
        ({"low": 0, "high": math.inf}, "finite"),
        ({"low": -1, "high": 5, "transform": "log1p"}, "log1p"),
        ({"low": 0, "high": 5, "fill": 9}, "fill"),
        ({"low": 0, "high": 5, "bins": (2, 1), "encoding": "bins"}, "rising bins"),
        ({"low": 0, "high": 5, "bins": (0,), "encoding": "bins"}, "rising bins"),
        ({"low": 0, "high": 5, "encoding": "bins"}, "no bins"),
        ({"low": 0, "high": 5, "bins": (1,)}, "nothing uses"),
        ({"low": 0, "high": 5, "bins": (1,), "encoding": "bins", "transform": "log1p"}, "no effect"),
        ({"low": 0, "high": 5, "group": True}, "group_bins"),
        ({"low": 0, "high": 5, "encoded": (1, 1)}, "encoded"),
    ],
)
def test_numeric_columns_that_contradict_themselves_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        Numeric(name="n", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"categories": ()}, "no categories"),
        ({"categories": ("a", "a")}, "twice"),
        ({"categories": ("a", "b"), "merge": {"a": ("b",)}}, "twice"),
        ({"categories": ("alpha",), "merge": {"alfa": ("b",)}}, "Did you mean 'alpha'"),
    ],
)
def test_categorical_columns_that_contradict_themselves_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        Categorical(name="c", **options)


def test_the_label_may_not_be_a_feature():
    with pytest.raises(DataError, match="read the answer"):
        Schema(label=Label(column="hours", classes=("0", "1")), columns=SCHEMA.columns)


def test_a_schema_needs_columns_with_different_names_and_two_classes():
    with pytest.raises(DataError, match="no columns"):
        Schema(label=SCHEMA.label, columns=())
    with pytest.raises(DataError, match="'hours' twice"):
        Schema(label=SCHEMA.label, columns=SCHEMA.columns[:1] * 2)
    with pytest.raises(DataError, match="two or more"):
        Label(column="y", classes=("only",))


def test_missing_columns_are_named_with_the_nearest_and_all_present_ones():
    with pytest.raises(DataError, match=r"no label column 'y'.*Columns: hours, gain"):
        SCHEMA.check(frame(y=["no"]).drop(columns="y"), "my.csv")
    renamed = frame(y=["no"]).rename(columns={"hours": "hour"})
    with pytest.raises(DataError, match=r"my.csv lacks the columns hours\. Did you mean 'hour'"):
        SCHEMA.check(renamed, "my.csv")
    with pytest.raises(DataError, match="lack the columns hours"):
        SCHEMA.encode(renamed)


def test_a_frame_with_two_columns_of_one_name_is_refused():
    twice = frame(y=["no"]).rename(columns={"gain": "hours"})
    with pytest.raises(DataError, match=r"my\.csv has 2 columns of the same name 'hours'"):
        SCHEMA.check(twice, "my.csv")
    unused = frame(y=["no"]).assign(a=0, b=0).rename(columns={"b": "a"})
    SCHEMA.check(unused, "my.csv")


def test_a_split_value_that_is_neither_is_refused():
    split = Split(column="part", train="t", evaluation="e")
    held, kept = split.indices(pd.DataFrame({"part": ["t", "e", "t"]}), "my.csv")
    assert (held.tolist(), kept.tolist()) == ([1], [0, 2])
    with pytest.raises(DataError, match=r"'v' in the split column 'part'.*'t' or 'e'"):
        split.indices(pd.DataFrame({"part": ["t", "v"]}), "my.csv")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("hours", ["40,5", None, "38,0"], r"my\.csv.* 'hours', for example '40,5'.*point instead of a comma"),
        ("age", ["young", "old", "?"], "'age', for example 'young'.*describe this one as categorical"),
        ("hours", ["nan", "nan", "nan"], "'hours', for example 'nan'"),
        ("job", ["A", "", "B"], "'job', for example 'A'.*such as 'a'.*Add its values to the categories"),
    ],
)
def test_a_column_of_which_nothing_can_be_read_is_refused_with_a_remedy(column, values, message):
    with pytest.raises(DataError, match=message):
        SCHEMA.check_values(frame(**{column: values}), "my.csv")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("hours", ["forty", "40", "?"]),
        ("hours", ["?", None, ""]),
        ("job", ["A", "wasp", "B"]),
        ("job", ["unknown", "unknown", ""]),
        ("job", [None, "?", ""]),
    ],
)
def test_a_column_that_is_partly_readable_or_wholly_missing_is_accepted(column, values):
    SCHEMA.check_values(frame(**{column: values}), "my.csv")


def test_a_missing_value_can_have_an_interval_of_its_own():
    column = Numeric(name="bmi", low=15, high=50, encoding="bins", bins=(25, 30), unknown="missing")
    schema = Schema(label=SCHEMA.label, columns=(column,), missing=("?",))
    assert schema.feature_names == ("bmi=[15, 25)", "bmi=[25, 30)", "bmi=[30, 50]", "bmi=missing")
    x = schema.encode(pd.DataFrame({"bmi": ["20", "25", "99", "?", "", "fat", "nan"]}))
    assert x.argmax(axis=1).tolist() == [0, 1, 2, 3, 3, 3, 3]
    assert (x.sum(axis=1) == 1).all()
    with pytest.raises(DataError, match="no fill"):
        Numeric(name="bmi", low=15, high=50, encoding="bins", bins=(25,), unknown="missing", fill=20)


TARGET = Schema(target=Target(name="dose", low=0, high=10), columns=SCHEMA.columns[:1], holders=("clinic",))


def test_a_target_is_clamped_and_encoded_and_a_missing_one_is_refused():
    y = TARGET.answers(pd.DataFrame({"dose": ["0", "5", "20", "-1", "1e999"]}))
    assert y.dtype == np.float32
    assert y.tolist() == [-1, 0, 1, -1, 1]
    for value in ("", "much", "nan"):
        with pytest.raises(DataError, match=r"target 'dose' of record 2 is .*, not a number"):
            TARGET.answers(pd.DataFrame({"dose": ["1", value]}))


def test_holders_are_named_for_every_record():
    owners = TARGET.owners(pd.DataFrame({"clinic": [1, 2.0, " b "]}, dtype=object))
    assert owners["clinic"].tolist() == ["1", "2", "b"]
    with pytest.raises(DataError, match="Record 2 has no value in the holder column 'clinic'"):
        TARGET.owners(pd.DataFrame({"clinic": ["a", ""]}))
    with pytest.raises(DataError, match="lacks the columns clinic"):
        TARGET.check(pd.DataFrame({"dose": [1], "hours": [1]}), "t")
    with pytest.raises(DataError, match=r"no target column 'dose'\. Did you mean 'dosage'"):
        TARGET.check(pd.DataFrame({"dosage": [1], "hours": [1], "clinic": [1]}), "t")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "either a label, with its classes, or a target"),
        ({"label": SCHEMA.label, "target": TARGET.target}, "either a label"),
        ({"target": Target(name="hours", low=0, high=1)}, "The target 'hours' is also a feature column"),
        ({"label": SCHEMA.label, "holders": ("y",)}, "The label 'y' is also a holder column"),
    ],
)
def test_what_is_predicted_is_named_once_and_is_no_feature(parts, message):
    with pytest.raises(DataError, match=message):
        Schema(columns=SCHEMA.columns[:1], **parts)
