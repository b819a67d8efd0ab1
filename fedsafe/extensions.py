"""Finds what a configuration names: a built-in, an installed plug-in, or a callable at an import path.

The order is fixed, so that installing a package never changes what a built-in name means: first the built-ins,
then the entry points of the group ``fedsafe.<kind>s`` (``fedsafe.aggregators``, ``fedsafe.models``, ...), then, for
a name with a colon, ``"package.module:attribute"``.
"""

import difflib
import importlib
import importlib.metadata
import inspect
import operator
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

from fedsafe.errors import ConfigError, DataError, FedSafeError

Found = TypeVar("Found", bound=Callable[..., Any])


@overload
def resolve(kind: str, name: str, builtin: Mapping[str, Found]) -> Found: ...


@overload
def resolve(kind: str, name: str, builtin: Mapping[str, str]) -> Callable[..., Any]: ...


def resolve(kind: str, name: str, builtin: Mapping[str, Any]) -> Any:
    """What a user names.

    Args:
        kind: What it is for, in the singular: ``"aggregator"``, ``"objective"``, ``"attack"``, ``"assessor"``,
            ``"checker"``, ``"bound"``, ``"corruption"``, ``"baseline"``, ``"explainer"``, ``"partition"``, ``"model"``,
            ``"task"``, ``"suite"`` or ``"sink"``. Messages say it, and the entry points are those of the group
            ``fedsafe.<kind>s``.
        name: A key of ``builtin``, the name of an entry point, or an import path ``"package.module:attribute"``.
        builtin: What ships with FedSafe: name to callable, or to the import path of one, which is imported when
            it is asked for.

    Returns:
        The callable. One that is not built in is of whatever type its author made it: check it before use.

    Raises:
        ConfigError: Nothing has that name (the message has the nearest one and lists the rest), it cannot be
            imported (the message has the reason), or it cannot be called.
    """
    if name in builtin:
        found = builtin[name]
        return imported(found, kind) if isinstance(found, str) else found
    if ":" in name:
        return imported(name, kind)
    plugins = entry_points(kind)
    if name not in plugins:
        raise ConfigError(_unknown(kind, name, [*builtin, *plugins]))
    if len(plugins[name]) > 1:
        claimed = " and ".join(sorted(_origin(point) for point in plugins[name]))
        raise ConfigError(
            f"The {kind} {name!r} is offered by {claimed}: remove one, or name an import path, "
            f"such as {plugins[name][0].value!r}."
        )
    return _callable(plugins[name][0].load, kind, name)


def entry_points(kind: str) -> dict[str, list[importlib.metadata.EntryPoint]]:
    """What installed packages offer of a kind, by name; a name that two packages offer has two entries."""
    offered: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for point in importlib.metadata.entry_points(group=f"fedsafe.{kind}s"):
        offered.setdefault(point.name, []).append(point)
    return offered


def imported(name: str, what: str) -> Callable[..., Any]:
    """The callable at an import path ``"package.module:attribute"``.

    Args:
        name: The import path.
        what: What it is for, to name it in a message.

    Raises:
        ConfigError: If it is no import path, cannot be imported or is not callable; the message has the reason.
    """
    module, colon, attribute = name.partition(":")

    def load() -> Any:
        if not (module and colon and attribute):
            raise ImportError("an import path is 'package.module:attribute'")
        return operator.attrgetter(attribute)(importlib.import_module(module))

    return _callable(load, what, name)


def call(name: str, what: str, /, **options: Any) -> Any:
    """What the callable at an import path returns.

    Args:
        name: The import path.
        what: What it is for, to name it in a message.
        options: Its keyword arguments.

    Raises:
        ConfigError: If it cannot be imported or is not callable.
        DataError: If it raises an exception that is not FedSafe's own; the message has its type and text.
        FedSafeError: FedSafe's own exceptions pass unchanged: their messages already name the remedy.
    """
    function = imported(name, what)
    try:
        return function(**options)
    except FedSafeError:
        raise
    except Exception as error:  # the callable is the user's code, which may raise anything
        raise DataError(f"The {what} {name!r} failed: {one_line(error)}.") from error


def one_line(error: BaseException) -> str:
    """The type and text of an exception on one line, without a full stop: what a message quotes."""
    reason = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def search(folders: Iterable[str | os.PathLike[str]]) -> None:
    """Let import paths name modules of these folders, too.

    They come after everything that is installed: a file of the user's that is called like a library never replaces
    it. Folders that are not there are left out.

    Args:
        folders: Such as the current one, and the one of the configuration.
    """
    for folder in folders:
        path = os.path.abspath(folder)
        if os.path.isdir(path) and path not in sys.path:
            sys.path.append(path)
            importlib.invalidate_caches()


def searched() -> list[str]:
    """Where this process finds modules that are not installed, for `search` in another process.

    Neither the standard library nor ``site-packages`` is among them: another process has its own.
    """
    library = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    found = []
    for folder in map(os.path.abspath, sys.path):
        real = os.path.realpath(folder)
        installed = {"site-packages", "dist-packages"} & set(real.split(os.sep))
        inside = any(os.path.commonpath([real, path]) == path for path in library)
        if os.path.isdir(folder) and not installed and not inside:
            found.append(folder)
    return found


def _callable(load: Callable[[], Any], what: str, name: str) -> Callable[..., Any]:
    try:
        found = load()
    except (ImportError, AttributeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(f"The {what} {name!r} cannot be imported: {reason}{_file(error)}.") from error
    except (Exception, SystemExit) as error:  # importing runs the user's code, which may raise anything
        raise ConfigError(f"The {what} {name!r} cannot be imported: {one_line(error)}.") from error
    if not callable(found):
        raise ConfigError(f"The {what} {name!r} is {type(found).__name__}, not something to call.")
    return found  # type: ignore[no-any-return]


def _file(error: ImportError | AttributeError) -> str:
    """The file of a module that lacks an attribute: perhaps it is another module than the user means."""
    file = getattr(getattr(error, "obj", None), "__file__", None)
    return f" (it is {file})" if file else ""


def _origin(point: importlib.metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f": did you mean {near[0]!r}?" if near else "."
    listed = f" Known: {', '.join(names)}; or give" if names else " Give"
    return f"The {kind} {name!r} is not known{hint}{listed} an import path, 'package.module:attribute'."


def unknown_option(factory: Callable[..., Any], given: Iterable[str], *, first: int = 0) -> str:
    """Why a factory cannot be called with these options.

    Args:
        factory: A class or function.
        given: Names of the options.
        first: How many of its leading parameters are no options.

    Returns:
        The unknown option, and the nearest one and all that there are; "" where every option is known, or the factory
        takes any.
    """
    try:
        parameters = list(inspect.signature(factory).parameters.values())[first:]
    except (TypeError, ValueError):  # some compiled callables do not say
        return ""
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return ""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [parameter.name for parameter in parameters if parameter.kind in named]
    for option in given:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            listed = f"its options are {', '.join(known)}" if known else "it has no options"
            return f"the option {option!r} is not known: {hint}{listed}"
    return ""
