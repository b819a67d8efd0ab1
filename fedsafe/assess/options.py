"""What a user's table may say to a factory, in words: an unknown option is named with the nearest one."""

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any


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
            near = get_close_matches(option, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            listed = f"its options are {', '.join(known)}" if known else "it has no options"
            return f"the option {option!r} is not known: {hint}{listed}"
    return ""
