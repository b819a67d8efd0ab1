"""``fedsafe export``: the shareable record in other forms, nothing of it private, and the run stays as it is."""

import json
import shutil
import sys
from types import ModuleType

import pandas as pd
import pytest

from fedsafe.errors import FedSafeError
from fedsafe.runs.export import FORMATS, export_run
from fedsafe.runs.keys import KEY_FILE


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    from tiny_federation import config

    from fedsafe.runs import run

    return run(config(), out=tmp_path_factory.mktemp("export") / "run").path


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_table_is_what_the_sink_would_have_written(shared, fedsafe, tmp_path):
    before = content(shared)
    command = fedsafe("export", shared, "--out", tmp_path / "table", "--json")
    assert command.code == 0, command.err
    written = json.loads(command.out, parse_constant=pytest.fail)["written"]
    export_run(shared, "parquet", tmp_path / "columns")
    table, columns = pd.read_csv(written), pd.read_parquet(tmp_path / "columns" / "metrics.parquet")
    assert list(table.columns) == list(columns.columns)
    assert table["value"].tolist() == pytest.approx(columns["value"].tolist(), nan_ok=True)
    assert {"round", "planned spend", "performance"} <= set(columns["source"])
    assert content(shared) == before


def test_nothing_private_leaves_and_a_shared_copy_is_enough(shared, tmp_path):
    key = (shared / "private" / KEY_FILE).read_text().strip()
    copy = tmp_path / "copy"
    shutil.copytree(shared, copy, ignore=shutil.ignore_patterns("private"))
    for name in ("csv", "parquet"):
        one, other = tmp_path / f"{name} of run", tmp_path / f"{name} of copy"
        export_run(shared, name, one)
        export_run(copy, name, other)
        assert list(content(one).values()) == list(content(other).values())
        assert not any(
            key.encode() in found or bytes.fromhex(key) in found for found in content(one).values()
        )


def test_tensorboard_gets_the_whole_run(shared, monkeypatch, tmp_path):
    told = []

    class Writer:
        def __init__(self, folder, purge_step):
            told.append(folder)

        def add_scalar(self, name, value, step, walltime):
            told.append((name, step))

        def add_text(self, name, text, step, walltime):
            told.append(name)

        def flush(self): ...

        def close(self):
            told.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    export_run(shared, "tensorboard", tmp_path / "log")
    assert told[0] == str(tmp_path / "log")
    assert told[-1] == "closed"
    assert {("round/accuracy", number) for number in (1, 2, 3)} <= set(told)


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")]
)
def test_a_tracker_that_is_not_installed_is_named_with_its_package(
    shared, monkeypatch, tmp_path, name, module
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(FedSafeError, match=f"pip install {name}"):
        export_run(shared, name, tmp_path / "out")


def test_mlflow_keeps_the_run_in_a_store_of_the_folder(shared, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is an extra")
    export_run(shared, "mlflow", tmp_path / "store", experiment="mine")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert "round/accuracy" in found.data.metrics


def test_a_wrong_request_is_one_line(shared, fedsafe, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    for words, said in (
        ((shared, "--format", "xls", "--out", "out"), f"use {', '.join(FORMATS)}"),
        ((tmp_path / "absent", "--out", "out"), "absent"),
        ((shared, "--out", shared / "inside"), "inside the run"),
        ((shared, "--out", tmp_path / "file"), "is a file"),
        ((shared, "--out", tmp_path / "full"), "is not empty"),
    ):
        command = fedsafe("export", *words)
        assert command.code == 1, words
        assert command.err.startswith("fedsafe: ")
        assert command.err.count("\n") == 1
        assert said in command.err
    assert not (tmp_path / "out").exists()
