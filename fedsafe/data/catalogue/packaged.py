"""Files of this package: public schemas of the data sets."""

from importlib import resources
from importlib.resources.abc import Traversable

from fedsafe.data.schema import Schema
from fedsafe.data.schema_file import parse_schema


def packaged_files() -> Traversable:
    """The folder of packaged files."""
    return resources.files("fedsafe.data") / "files"


def packaged_schema(task: str) -> Schema:
    """The public schema of a task."""
    file = packaged_files() / f"{task}.schema.toml"
    return parse_schema(file.read_text(encoding="utf-8"), f"the packaged schema of {task}")
