"""The commands of an experiment's README, each as a list of words: what is run again, and what tests look at."""

import shlex
from pathlib import Path

FOLDER = "comparisons/"


def commands(readme: Path) -> list[list[str]]:
    """What stands in blocks marked ``sh``, one command in each line or in lines that a backslash joins."""
    found, inside, pending = [], False, ""
    for line in readme.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == "```sh"
        elif inside and line.strip():
            pending += line.strip()
            if pending.endswith("\\"):
                pending = pending[:-1]
                continue
            found.append(shlex.split(pending))
            pending = ""
    return found
