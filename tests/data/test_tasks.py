"""A task is found by name, by file or by import path; a mistake is answered with the nearest valid choice."""

import subprocess
import sys

import numpy as np
import pytest

from fedsafe.data import load_task, partition
from fedsafe.errors import ConfigError, DataError

FACTORIES = """
from fedsafe.data import load_task

def shipped(copies=1):
    return load_task("adult") if copies == 1 else [load_task("adult")] * copies

def broken(error=RuntimeError):
    raise error("first line\\nsecond line")

def empty():
    raise KeyError

constant = 3
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "task_factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    return "task_factories"


def test_a_name_and_a_table_with_a_name_are_the_same_task():
    assert load_task("adult").schema == load_task({"name": "adult"}).schema


def test_a_factory_is_called_with_its_options(factories):
    assert load_task(f"{factories}:shipped").name == "adult"
    assert load_task({"name": f"{factories}:shipped", "copies": 1}).name == "adult"
    with pytest.raises(DataError, match=r"returned list, not a fedsafe\.data\.Task"):
        load_task({"name": f"{factories}:shipped", "copies": 2})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("adlut", "no task 'adlut'. Did you mean 'adult'"),
        ({"name": "adult", "clients": 3}, "takes no options: got clients"),
        ({}, "needs `name`, or `path` and `schema`"),
        ({"name": 3}, "needs `name`"),
        (3, "neither a name nor a table"),
        ({"path": "a.csv"}, "no `schema`"),
        ({"path": "a.csv", "shema": "b"}, "unknown key 'shema'. Did you mean 'schema'"),
        ({"path": 3, "schema": "b"}, r"task\.path = 3 is not a path"),
        ({"path": "a.csv", "schema": "b", "evaluation_fraction": "half"}, "not a number"),
        ({"path": "a.csv", "schema": "b", "seed": 1.5}, "not a whole number"),
        ("no_such_module:task", "cannot be imported: No module named 'no_such_module'"),
        ("fedsafe.data:no_such_task", "cannot be imported: .*no_such_task"),
        (":task", "cannot be imported"),
    ],
)
def test_a_mistake_is_answered_with_a_remedy(spec, message):
    with pytest.raises(ConfigError, match=message):
        load_task(spec)


def test_an_import_path_to_something_else_is_refused(factories):
    with pytest.raises(ConfigError, match="is int, not something to call"):
        load_task(f"{factories}:constant")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}:broken", "The task '{}:broken' failed: RuntimeError: first line second line."),
        ("{}:empty", "The task '{}:empty' failed: KeyError."),
    ],
)
def test_a_factory_that_fails_is_named_with_its_exception_in_one_line(factories, spec, message):
    with pytest.raises(DataError) as caught:
        load_task(spec.format(factories))
    assert str(caught.value) == message.format(factories)


def test_an_option_that_a_factory_does_not_take_is_named(factories):
    with pytest.raises(DataError, match=r"task_factories:shipped' failed: TypeError: .*'copeis'"):
        load_task({"name": f"{factories}:shipped", "copeis": 2})


def test_an_error_that_a_factory_raises_on_purpose_passes_unchanged(factories):
    with pytest.raises(ConfigError, match=r"^first line\nsecond line$"):
        load_task({"name": f"{factories}:broken", "error": ConfigError})


def test_a_module_that_fails_while_it_is_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "task_that_fails_on_import.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match="fails_on_import:task' cannot be imported: RuntimeError: no licence"
    ):
        load_task("task_that_fails_on_import:task")


def test_data_needs_no_torch_and_no_drawing_library_to_import():
    # In a process of its own, since other tests may have imported them.
    code = "import sys, fedsafe.data.describe; sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_installed_package_offers_tasks_and_partitions_by_name(tmp_path, monkeypatch):
    (tmp_path / "shop_plugin.py").write_text(
        "import numpy as np\nfrom fedsafe.data import load_task\n"
        "def task(name='digits'):\n    return load_task(name)\n"
        "def slices(labels, clients, seed, first=1):\n    return np.split(np.arange(len(labels)), [first])\n"
    )
    package = tmp_path / "shop_plugin-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-plugin\nVersion: 1\n")
    points = "[fedsafe.tasks]\nshop = shop_plugin:task\n[fedsafe.partitions]\nslices = shop_plugin:slices\n"
    (package / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_task("shop").name == "digits"
    parts = partition(np.zeros(9, int), 2, {"name": "slices", "first": 4}, 0)
    assert [len(part) for part in parts] == [4, 5]
    with pytest.raises(ConfigError, match="no task 'shopp'"):
        load_task("shopp")
