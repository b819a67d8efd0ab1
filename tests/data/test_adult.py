"""The task adult is UCI Adult, record for record, wherever it was read from."""

import hashlib
import os
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsafe.data import Task, load_task
from fedsafe.data.catalogue import adult as source
from fedsafe.data.catalogue.adult import JOINED, JOINED_SHA256, ORIGINAL, load_adult, parse_original
from fedsafe.data.sources import RemoteFile
from fedsafe.errors import DataError

FILES = resources.files("fedsafe.data") / "files"


@cache
def adult() -> Task:
    return load_adult(environment={})


@cache
def raw() -> pd.DataFrame:
    return source._parse_joined((FILES / JOINED).read_bytes())


@cache
def originals() -> dict[str, bytes]:
    """The two files in UCI's own format, rebuilt from the joined one."""
    files = {}
    for name, split, head, stop in (
        ("adult.data", "train", "", ""),
        ("adult.test", "test", "|1x3 Cross validator\n", "."),
    ):
        rows = raw()[raw()["split"] == split].drop(columns="split").itertuples(index=False, name=None)
        files[name] = (head + "".join(f"{', '.join(row)}{stop}\n" for row in rows) + "\n").encode()
    return files


def test_the_original_split_and_label_rates_are_kept():
    task = adult()
    assert (len(task.train), len(task.evaluation)) == (32_561, 16_281)
    assert (int(task.train.y.sum()), int(task.evaluation.y.sum())) == (7_841, 3_846)
    assert (task.kind, task.classes, task.outputs) == ("binary", ("<=50K", ">50K"), 1)
    assert task.evaluation_public
    assert task.evaluation_name == "UCI Adult test split (public)"
    assert task.source.sha256 == JOINED_SHA256
    assert task.source.licence == "CC BY 4.0"
    assert "fnlwgt" in task.source.note


def test_groups_partition_the_records_as_published():
    groups = adult().train.groups
    assert set(groups) == {"sex", "race", "age"}
    count = {
        name: dict(zip(*np.unique(values, return_counts=True), strict=True))
        for name, values in groups.items()
    }
    assert count["sex"] == {"Female": 10_771, "Male": 21_790}
    assert count["race"] == {
        "White": 27_816, "Black": 3_124, "Asian-Pac-Islander": 1_039, "Amer-Indian-Eskimo": 311, "Other": 271,
    }  # fmt: skip
    assert sum(count["age"].values()) == 32_561


def test_the_survey_weight_and_the_repeated_education_are_no_features():
    columns = {name.split("=")[0] for name in adult().schema.feature_names}
    assert columns == set(raw().columns) - {"fnlwgt", "education-num", "income", "split"}


def test_protected_attributes_are_immutable():
    schema = adult().schema
    fixed = {
        name.split("=")[0] for name, yes in zip(schema.feature_names, schema.immutable, strict=True) if yes
    }
    assert fixed == {"age", "race", "sex", "native-country"}


def test_only_missing_values_fall_into_an_unknown_category():
    x, names = adult().train.x, adult().schema.feature_names
    unknown = {
        name.split("=")[0]: int(x[:, i].sum()) for i, name in enumerate(names) if name.endswith("=unknown")
    }
    train = raw()[raw()["split"] == "train"]
    for column, count in unknown.items():
        # "South" names no country.
        expected = int(train[column].isin(["?", "South"]).sum())
        assert count == expected, column


def test_the_norms_of_the_records_are_even():
    norms = np.linalg.norm(adult().train.x, axis=1)
    assert norms.std() / norms.mean() < 0.08


def test_changing_one_record_of_the_file_changes_no_other_record():
    schema = adult().schema
    part = raw().head(300)
    before = schema.encode(part)
    extreme = part.copy()
    extreme.loc[7, ["age", "capital-gain", "hours-per-week", "workclass"]] = [
        "999",
        "99999999",
        "",
        "Astronaut",
    ]
    after = schema.encode(extreme)
    changed = np.flatnonzero((before != after).any(axis=1))
    assert changed.tolist() == [7]


def test_the_original_files_have_their_published_checksums_and_give_the_same_records():
    for name, content in originals().items():
        assert hashlib.sha256(content).hexdigest() == ORIGINAL[name].sha256
        assert len(content) == ORIGINAL[name].size
    pd.testing.assert_frame_equal(parse_original(originals()["adult.data"], originals()["adult.test"]), raw())


def test_a_record_with_another_number_of_fields_is_refused():
    with pytest.raises(DataError, match="Record 2 of the Adult train file has 3 fields"):
        parse_original(originals()["adult.data"].splitlines()[0] + b"\n39, Private, 5\n", b"")


def cached_originals(folder: Path) -> dict[str, str]:
    (folder / "adult").mkdir(parents=True)
    for name, content in originals().items():
        (folder / "adult" / name).write_bytes(content)
    return {"FEDSAFE_CACHE_DIR": str(folder)}


def test_the_cache_is_used_when_the_package_has_no_copy(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    task = load_adult(environment=cached_originals(tmp_path / "cache"), package=package)
    np.testing.assert_array_equal(task.train.x, adult().train.x)
    np.testing.assert_array_equal(task.evaluation.y, adult().evaluation.y)
    assert task.source.sha256 != JOINED_SHA256


def test_the_named_folder_comes_first_and_is_checked(tmp_path):
    folder = tmp_path / "adult"
    folder.mkdir()
    environment = {"FEDSAFE_DATA_DIR": str(tmp_path)}
    assert len(load_adult(environment=environment).train) == 32_561  # nothing there: the package's copy
    (folder / JOINED).write_bytes(b"not the file")
    got = hashlib.sha256(b"not the file").hexdigest()
    with pytest.raises(DataError, match=rf"{JOINED} is not the file.*{JOINED_SHA256}, got {got}"):
        load_adult(environment=environment)


def test_a_corrupt_packaged_copy_is_refused(tmp_path):
    (tmp_path / JOINED).write_bytes((FILES / JOINED).read_bytes()[:-1])
    with pytest.raises(DataError, match="is not the file it should be"):
        load_adult(environment={}, package=tmp_path)


def test_without_any_file_the_error_says_where_to_put_one(tmp_path):
    nowhere = {name: RemoteFile(url="http://127.0.0.1:9/x", sha256="0", size=1) for name in ORIGINAL}
    environment = {"FEDSAFE_CACHE_DIR": str(tmp_path / "cache"), "FEDSAFE_DATA_DIR": str(tmp_path / "data")}
    with pytest.raises(DataError, match=rf"UCI Adult is not on this machine.*{tmp_path}/data/adult/{JOINED}"):
        load_adult(environment=environment, package=tmp_path, original=nowhere)


def test_the_licence_is_shipped_beside_the_records():
    text = (FILES / "adult.LICENSE.md").read_text(encoding="utf-8")
    for part in ("Becker", "Kohavi", "1996", "10.24432/C5XW20", "CC BY 4.0"):
        assert part in text


@pytest.mark.needs_data
@pytest.mark.skipif(
    not (Path(os.environ.get("FEDSAFE_DATA_DIR", "/nonexistent")) / "adult" / JOINED).is_file(),
    reason=f"FEDSAFE_DATA_DIR does not name a folder with adult/{JOINED}",
)
def test_the_file_in_the_named_folder_is_the_packaged_one():
    np.testing.assert_array_equal(load_task("adult").train.x, adult().train.x)
