"""The documents name targets, files and names that are there."""

import os
import re
import shutil
import subprocess

import pytest
from readme import ROOT

import fedsafe as fedsafe_package

DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")


def test_the_targets_and_files_that_the_documents_name_are_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"{document} names make {target}"
        for name in re.findall(r"`((?:fedsafe|docs|tests|experiments|benchmarks)/[\w./-]*)`", text):
            assert (ROOT / name).exists(), f"{document} names {name}"
        for name in re.findall(r"\]\((\w[\w./-]*)\)", text):
            assert (ROOT / name).exists(), f"{document} links {name}"


def test_the_architecture_names_files_and_names_that_are_there():
    """Paths there begin below the package."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_]+/[\w./]*)(?::(\w+))?`", text)
    assert len(named) > 30
    for path, member in named:
        if "NAME" in path:
            continue
        place = ROOT / path if (ROOT / path).exists() else ROOT / "fedsafe" / path
        assert place.exists(), path
        assert not member or f"class {member}" in place.read_text(encoding="utf-8"), f"{path}:{member}"
    pairs = re.findall(r"`([A-Z_]+)`\s+of\s+`((?:tests/)?[\w/]+\.py)`", text)
    assert len(pairs) > 8
    for constant, path in pairs:
        place = ROOT / path if path.startswith("tests/") else ROOT / "fedsafe" / path
        assert re.search(rf"^{constant}\b.*=", place.read_text(encoding="utf-8"), flags=re.MULTILINE), (
            constant
        )


def test_the_default_experiment_is_the_adult_experiment():
    packaged = ROOT / "fedsafe" / "runs" / "default.toml"
    assert packaged.read_text(encoding="utf-8") == (ROOT / "experiments" / "adult.toml").read_text(
        encoding="utf-8"
    )


def test_the_public_names_are_what_they_are_meant_to_be():
    assert fedsafe_package.__all__ == ["assess", "compare", "open_run", "resume", "run"]
    assert all(hasattr(fedsafe_package, name) for name in fedsafe_package.__all__)


def test_no_document_or_code_names_a_path_of_one_machine():
    if shutil.which("git") is None:
        pytest.skip("git is not installed: the files of the project cannot be listed")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout: the files of the project cannot be listed")
    home = os.path.expanduser("~")
    for name in tracked.stdout.split():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".j2", ".css"} and path.is_file():
            assert f"{home}/" not in path.read_text(encoding="utf-8"), name
