"""The description of a partition adds up to the records it describes."""

import numpy as np
import pandas as pd
import pytest

from fedsafe.data import Categorical, Label, Schema, Source, Task, partition, task_from_frame
from fedsafe.data.describe import describe, draw, summary_text
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
