"""Suites by name, and which assessors they need together."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fedsafe.assess.suites.suite import Suite
from fedsafe.errors import ConfigError
from fedsafe.extensions import one_line, resolve

ALL = "all"
"""The name that stands for every suite of `SUITES`."""


def _shipped(name: str) -> Suite:
    with_file = files("fedsafe.assess.suites").joinpath(f"{name}.toml")
    return Suite.read(Path(str(with_file)))


SUITES: Mapping[str, Callable[[], Suite]] = MappingProxyType(
    {name: partial(_shipped, name) for name in ("adversarial", "bias", "privacy", "alignment")}
)
"""The suites that ship, by name."""


def find_suites(named: str) -> tuple[Suite, ...]:
    """The suites that are meant.

    Args:
        named: Names with commas between them: of `SUITES`, "all" of these, entry points, import paths
            ``"package.module:attribute"`` of a `Suite` or of a function that returns one, or TOML files.

    Raises:
        ConfigError: Nothing is found there, what is found is no suite, or two share a name.
    """
    names = [name.strip() for name in named.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"--suite names no suite, for example --suite {', '.join([*SUITES, ALL])}")
    wanted = [each for name in names for each in (SUITES if name == ALL else (name,))]
    found = tuple(_find(name) for name in dict.fromkeys(wanted))
    given = [suite.name for suite in found]
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise ConfigError(f"two suites are named {twice[0]!r}; their results could not be told apart")
    return found


def _find(name: str) -> Suite:
    if name.endswith(".toml"):
        return Suite.read(Path(name))
    factory = resolve("suite", name, {**SUITES, ALL: _none})
    try:
        suite: Any = factory()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # a user's own code may raise anything
        raise ConfigError(f"the suite {name!r} cannot be made: {one_line(error)}") from error
    if not isinstance(suite, Suite):
        raise ConfigError(
            f"the suite {name!r} is none: the function returned a {type(suite).__name__}, not a Suite"
        )
    return suite


def _none() -> Suite:
    raise ConfigError(f"{ALL!r} is several suites")  # for the list of names in a message alone


def assessors_of(suites: Sequence[Suite]) -> list[str | Mapping[str, Any]]:
    """Each assessor that the suites need, once.

    Raises:
        ConfigError: Two suites want the same assessor with different options.
    """
    chosen: dict[str, tuple[str, str | Mapping[str, Any]]] = {}
    for suite in suites:
        for spec in suite.assessors:
            name = spec if isinstance(spec, str) else str(spec.get("name"))
            table = {"name": spec} if isinstance(spec, str) else dict(spec)
            known = chosen.setdefault(name, (suite.name, spec))
            other = {"name": known[1]} if isinstance(known[1], str) else dict(known[1])
            if other != table:
                raise ConfigError(
                    f"the suites {known[0]!r} and {suite.name!r} want the assessor {name!r} with different options; "
                    "run them apart"
                )
    return [spec for _, spec in chosen.values()]
