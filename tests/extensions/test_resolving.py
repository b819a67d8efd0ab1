"""What a user names is found in one fixed order, and whatever is wrong with it is said in one line."""

import sys

import pytest

from fedsafe.errors import ConfigError, DataError
from fedsafe.extensions import call, imported, resolve, search, searched


def mean():
    return "built in"


BUILTIN = {"mean": mean, "median": mean}


@pytest.fixture(autouse=True)
def untouched_path(monkeypatch):
    """What a test puts on the path, or imports from there, is gone after it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """``install("package", "group", name="module:attribute")`` makes an installed distribution."""

    def make(package, group, **points):
        folder = tmp_path / package
        info = folder / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text(f"[{group}]\n" + "\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(folder)
        return folder

    return make


@pytest.fixture
def module(tmp_path, monkeypatch):
    """``module("text")`` writes a module of the user's and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text, name="users_module"):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def test_a_built_in_is_found_by_its_name():
    assert resolve("aggregator", "mean", BUILTIN) is mean


def test_a_built_in_given_as_an_import_path_is_imported_when_it_is_asked_for():
    lazy = {"here": "colorsys:rgb_to_hsv", "broken": "no_such_module:thing"}
    import colorsys

    assert resolve("assessor", "here", lazy) is colorsys.rgb_to_hsv
    with pytest.raises(ConfigError, match="No module named 'no_such_module'"):
        resolve("assessor", "broken", lazy)


def test_an_entry_point_of_an_installed_package_is_found(install):
    folder = install("plugged", "fedsafe.aggregators", fancy="plugged_module:Rules.fancy")
    (folder / "plugged_module.py").write_text(
        "class Rules:\n    @staticmethod\n    def fancy(): return 'fancy'\n"
    )
    assert resolve("aggregator", "fancy", BUILTIN)() == "fancy"
    with pytest.raises(ConfigError, match="The objective 'fancy' is not known"):
        resolve("objective", "fancy", BUILTIN)


def test_an_installed_package_cannot_replace_a_built_in(install):
    install("greedy", "fedsafe.aggregators", mean="no_such_module:mean")
    assert resolve("aggregator", "mean", BUILTIN) is mean


def test_a_name_that_two_packages_offer_is_refused_with_both(install):
    install("second", "fedsafe.sinks", wire="a:b")
    install("first", "fedsafe.sinks", wire="a:b")
    with pytest.raises(ConfigError, match=r"sink 'wire' is offered by first and second.*'a:b'"):
        resolve("sink", "wire", {})


def test_an_unknown_name_is_answered_with_the_nearest_and_with_all(install):
    install("plugged", "fedsafe.aggregators", fancy="a:b")
    with pytest.raises(ConfigError) as caught:
        resolve("aggregator", "medan", BUILTIN)
    assert str(caught.value) == (
        "The aggregator 'medan' is not known: did you mean 'median'? Known: mean, median, fancy; or give an "
        "import path, 'package.module:attribute'."
    )
    with pytest.raises(ConfigError, match="did you mean 'fancy'"):
        resolve("aggregator", "fncy", BUILTIN)
    with pytest.raises(ConfigError, match=r"'zzz' is not known\. Give an import path"):
        resolve("model", "zzz", {})


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = = 3", r"SyntaxError: invalid syntax \(users_module.py, line 1\)"),
        ("raise RuntimeError('first\\nsecond')", "RuntimeError: first second"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("other = 1", r"module 'users_module' has no attribute 'thing' \(it is .*users_module\.py\)"),
        ("thing = 3", "is int, not something to call"),
    ],
)
def test_a_module_that_cannot_be_used_is_named_with_the_reason_in_one_line(module, source, said):
    name = f"{module(source)}:thing"
    with pytest.raises(ConfigError, match=said) as caught:
        resolve("model", name, BUILTIN)
    assert str(caught.value).startswith(f"The model '{name}' ")
    assert "\n" not in str(caught.value)


def test_an_interruption_of_an_import_is_no_mistake_of_the_module(module):
    with pytest.raises(KeyboardInterrupt):
        imported(f"{module('raise KeyboardInterrupt')}:thing", "model")


@pytest.mark.parametrize("name", ["no_colon", ":thing", "module:", ":", "..relative:thing"])
def test_what_is_no_import_path_is_refused(name):
    with pytest.raises(ConfigError, match="cannot be imported"):
        imported(name, "model")


def test_a_callable_that_fails_is_named_and_fedsafes_own_errors_pass(module):
    name = module(
        "from fedsafe.errors import DataError\n"
        "def broken(): raise ValueError('no\\nluck')\n"
        "def ours(): raise DataError('as it is')\n"
        "def add(a, b=1): return a + b\n"
    )
    assert call(f"{name}:add", "task", a=2) == 3
    with pytest.raises(DataError) as caught:
        call(f"{name}:broken", "task")
    assert str(caught.value) == f"The task '{name}:broken' failed: ValueError: no luck."
    with pytest.raises(DataError, match=r"^as it is$"):
        call(f"{name}:ours", "task")


def test_a_folder_that_is_searched_comes_last_and_once(tmp_path):
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('a library was replaced')")
    (tmp_path / "only_here.py").write_text("def thing(): return 7")
    search([tmp_path, tmp_path / "not there", tmp_path])
    assert sys.path.count(str(tmp_path)) == 1
    assert sys.path[-1] == str(tmp_path)
    sys.modules.pop("colorsys", None)
    assert imported("colorsys:rgb_to_hsv", "model")
    assert imported("only_here:thing", "model")() == 7


def test_what_is_handed_to_other_processes_is_neither_the_library_nor_what_is_installed(tmp_path):
    search([tmp_path])
    folders = searched()
    assert str(tmp_path) in folders
    assert not [folder for folder in folders if "site-packages" in folder or folder.endswith("lib-dynload")]
    assert not [
        folder for folder in folders if folder.endswith(f"python{sys.version_info[0]}.{sys.version_info[1]}")
    ]
