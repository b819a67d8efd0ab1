"""The description of a partition adds up to the records it describes."""

import numpy as np
import pandas as pd
import pytest

from fedsafe.data import (
    Categorical,
    Label,
    Schema,
    Source,
    Task,
    as_task,
    federate,
    partition,
    task_from_frame,
)
from fedsafe.data.describe import describe, draw, federation_text, holdings, summary_text
from fedsafe.errors import ConfigError, DataError


def task(groups: bool = True) -> Task:
    schema = Schema(
        label=Label(column="y", classes=("z", "a")),
        columns=(Categorical(name="sex", categories=("m", "f"), group=groups),),
    )
    frame = pd.DataFrame({"y": ["z", "a", "z"] * 40, "sex": ["m", "f", "f", "f"] * 30})
    return task_from_frame(
        frame, schema, name="t", origin="t", evaluation_name="held out", source=Source(name="t")
    )


def test_shares_are_those_of_each_clients_records():
    t = task()
    parts = partition(t.train.y, 7, {"name": "dirichlet", "alpha": 0.5}, 0)
    frame = describe(t, parts)
    assert frame.columns.tolist() == ["records", "label=z", "label=a", "sex=f", "sex=m"]
    assert frame["records"].sum() == len(t.train)
    for client, part in enumerate(parts):
        assert frame.loc[client, "label=a"] == pytest.approx((t.train.y[part] == 1).mean())
        assert frame.loc[client, "sex=m"] == pytest.approx((t.train.groups["sex"][part] == "m").mean())
    np.testing.assert_allclose(frame["label=z"] + frame["label=a"], 1)
    np.testing.assert_allclose(frame["sex=f"] + frame["sex=m"], 1)


def test_the_text_has_the_totals_and_the_range_of_client_sizes():
    t = task()
    text = summary_text(t, [np.arange(10), np.arange(10, 96)])
    assert "t: 96 training records, 24 for evaluation (held out), 3 features" in text
    assert "2 clients with 10 to 86 records, median 48" in text
    overall = (t.train.groups["sex"] == "m").mean()
    assert any(line.startswith("sex=m") and f"{overall:.1%}" in line for line in text.splitlines())


@pytest.mark.parametrize("groups", [True, False])
def test_the_picture_is_a_png_of_a_readable_size(tmp_path, groups):
    t = task(groups)
    path = draw(t, partition(t.train.y, 5, {"name": "iid"}, 0), tmp_path / "new" / "clients.png")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert width >= 1200
    assert height >= 700


@pytest.mark.parametrize(("suffix", "start"), [(".PNG", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_name_of_the_picture_decides_its_format(tmp_path, suffix, start):
    assert draw(task(), [np.arange(96)], tmp_path / f"clients{suffix}").read_bytes().startswith(start)


@pytest.mark.parametrize("name", ["clients.txt", "clients", "clients.png.gz"])
def test_another_kind_of_file_is_refused_and_not_written(tmp_path, name):
    with pytest.raises(ConfigError, match=rf"{name} is no picture: use a name that ends in \.png"):
        draw(task(), [np.arange(96)], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_written_and_an_empty_client_are_refused(tmp_path):
    t = task()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        draw(t, [np.arange(96)], tmp_path / "file" / "clients.png")
    with pytest.raises(DataError, match="at least one record"):
        describe(t, [np.arange(96), np.arange(0)])
    with pytest.raises(DataError, match="at least one client"):
        describe(t, [])


def other_tasks() -> list[Task]:
    rng = np.random.default_rng(0)
    x, site = rng.random((60, 1, 3, 3)), {"site": np.repeat(["north", "south"], [40, 20])}
    tokens = rng.integers(0, 30, (60, 6))
    return [
        as_task((x, rng.random(60) * 10), name="dose", low=0, high=1, target=(0, 10), holders=site),
        as_task((tokens[:, :-1], tokens[:, 1:]), name="words", tokens=30, holders=site),
        as_task((x, rng.integers(0, 12, 60)), name="shapes", low=0, high=1, classes=12, holders=site),
    ]


@pytest.mark.parametrize("t", other_tasks(), ids=lambda t: t.name)
def test_shares_of_every_kind_of_target_sum_to_one_and_are_drawn(t, tmp_path):
    cut = federate(t, clients=None, partition={"name": "natural"}, seed=0)
    frame = describe(t, cut.records)
    np.testing.assert_allclose(frame.drop(columns="records").sum(axis=1), 1)
    assert draw(t, cut.records, tmp_path / "p.png", cut.names).read_bytes().startswith(b"\x89PNG")
    assert "largest clients: north (" in federation_text(cut)


def test_the_intervals_of_a_regression_are_those_of_its_public_bounds():
    dose = other_tasks()[0]
    frame = describe(dose, [np.arange(len(dose.train))])
    assert frame.columns[1:].tolist() == ["y=0 to 2", "y=2 to 4", "y=4 to 6", "y=6 to 8", "y=8 to 10"]
    values = dose.target.decode(dose.train.y)
    assert frame.loc[0, "y=2 to 4"] == pytest.approx(((values >= 2) & (values < 4)).mean())
    assert "inputs of 1 x 3 x 3" in summary_text(dose, [np.arange(len(dose.train))])


def test_the_most_frequent_tokens_are_named_and_the_others_counted_together():
    words = other_tasks()[1]
    frame = describe(words, [np.arange(len(words.train))])
    assert len(frame.columns) == 1 + 8 + 1
    counts = np.bincount(words.train.y.ravel(), minlength=30)
    assert frame.iloc[0, 1] == pytest.approx(counts.max() / counts.sum())
    assert frame.columns[1] == f"token='{counts.argmax()}'"
    assert frame.columns[-1] == "token=others"
    assert "windows of 5 tokens out of 30" in summary_text(words, [np.arange(len(words.train))])


def test_held_out_clients_and_own_validation_are_told():
    cut = federate(task(), clients=8, partition={"name": "iid"}, held_out=0.25, client_validation=0.5, seed=0)
    text = federation_text(cut)
    assert "6 clients with 12 to 12 records" in text
    assert "24 records more belong to held-out clients" in text
    assert "36 of the training records are kept by their clients" in text
    assert sorted(np.concatenate(holdings(cut)).tolist()) == list(range(72))
