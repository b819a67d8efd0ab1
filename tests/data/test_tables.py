"""A user's own table becomes a task, or an error that names the file and the remedy."""

import gzip

import numpy as np
import pandas as pd
import pytest

from fedsafe.data import Examples, Label, Numeric, Schema, Source, Task, load_task, task_from_frame
from fedsafe.errors import ConfigError, DataError

SCHEMA = """
format = "fedsafe.schema/1"
note = "a note"
{extra}
[label]
column = "bought"
classes = ["no", "yes"]
{split}
[columns.age]
kind = "numeric"
low = 0
high = 100
group = true
group_bins = [50]
[columns.shop]
kind = "categorical"
categories = ["north", "south"]
"""
ROWS = pd.DataFrame(
    {
        "age": [10, 20, 30, 40, 50, 60, 70, 80, 90, 100],
        "shop": ["north", "south"] * 5,
        "bought": ["no", "yes", "no", "yes", "no", "yes", "no", "yes", "no", "yes"],
        "part": ["a"] * 7 + ["b"] * 3,
        "ignored": range(10),
    }
)
SPLIT = '[split]\ncolumn = "part"\ntrain = "a"\nevaluation = "b"'


@pytest.fixture
def spec(tmp_path):
    def make(name="shop.csv", extra="", split="", frame=ROWS, **more):
        path, schema = tmp_path / name, tmp_path / "shop.schema.toml"
        if name.endswith(".parquet"):
            frame.to_parquet(path)
        else:
            frame.to_csv(path, index=False)
        schema.write_text(SCHEMA.format(extra=extra, split=split))
        return {"path": str(path), "schema": str(schema), **more}

    return make


def test_csv_compressed_csv_and_parquet_give_the_same_task(spec):
    tasks = [load_task(spec(name)) for name in ("shop.csv", "shop.csv.gz", "shop.csv.xz", "shop.parquet")]
    for task in tasks[1:]:
        np.testing.assert_array_equal(task.train.x, tasks[0].train.x)
        np.testing.assert_array_equal(task.evaluation.y, tasks[0].evaluation.y)
    assert tasks[0].name == "shop"
    assert tasks[0].kind == "binary"
    assert tasks[0].schema.feature_names == ("age", "shop=north", "shop=south", "shop=unknown")


def test_the_held_out_part_is_seeded_and_disjoint_and_of_the_asked_size(spec):
    def ages(part):
        return sorted(np.round(part.x[:, 0] * 100).astype(int).tolist())

    task = load_task(spec(evaluation_fraction=0.3))
    assert len(task.evaluation) == 3
    assert sorted(ages(task.train) + ages(task.evaluation)) == ROWS["age"].tolist()
    assert ages(load_task(spec(evaluation_fraction=0.3)).evaluation) == ages(task.evaluation)
    others = {
        tuple(ages(load_task(spec(evaluation_fraction=0.3, seed=seed)).evaluation)) for seed in range(8)
    }
    assert len(others) > 1
    assert len(load_task(spec()).evaluation) == 2


def test_evaluation_records_are_public_only_if_the_schema_says_so(spec):
    private = load_task(spec())
    assert not private.evaluation_public
    assert "private: each figure computed on them is a release" in private.evaluation_name
    public = load_task(spec(extra='evaluation = "public"'))
    assert public.evaluation_public
    assert public.evaluation_name == "shop.csv, 20% held out with seed 0 (public)"


def test_a_split_column_decides_which_records_are_for_evaluation(spec):
    task = load_task(spec(split=SPLIT))
    assert np.round(task.evaluation.x[:, 0] * 100).astype(int).tolist() == [80, 90, 100]
    assert "split column 'part'" in task.evaluation_name
    with pytest.raises(ConfigError, match="contradicts the split column 'part'"):
        load_task(spec(split=SPLIT, evaluation_fraction=0.2))


def test_the_source_tells_no_checksum_of_private_records(spec):
    """Whoever knows all records but one could test the last one against it."""
    source = load_task(spec()).source
    assert source.sha256 == ""
    assert (source.name, source.licence, source.note) == ("shop.csv", "not stated", "a note")


def test_changing_one_cell_of_a_csv_file_to_text_changes_no_other_record(spec):
    before = load_task(spec())
    changed = ROWS.astype(object)
    changed.loc[3, ["age", "shop"]] = ["forty", ""]
    after = load_task(spec(frame=changed))
    different = [
        (a.x != b.x).any(axis=1).sum()
        for a, b in ((before.train, after.train), (before.evaluation, after.evaluation))
    ]
    assert sum(different) == 1


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 0.01, 0.99, float("nan")])
def test_a_fraction_that_leaves_a_part_empty_is_refused(spec, fraction):
    with pytest.raises(ConfigError, match="leaves a part empty"):
        load_task(spec(evaluation_fraction=fraction))


def test_a_missing_file_is_named(spec, tmp_path):
    asked = spec()
    (tmp_path / "shop.csv").unlink()
    with pytest.raises(DataError, match=r"shop\.csv cannot be read: No such file"):
        load_task(asked)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("shop.parquet", b"not parquet"),
        ("shop.csv", b""),
        ("shop.csv", b"a,b\n1,2,3,4\n1,2\n1,2,3,4,5\n"),
        ("shop.csv", b"a,b\n\xff\xfe,2\n"),
        ("shop.csv.gz", b"not gzip"),
        ("shop.csv.gz", gzip.compress(b"age,shop\n" * 1000)[:30]),
        ("shop.csv.xz", b"not xz"),
        ("shop.csv.zip", b"not zip"),
    ],
)
def test_an_unreadable_file_is_named(spec, tmp_path, name, content):
    asked = spec("shop.csv") | {"path": str(tmp_path / name)}
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} cannot be (parsed|read)"):
        load_task(asked)


def test_another_file_type_is_refused(spec, tmp_path):
    with pytest.raises(DataError, match="neither CSV nor Parquet"):
        load_task(spec() | {"path": str(tmp_path / "shop.xlsx")})


def test_columns_and_labels_that_are_missing_are_named(spec):
    with pytest.raises(
        DataError, match=r"no label column 'bought'\. Did you mean 'bough'.*Columns: age, shop, bough"
    ):
        load_task(spec(frame=ROWS.rename(columns={"bought": "bough"})))
    with pytest.raises(DataError, match="lacks the columns shop"):
        load_task(spec(frame=ROWS.drop(columns="shop")))
    with pytest.raises(DataError, match="lacks the columns part"):
        load_task(spec(frame=ROWS.drop(columns="part"), split=SPLIT))


def test_a_column_name_that_the_schema_uses_and_the_file_has_twice_is_refused(spec, tmp_path):
    asked = spec()
    (tmp_path / "shop.csv").write_text("age,shop,bought,age\n10,north,no,90\n20,south,yes,80\n")
    with pytest.raises(DataError, match=r"shop\.csv has 2 columns of the same name 'age'"):
        load_task(asked)
    ignored = ROWS.assign(more=0).rename(columns={"more": "ignored"})
    assert len(load_task(spec(frame=ignored)).train) == 8


def test_a_column_of_which_nothing_can_be_read_is_refused(spec):
    with pytest.raises(DataError, match=r"shop\.csv.*'age', for example '1,5'.*instead of a comma"):
        load_task(spec(frame=ROWS.assign(age="1,5")))
    with pytest.raises(DataError, match=r"'shop', for example 'North'.*such as 'north'"):
        load_task(spec(frame=ROWS.assign(shop="North")))


def test_a_single_class_and_an_empty_table_are_refused(spec):
    with pytest.raises(DataError, match="has the label 'no': nothing can be learned"):
        load_task(spec(frame=ROWS.assign(bought="no")))
    with pytest.raises(DataError, match="has no records"):
        load_task(spec(frame=ROWS.iloc[:0]))


def test_a_table_with_a_target_and_holders_is_a_regression_with_natural_clients(tmp_path):
    (tmp_path / "doses.csv").write_text(
        "age,dose,clinic\n" + "".join(f"{k},{k / 2},c{k % 3}\n" for k in range(30))
    )
    (tmp_path / "doses.toml").write_text(
        'format = "fedsafe.schema/1"\nholders = ["clinic"]\n[target]\ncolumn = "dose"\nlow = 0\nhigh = 10\n'
        '[columns.age]\nkind = "numeric"\nlow = 0\nhigh = 100\n'
    )
    task = load_task({"path": str(tmp_path / "doses.csv"), "schema": str(tmp_path / "doses.toml")})
    assert (task.kind, task.classes, task.target.name) == ("regression", (), "dose")
    for part in (task.train, task.evaluation):
        ages = np.round(part.x[:, 0] * 100)
        np.testing.assert_allclose(task.target.decode(part.y), np.clip(ages / 2, 0, 10), atol=1e-5)
        assert part.holders["clinic"].tolist() == [f"c{age % 3:.0f}" for age in ages]


def matrix_task(classes=("a", "b", "c"), labels=(0, 1, 2, 0, 1, 2)) -> Task:
    schema = Schema(label=Label(column="y", classes=classes), columns=(Numeric(name="x", low=0, high=10),))
    frame = pd.DataFrame({"x": range(len(labels)), "y": [classes[i] for i in labels]})
    return task_from_frame(
        frame,
        schema,
        name="m",
        origin="m",
        evaluation_name="held out",
        source=Source(name="m"),
        evaluation_fraction=0.34,
    )


def test_three_classes_make_a_multiclass_task_with_one_output_each():
    task = matrix_task()
    assert (task.kind, task.outputs, task.features) == ("multiclass", 3, 1)


def test_validation_is_held_out_of_the_training_records():
    task = matrix_task(labels=(0, 1, 2) * 20)
    inner = task.with_validation(0.25, seed=3)
    assert len(inner.evaluation) == round(0.25 * len(task.train))
    together = np.sort(np.concatenate([inner.train.x, inner.evaluation.x]).ravel())
    np.testing.assert_array_equal(together, np.sort(task.train.x.ravel()))
    assert "held out with seed 3 (private)" in inner.evaluation_name
    assert not inner.evaluation_public
    np.testing.assert_array_equal(inner.evaluation.x, task.with_validation(0.25, seed=3).evaluation.x)
    with pytest.raises(ConfigError, match="leaves a part empty"):
        task.with_validation(1.0, seed=3)


def test_taking_records_takes_their_labels_and_groups():
    examples = Examples(x=np.eye(3), y=[0, 1, 2], groups={"g": ["p", "q", "r"]})
    part = examples.take(np.array([2, 0]))
    assert part.y.tolist() == [2, 0]
    assert part.groups["g"].tolist() == ["r", "p"]
    np.testing.assert_array_equal(part.x, np.eye(3)[[2, 0]])
    assert part.x.dtype == np.float32
    assert part.x.flags.c_contiguous


@pytest.mark.parametrize(
    ("x", "y", "groups", "message"),
    [
        (np.zeros(3), [0, 1, 0], {}, "shape"),
        (np.zeros((3, 1)), [0, 1], {}, "shape"),
        (np.zeros((2, 1)), [0, 1], {"g": ["p"]}, "'g'"),
        (np.full((2, 1), np.nan), [0, 1], {}, "not finite"),
    ],
)
def test_examples_that_do_not_fit_together_are_refused(x, y, groups, message):
    with pytest.raises(DataError, match=message):
        Examples(x=x, y=y, groups=groups)


def test_tasks_that_do_not_fit_together_are_refused():
    from dataclasses import replace

    task = matrix_task()
    with pytest.raises(DataError, match="binary but has 3 classes"):
        replace(task, kind="binary")
    with pytest.raises(DataError, match="no evaluation records"):
        replace(task, evaluation=task.evaluation.take(np.empty(0, np.int64)))
    with pytest.raises(DataError, match="2 features, the schema 1"):
        replace(task, train=Examples(x=np.zeros((2, 2)), y=[0, 1]))
    with pytest.raises(DataError, match=r"training label lies outside 0\.\.2"):
        replace(task, train=Examples(x=np.zeros((2, 1)), y=[0, 3]))
