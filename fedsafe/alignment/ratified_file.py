"""Files of a vote: opinions in CSV, and what was found written into the constitution's own file."""

import csv
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from fedsafe.alignment.constitution import Constitution, parse_constitution
from fedsafe.alignment.voting import Ballot
from fedsafe.errors import ConfigError, DataError
from fedsafe.store.files import replace_file

_HEAD = re.compile(r"^[ \t]*\[\[[ \t]*principle[ \t]*\]\][ \t]*(#.*)?$")
_WRITTEN = re.compile(r"^[ \t]*ratified_by[ \t]*=")


@dataclass(frozen=True, kw_only=True)
class Opinions:
    """What voters think, for a vote that is simulated.

    Attributes:
        positions: ``(voters, questions)`` positions in the ballot's opinions.
        groups: ``(voters,)`` or None.
    """

    positions: NDArray[np.int64]
    groups: NDArray[np.str_] | None


def read_opinions(path: Path | str, ballot: Ballot, groups: str | None = None) -> Opinions:
    """Opinions of a CSV file, one line for each voter.

    Args:
        path: Columns named by the ballot's questions, with "agree", "disagree" or, where the ballot has it, "pass".
            Other columns are ignored.
        ballot: What is asked.
        groups: Column with the group of each voter.

    Raises:
        DataError: The file cannot be read, lacks a column, or holds something else; the message has the line.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the votes {path} cannot be read: {error}") from error
    if not rows:
        raise DataError(
            f"the votes {path} hold no voter; write a head with the principles' ids, and a line for each"
        )
    for column in (*ballot.questions, *([] if groups is None else [groups])):
        if column not in rows[0]:
            raise DataError(
                f"the votes {path} have no column {column!r}; found {', '.join(filter(None, rows[0]))}"
            )
    known = {opinion: position for position, opinion in enumerate(ballot.opinions)}
    positions = np.empty((len(rows), len(ballot.questions)), dtype=np.int64)
    for number, row in enumerate(rows, start=1):
        for question, name in enumerate(ballot.questions):
            said = (row[name] or "").strip().lower()
            if said not in known:
                more = "; let voters pass to count it" if said == "pass" else ""
                raise DataError(
                    f"{path}, voter {number}: {name} is {said!r}; it is one of {', '.join(ballot.opinions)}{more}"
                )
            positions[number - 1, question] = known[said]
        if groups is not None and not (row[groups] or "").strip():
            raise DataError(
                f"{path}, voter {number}: the group {groups!r} is empty; name one for every voter"
            )
    labels = None if groups is None else np.array([row[groups].strip() for row in rows])
    return Opinions(positions=positions, groups=labels)


def write_ratified(
    path: Path | str, found: Sequence[Mapping[str, Any]], out: Path | str | None = None
) -> Path:
    """Writes `ratified_by` into every principle of a constitution's file; comments and layout stay.

    Args:
        path: The file.
        found: One table for each principle, in their order; an earlier one of the file is replaced.
        out: Where to write; the file itself where it is left out.

    Raises:
        ConfigError: The file cannot be changed so without changing anything else: write every principle as
            ``[[principle]]``, and `ratified_by` in one line.
    """
    source = Path(path)
    lines = source.read_text(encoding="utf-8").splitlines()
    written, place = [], 0
    for line in lines:
        if _WRITTEN.match(line):
            continue
        written.append(line)
        if _HEAD.match(line) and place < len(found):
            written.append(f"ratified_by = {_inline(found[place])}")
            place += 1
    text = "\n".join(written) + "\n"
    if not _is_only_ratified(source.read_text(encoding="utf-8"), text, found):
        raise ConfigError(
            f"{source} cannot be given its ratification: write every principle as [[principle]] on a line of its own, "
            "and an earlier ratified_by as one line"
        )
    target = source if out is None else Path(out)
    replace_file(target, text.encode())
    return target


def stale(constitution: Constitution) -> list[str]:
    """Ids of the principles that say something else than when they were voted on."""
    return [
        article.id
        for article in constitution.articles
        if article.ratified_by and article.ratified_by.get("digest") != article.digest
    ]


def rejected(constitution: Constitution) -> list[str]:
    """Ids of the principles that a vote has rejected as they stand; they are kept to until somebody removes them."""
    return [
        article.id
        for article in constitution.articles
        if article.ratified_by.get("status") == "rejected"
        and article.ratified_by.get("digest") == article.digest
    ]


def _is_only_ratified(before: str, after: str, found: Sequence[Mapping[str, Any]]) -> bool:
    try:
        old, new = tomllib.loads(before), tomllib.loads(after)
        parse_constitution(new)
    except (tomllib.TOMLDecodeError, ConfigError):
        return False
    for article in old["principle"]:
        article.pop("ratified_by", None)
    had = [article.pop("ratified_by", None) for article in new["principle"]]
    return bool(old == new and had == [dict(table) for table in found])


def _inline(table: Mapping[str, Any]) -> str:
    parts = []
    for key, value in table.items():
        # One key and its value are one line of TOML; a list is written over several.
        shown = (
            "[" + ", ".join(_value(entry) for entry in value) + "]"
            if isinstance(value, list)
            else _value(value)
        )
        parts.append(f"{key} = {shown}")
    return "{ " + ", ".join(parts) + " }"


def _value(value: Any) -> str:
    return tomli_w.dumps({"v": value}).strip().removeprefix("v = ")
