"""Grids under attack: their rows in the list. Their pages are what ``fedsafe byzantine`` wrote."""

import json
from dataclasses import dataclass
from typing import Any

from fedsafe.errors import RecordError
from fedsafe.report import formats
from fedsafe.ui.files import Beneath

# A summary of a grid or comparison, with all its settings; real ones have a tenth of it at most.
MOST_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One grid.

    Attributes:
        key: Where it is, relative to the folder.
        name: Of its folder.
        task: Name of the task.
        when: When it was made, to the minute.
        order: The same as text that sorts.
        about: How many runs, attacks and rules.
        problem: What is wrong with it; "" where nothing is.
    """

    key: str
    name: str
    task: str = ""
    when: str = ""
    order: str = ""
    about: str = ""
    problem: str = ""


def read_summary(files: Beneath, path: str) -> dict[str, Any]:
    """The JSON object of a grid or comparison.

    Args:
        files: The folder.
        path: Of the file.

    Raises:
        RecordError: It is no JSON object.
        OSError: It cannot be read.
    """
    name = path.rpartition("/")[2]
    try:
        body = json.loads(files.text(path, MOST_BYTES))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{name} is not JSON ({error}): make it again") from error
    if not isinstance(body, dict):
        raise RecordError(f"{name} is a JSON {type(body).__name__}, not an object")
    return body


def read_grid(files: Beneath, key: str, name: str, when: str) -> Grid:
    """A grid's row; what is wrong with it is said there.

    Args:
        files: The folder.
        key: Where it is, relative to the folder.
        name: Of its folder.
        when: When its summary was written, ISO 8601; "" where there is none.
    """
    try:
        body = read_summary(files, f"{key}/grid.json" if key else "grid.json")
        asked = body["settings"]
        about = f"{body['runs']} runs: {len(asked['attacks'])} attacks on {len(asked['aggregators'])} rules"
        created = str(body.get("created") or when)
        return Grid(
            key=key,
            name=name,
            task=str(body["task"]),
            when=formats.moment(created),
            order=created,
            about=about,
        )
    except Exception as error:  # whatever a file of somebody else makes of this
        said = str(error) if isinstance(error, RecordError) else f"{type(error).__name__}: {error}"
        return Grid(key=key, name=name, when=formats.moment(when), order=when, problem=f"grid.json: {said}")
