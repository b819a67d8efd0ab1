"""What ``flwr run .`` uploads: no code, so that no node runs anything but what is installed there."""

import shutil
import subprocess
import sys
import tomllib
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.config_utils import load_and_validate
from flwr.supercore.object_ref import load_app

import fedsafe
from fedsafe.apps import client, server
from fedsafe.apps.settings import read_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """The bundle as Flower unpacks it."""
    folder, copy = tmp_path_factory.mktemp("bundle"), tmp_path_factory.mktemp("source") / "fedsafe"
    # Not the environment beside it, of which Flower would look at every file.
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "*.egg-info", "__pycache__"))
    with warnings.catch_warnings():
        # Flower's own use of pathspec.
        warnings.simplefilter("ignore", DeprecationWarning)
        built = build_fab_from_disk(copy)
    with zipfile.ZipFile(BytesIO(built)) as archive:
        archive.extractall(folder)
    return folder


def test_the_bundle_holds_configurations_and_no_code(bundle):
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    experiments = {f"experiments/{path.name}" for path in (ROOT / "experiments").glob("*.toml")}
    assert files == {"pyproject.toml", ".info/CONTENT"} | experiments


def test_flower_accepts_the_app_without_a_warning():
    _, warnings = load_and_validate(ROOT / "pyproject.toml")
    assert warnings == []


def test_both_apps_are_those_of_the_installed_package(bundle):
    components = tomllib.loads((bundle / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["components"]
    before = list(sys.path)
    try:
        assert load_app(components["serverapp"], ImportError, bundle) is server.app
        assert load_app(components["clientapp"], ImportError, bundle) is client.app
    finally:
        sys.path[:] = before


def test_the_unpacked_bundle_at_the_front_of_the_path_does_not_hide_the_package(bundle):
    """Flower puts it there. A ``fedsafe`` folder in it would win over a package that is installed as editable."""
    code = f"import sys; sys.path.insert(0, {str(bundle)!r}); import fedsafe; print(fedsafe.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == fedsafe.__file__


def test_the_default_values_of_the_run_configuration_can_be_read(bundle):
    values = tomllib.loads((bundle / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    found = read_settings(values, lambda: bundle)
    assert found.config.federation.clients == 2, "as many as Flower simulates when it is not told"
    assert found.config.privacy.record.epsilon < float("inf")
