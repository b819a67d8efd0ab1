"""``fedsafe new NAME``: a project of one's own that runs."""

import importlib.util
import keyword
import os
import re
import secrets
import shutil
import string
import sys
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from fedsafe.errors import ConfigError

# What is written, with NAME for the project's own, and the template that it is made from.
_FILES = {
    "README.md": "README.md.txt",
    "NAME.toml": "project.toml.txt",
    "pyproject.toml": "pyproject.toml.txt",
    ".gitignore": "gitignore.txt",
    "NAME/__init__.py": "init.py.txt",
    "NAME/model.py": "model.py.txt",
    "NAME/aggregator.py": "aggregator.py.txt",
    "NAME/assessor.py": "assessor.py.txt",
    "tests/test_NAME.py": "test.py.txt",
}


def new_command(
    name: Annotated[str, typer.Argument(help="Of the project and of its Python package.", metavar="NAME")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The project's folder; ./NAME by default.")
    ] = None,
) -> None:
    """Write a project with a model, an aggregator, an assessor and a test of its own."""
    _require_package_name(name)
    folder = Path(name) if out is None else out
    if os.path.lexists(folder):
        raise ConfigError(f"{folder} is there already: choose another NAME, or another folder with --out")
    if name == "tests" or name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise ConfigError(
            f"{name!r} is the name of a module that is there already, which would be imported in its place: choose "
            f"another, such as 'my_{name}'"
        )
    _write(folder, name)
    typer.echo(f"made {folder} with {len(_FILES)} files; next:")
    typer.echo(f"  cd {folder}\n  fedsafe run {name}.toml\n  pytest")


def _require_package_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or keyword.iskeyword(name):
        better = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
        usable = better.isidentifier() and not keyword.iskeyword(better)
        raise ConfigError(
            f"{name!r} cannot be the name of a Python package: use letters, digits and _, such as "
            f"{better if usable else 'my_project'!r}"
        )


def _write(folder: Path, name: str) -> None:
    """The whole project, or nothing.

    Raises:
        ConfigError: The folder cannot be made.
    """
    templates = resources.files("fedsafe.cli") / "templates"
    sibling = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.new")
    try:
        for target, source in _FILES.items():
            path = sibling / target.replace("NAME", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = string.Template((templates / source).read_text(encoding="utf-8")).substitute(name=name)
            path.write_text(text, encoding="utf-8")
        sibling.rename(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}; choose another --out") from error
    finally:
        shutil.rmtree(sibling, ignore_errors=True)
