"""Finds the object that a target names, and starts its process again as far as that can be done in this one."""

import importlib
import logging
import operator
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from fedsafe.errors import ConfigError
from fedsafe.extensions import one_line


class Target:
    """An object at an import path, whose modules can be imported afresh.

    Modules of installed packages stay as they are: a restart of the server would not change them.

    Args:
        name: ``"package.module:attribute"``.

    Raises:
        ConfigError: It is no import path, or cannot be imported.
    """

    def __init__(self, name: str) -> None:
        module, colon, attribute = name.partition(":")
        if not (module and colon and attribute):
            raise ConfigError(
                f"the target {name!r} is neither a TOML file nor an import path 'module:object'"
            )
        self.name, self._module, self._attribute = name, module, attribute
        self._own: set[str] = set()
        self.restart()

    def restart(self) -> None:
        """Import the target's module again, and those that came with it."""
        with quiet():
            for name in self._own:
                sys.modules.pop(name, None)
            known = sys.modules.get(self._module)
            if known is not None and _is_users(known):
                del sys.modules[self._module]
            before = set(sys.modules)
            self._import(self._module)
        came = (set(sys.modules) - before) | {self._module}
        self._own |= {name for name in came if name in sys.modules and _is_users(sys.modules[name])}

    def get(self) -> Any:
        """The object, from its module as it is imported now."""
        return self.find(self._attribute, sys.modules.get(self._module) or self._import(self._module))

    def sibling(self, name: str) -> Any:
        """Another object, that a claim names by its import path."""
        module, colon, attribute = name.partition(":")
        if not (module and colon and attribute):
            raise ConfigError(f"the claim names {name!r}, which is no import path 'module:object'")
        return self.find(attribute, self._import(module))

    def find(self, attribute: str, module: ModuleType) -> Any:
        """An attribute, or an attribute of one."""
        try:
            return operator.attrgetter(attribute)(module)
        except AttributeError as error:
            raise ConfigError(f"{module.__name__} ({module.__file__}) has no {attribute!r}") from error

    @property
    def modules(self) -> list[ModuleType]:
        """The target's own modules, as they are imported now."""
        return [sys.modules[name] for name in self._own if name in sys.modules]

    def _import(self, module: str) -> ModuleType:
        before = set(sys.modules)
        try:
            found = importlib.import_module(module)
        except (Exception, SystemExit) as error:  # importing runs the user's code, which may raise anything
            raise ConfigError(f"the target {self.name!r} cannot be imported: {one_line(error)}") from error
        came = set(sys.modules) - before
        self._own |= {name for name in came if _is_users(sys.modules[name])}
        return found


def made(found: Any, kind: type, what: str) -> Any:
    """The object itself, or what it returns when it is called without arguments.

    Raises:
        ConfigError: Neither is of the kind.
    """
    if isinstance(found, kind):
        return found
    if callable(found):
        result, error = caught(found)
        if error:
            raise ConfigError(f"{what} failed when it was called without arguments: {error}")
        if isinstance(result, kind):
            return result
        found = result
    raise ConfigError(
        f"{what} is {type(found).__name__}, not a Flower {kind.__name__} nor a function that returns one"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Neither warnings of the target's arithmetic nor Flower's log: what matters is what it answers."""
    logger = logging.getLogger("flwr")
    # Not its level: each change of one empties what every logger remembers, thousands of times here.
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


def caught(call: Callable[[], Any]) -> tuple[Any, str]:
    """What a call of the target returns, and what it raised instead."""
    try:
        with quiet():
            return call(), ""
    except Exception as error:  # the user's code may raise anything, and that is what is looked for
        return None, one_line(error)


def _is_users(module: ModuleType) -> bool:
    """Whether a module is part of neither Python, nor an installed package, nor FedSafe."""
    file = getattr(module, "__file__", None)
    if not file or module.__name__.split(".")[0] == "fedsafe":
        return False
    path = Path(file).resolve()
    library = Path(sysconfig.get_path("stdlib")).resolve()
    return not {"site-packages", "dist-packages"} & set(path.parts) and library not in path.parents
