"""Raw rows and arrays become the inputs that training had, or are refused with the field that is wrong."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsafe.data import ArraySchema, Categorical, Label, Numeric, Schema, load_task
from fedsafe.serve.instances import MOST_PROBLEMS, Instances, WrongInstance

SCHEMA = Schema(
    label=Label(column="y", classes=("no", "yes")),
    columns=(
        Numeric(name="age", low=17, high=90, encoding="bins", bins=(25, 45), unknown="not said"),
        Numeric(name="gain", low=0, high=1000, transform="log1p", fill=5, encoded=(-1.0, 1.0)),
        Numeric(name="hours", low=1, high=99),
        Categorical(name="work", categories=("Private", "State", "1"), merge={"State": ("Fed", "Local")}),
        Categorical(name="sex", categories=("F", "M"), unknown="F"),
    ),
    missing=("?",),
)
READ = Instances(SCHEMA)
ROW = {"age": 30, "gain": 10.5, "hours": 40, "work": "Private", "sex": "M"}


def of(row):
    return READ.encode([row])[0]


NUMBERS = st.one_of(
    st.none(), st.integers(-10, 2000), st.floats(-1e6, 1e6, allow_nan=False), st.just("?"), st.just(" 30 ")
)


@given(
    st.builds(
        lambda age, gain, hours, work, sex: {
            "age": age,
            "gain": gain,
            "hours": hours,
            "work": work,
            "sex": sex,
        },
        *[NUMBERS] * 3,
        st.sampled_from(["Private", "State", "Fed", "Local", "1", 1, 1.0, None, "?", "", " Fed "]),
        st.sampled_from(["F", "M", None, "?"]),
    )
)
@settings(max_examples=150)
def test_a_row_is_encoded_as_the_same_record_in_a_data_frame(row):
    frame = pd.DataFrame([row], dtype=object)
    np.testing.assert_allclose(of(row), SCHEMA.encode(frame)[0], rtol=0, atol=1e-7)


def test_real_rows_are_encoded_as_their_task_has_them():
    schema = load_task("adult").schema
    raw = {
        column.name: (column.low + 3 if isinstance(column, Numeric) else column.categories[-1])
        for column in schema.columns
    }
    encoded = Instances(schema).encode([raw, raw])
    np.testing.assert_array_equal(encoded[1], encoded[0])
    np.testing.assert_allclose(encoded[0], schema.encode(pd.DataFrame([raw]))[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"sex": "male"}, "sex", "no category"),
        ({"work": "Privat"}, "work", "Did you mean 'Private'"),
        ({"work": ["Private"]}, "work", "a list"),
        ({"work": True}, "work", "no category"),
        ({"hours": "forty"}, "hours", "no number"),
        ({"hours": True}, "hours", "true or false"),
        ({"hours": {}}, "hours", "an object"),
        ({"hours": math.inf}, "hours", "no finite number"),
        ({"hours": math.nan}, "hours", "no finite number"),
        ({"hours": "nan"}, "hours", "no finite number"),
        ({"hours": 10**400}, "hours", "no finite number"),
        ({"agee": 3}, "agee", "Did you mean 'age'"),
        ({"y": "no"}, "y", "no column"),
    ],
)
def test_what_is_wrong_is_refused_with_its_field(change, field, message):
    with pytest.raises(WrongInstance) as refused:
        READ.encode([ROW, {**ROW, **change}])
    first = refused.value.problems[0]
    assert (first.instance, first.field) == (1, field)
    assert message in first.message


def test_a_missing_column_is_refused_and_null_is_not():
    with pytest.raises(WrongInstance, match="'hours': it is missing"):
        of({name: value for name, value in ROW.items() if name != "hours"})
    of({**ROW, "hours": None})
    # The wrong name is said before what it leaves out.
    wrong = {"hour" if name == "hours" else name: value for name, value in ROW.items()}
    with pytest.raises(WrongInstance) as refused:
        of(wrong)
    assert [problem.field for problem in refused.value.problems] == ["hour", "hours"]


def test_a_long_value_is_cut_and_problems_are_bounded():
    with pytest.raises(WrongInstance) as refused:
        READ.encode([{**ROW, "sex": "x" * 10_000}] * 1000)
    assert len(refused.value.problems) == MOST_PROBLEMS
    assert len(refused.value.problems[0].message) < 200
    with pytest.raises(WrongInstance) as refused:
        of({**ROW, **{f"c{i}" * 1000: 1 for i in range(1000)}})
    assert len(refused.value.problems) == MOST_PROBLEMS
    assert len(refused.value.problems[0].field) < 100


def test_a_file_may_have_more_columns():
    np.testing.assert_array_equal(Instances(SCHEMA, loose=True).encode([{**ROW, "id": 7}])[0], of(ROW))


IMAGES = Instances(ArraySchema(shape=(1, 2, 2), lowest=0.0, highest=1.0))


def test_arrays_are_taken_as_they_are():
    np.testing.assert_array_equal(
        IMAGES.encode([[[[0, 0.5], [1, 1]]]]), np.array([[[[0, 0.5], [1, 1]]]], np.float32)
    )


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        ([[[0, 1], [1]]], "no array of numbers"),
        ([[[0, "1"], [1, 0]]], "no array of numbers"),
        ([[[0, None], [1, 0]]], "no array of numbers"),
        ([[[0, True], [1, 0]]], "no array of numbers"),
        ([[[True, True], [True, True]]], "no array of numbers"),
        ([[[0, 10**400], [1, 0]]], "no array of numbers|not finite"),
        ([[0, 1], [1, 0]], "has the shape 2 x 2; give numbers in 1 x 2 x 2"),
        (0, "has the shape one number"),
        ({}, "no array of numbers"),
        ("text", "no array of numbers"),
        ([[[0, math.inf], [1, 0]]], "not finite"),
        ([[[0, 1e300], [1, 0]]], "not finite"),
    ],
)
def test_wrong_arrays_are_refused(instance, message):
    with pytest.raises(WrongInstance, match=message):
        IMAGES.encode([instance])
