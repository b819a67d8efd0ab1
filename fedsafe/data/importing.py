"""Finds and calls what a configuration names by import path."""

import importlib
from collections.abc import Callable
from typing import Any

from fedsafe.errors import ConfigError, DataError, FedSafeError


def imported(name: str, what: str) -> Callable[..., Any]:
    """The callable at an import path ``"package.module:attribute"``.

    Args:
        name: The import path.
        what: What it is for, to name it in a message.

    Raises:
        ConfigError: If it cannot be imported or is not callable; the message has the reason.
    """
    module, _, attribute = name.partition(":")
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"The {what} {name!r} cannot be imported: {error}.") from error
    except Exception as error:  # the module is the user's code, which may raise anything
        raise ConfigError(f"The {what} {name!r} cannot be imported: {_one_line(error)}.") from error
    if not callable(found):
        raise ConfigError(f"The {what} {name!r} is {type(found).__name__}, not something to call.")
    return found


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
        raise DataError(f"The {what} {name!r} failed: {_one_line(error)}.") from error


def _one_line(error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
