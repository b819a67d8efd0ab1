"""JSON as its standard has it: no NaN and no Infinity, and no object that says a thing twice (RFC 8259)."""

import json
from typing import Any

_SHOWN = 60


def parse(content: str | bytes) -> Any:
    """The value.

    Raises:
        ValueError: It is no such JSON.
        RecursionError: It is nested too deeply.
    """
    return json.loads(content, parse_constant=_no_constant, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values of a column neither is what was meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has {twice[:_SHOWN]!r} twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
