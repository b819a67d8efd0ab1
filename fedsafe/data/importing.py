"""Finds what a configuration names by import path."""

import importlib
from collections.abc import Callable
from typing import Any

from fedsafe.errors import ConfigError


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
    if not callable(found):
        raise ConfigError(f"The {what} {name!r} is {type(found).__name__}, not something to call.")
    return found
