"""Comparisons of budgets and of runs: their rows in the list."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedsafe.errors import RecordError
from fedsafe.report import formats
from fedsafe.report.comparison_reading import ordered
from fedsafe.ui.files import Beneath
from fedsafe.ui.grids import read_summary

_SCHEMA, _OF_RUNS = "fedsafe.comparison/1", "fedsafe.comparison-of-runs/1"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One comparison.

    Attributes:
        key: Where it is, relative to the folder.
        name: Of its folder.
        task: Name of the task.
        when: When it was made, to the minute.
        order: The same as text that sorts.
        about: How many runs, of which budgets.
        state: "finished", or why it is not.
        problem: What is wrong with it; "" where nothing is.
        body: The content of ``comparison.json`` where it has budgets; {} otherwise.
    """

    key: str
    name: str
    task: str = ""
    when: str = ""
    order: str = ""
    about: str = ""
    state: str = "finished"
    problem: str = ""
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)


def read_comparison(files: Beneath, key: str, name: str, when: str) -> Comparison:
    """A comparison; what is wrong with it is said in it.

    Args:
        files: The folder.
        key: Where it is, relative to the folder.
        name: Of its folder.
        when: When its summary was written, ISO 8601; "" where there is none.
    """
    path = f"{key}/comparison.json" if key else "comparison.json"
    if not when:
        about = "its runs are kept as they finish; the same command goes on with it"
        return Comparison(key=key, name=name, about=about, state="in progress, or interrupted")
    try:
        body = read_summary(files, path)
        schema = str(body.get("schema"))
        # Another minor version has more keys than this one looks at, and none less.
        family, _, version = schema.rpartition("/")
        major = f"{family}/{version.partition('.')[0]}"
        if major == _OF_RUNS:
            names = ", ".join(str(run["name"]) for run in body["runs"])
            about, created, body = f"finished runs beside each other: {names}", when, {**body, "settings": {}}
        elif major == _SCHEMA:
            asked = body["settings"]
            budgets = f"epsilon {', '.join(ordered(asked['epsilons']))} per {' and '.join(asked['units'])}"
            simulated = ", simulated (no guarantee)" if asked.get("reproducible") else ""
            about = f"{body['runs']} runs: {budgets}, {asked['seeds']} seeds{simulated}"
            created = str(body["created"])
        else:
            raise RecordError(
                f"written with schema {schema!r}, this fedsafe shows {_SCHEMA!r}: use the version that wrote it"
            )
    except Exception as error:  # whatever a file of somebody else makes of this
        said = str(error) if isinstance(error, RecordError) else f"{type(error).__name__}: {error}"
        problem = f"comparison.json: {said}"
        return Comparison(
            key=key, name=name, when=formats.moment(when), order=when, state="unreadable", problem=problem
        )
    return Comparison(
        key=key,
        name=name,
        task=str(body.get("task", "")),
        when=formats.moment(created),
        order=created,
        about=about,
        body=body if body["settings"] else {},
    )
