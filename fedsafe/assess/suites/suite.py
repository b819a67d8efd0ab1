"""What a suite is, and the file that it is read from."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from fedsafe.assess.requirements import Requirement
from fedsafe.errors import ConfigError

Absent = Literal["error", "skip"]
Match = Literal["worst", "best", "headline"]
_OWN = ("case", "because", "absent", "match", "largest_delta", "any_case", "without")
_KEYS = ("description", "assessors", "require")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One requirement of a suite.

    Attributes:
        name: Unlike any other of the suite.
        requirement: What must be met.
        because: Why the threshold is what it is.
        absent: What it is where no finding of this kind was made, or only one that is not applicable: an "error", which
            a `must` does not get over, or reason to "skip" the case, as where a task has no column of that name.
        match: By which of several findings it is judged: by the "worst", as a requirement is, or by the "best", where
            one that meets it is enough, or, of privacy claims, by the "headline" of each unit that is claimed: the
            first finite one that the run lists (`fedsafe.assess.suites.claims`).
        largest_delta: Unit to the largest delta of a claim that counts; of "headline" alone.
        any_case: Whether texts in the requirement's `where` are compared without regard to upper and lower case.
        without: A finding with this in a text of its `where` is left aside; nothing where "".
    """

    name: str
    requirement: Requirement
    because: str = ""
    absent: Absent = "error"
    match: Match = "worst"
    largest_delta: Mapping[str, float] = field(default_factory=dict)
    any_case: bool = False
    without: str = ""

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ConfigError(f"a case of a suite is named {self.name!r}: give it a name")
        for key, options in (("absent", get_args(Absent)), ("match", get_args(Match))):
            if getattr(self, key) not in options:
                known = ", ".join(options)
                raise ConfigError(
                    f"case {self.name!r} has {key} {getattr(self, key)!r}; it is one of {known}"
                )
        deltas = self.largest_delta
        if not isinstance(deltas, Mapping) or not all(
            isinstance(delta, float) and 0.0 < delta < 1.0 for delta in deltas.values()
        ):
            raise ConfigError(
                f"case {self.name!r} has largest_delta {deltas!r}; it is a table of units and numbers between 0 and 1"
            )
        if bool(deltas) != (self.match == "headline"):
            raise ConfigError(f'case {self.name!r}: largest_delta and match = "headline" go together')
        if not isinstance(self.any_case, bool) or not isinstance(self.without, str):
            raise ConfigError(f"case {self.name!r}: any_case is true or false, and without a text")

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> Self:
        """Reads a case: the keys of a requirement, a name under ``case``, and what else a case has.

        Raises:
            ConfigError: A key is unknown or missing, or a value is wrong.
        """
        own = {key: table[key] for key in _OWN[1:] if key in table}
        requirement = Requirement.parse({key: value for key, value in table.items() if key not in _OWN})
        return cls(name=table.get("case", ""), requirement=requirement, **own)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Assessors, and what their findings must meet.

    Attributes:
        name: In the results.
        description: One sentence.
        assessors: What runs: names, import paths or tables, see `fedsafe.assess.find_assessor`.
        cases: What is required.

    Raises:
        ConfigError: There is no case or no assessor, or two cases share a name.
    """

    name: str
    description: str = ""
    assessors: tuple[str | Mapping[str, Any], ...]
    cases: tuple[Case, ...]

    def __post_init__(self) -> None:
        for what, given in (("assessors", self.assessors), ("require", self.cases)):
            if not given:
                raise ConfigError(f"suite {self.name!r} has no {what}: it would judge nothing")
        names = [case.name for case in self.cases]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"suite {self.name!r} has two cases named {twice[0]!r}; rename one")

    @classmethod
    def parse(cls, name: str, table: Mapping[str, Any]) -> Self:
        """Reads a suite from the content of its file.

        Args:
            name: Of the suite.
            table: With ``description``, ``assessors`` and tables ``require``.

        Raises:
            ConfigError: A key is unknown, or a case is wrong; the message has its position.
        """
        unknown = [key for key in table if key not in _KEYS]
        if unknown:
            raise ConfigError(f"suite {name!r} has no key {unknown[0]!r}; known: {', '.join(_KEYS)}")
        rows, assessors = table.get("require", []), table.get("assessors", [])
        for key, given in (("require", rows), ("assessors", assessors)):
            if not isinstance(given, Sequence) or isinstance(given, str):
                raise ConfigError(f"suite {name!r} has {key} {given!r}; it is a list")
        cases = []
        for position, row in enumerate(rows, start=1):
            if not isinstance(row, Mapping):
                raise ConfigError(
                    f"suite {name!r}, case {position}: it is a {type(row).__name__}, not a table"
                )
            try:
                cases.append(Case.parse(row))
            except ConfigError as error:
                raise ConfigError(f"suite {name!r}, case {position}: {error}") from error
        return cls(
            name=name,
            description=str(table.get("description", "")),
            assessors=tuple(assessors),
            cases=tuple(cases),
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a suite's TOML file; it is named like the file.

        Raises:
            ConfigError: The file cannot be read, or the suite is not valid.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"the suite {path} cannot be read: {error}") from error
        return cls.parse(path.stem, content)
