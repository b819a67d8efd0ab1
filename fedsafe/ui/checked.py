"""Lines of a record that somebody else may have written: of the right kinds, or refused with what is wrong."""

import contextlib
from collections.abc import Mapping

from fedsafe.errors import RecordError
from fedsafe.records import End, Json, RecordLine, Round, Start, from_json

# What every later line of code takes for granted of a record that was written by somebody else.
_SHAPES: Mapping[type, Mapping[str, type | tuple[type, ...]]] = {
    Start: {
        **dict.fromkeys(("run", "created", "trainer"), str),
        **dict.fromkeys(("task", "model", "federation", "plan", "versions", "machine", "assessment"), dict),
    },
    Round: {"round": int, "metrics": dict, "spend": dict, "ledger": dict},
    End: {"rounds": int, "status": str},
}


def checked_line(line: Json) -> RecordLine:
    """A line of ``record.jsonl`` whose values are of the kinds that a record has.

    Args:
        line: One parsed line.

    Raises:
        RecordError: It is of another schema, lacks a key, or holds a value of another kind.
    """
    found = from_json(line)
    for name, kind in _SHAPES[type(found)].items():
        value = getattr(found, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise RecordError(f"the {found.kind} line has {name} = {_short(value)}; the file was edited")
    if isinstance(found, Round):
        for name, value in [*found.metrics.items(), *found.spend.items()]:
            if value is not None and not isinstance(value, int | float):
                raise RecordError(f"the round line has {name} = {_short(value)}, which is no number")
    if isinstance(found, Start) and not all(
        isinstance(claim, dict) for claim in (*found.claims, *found.matrix)
    ):
        raise RecordError("the start line has claims that are no objects; the file was edited")
    return found


def checked_finding(line: Json) -> Json:
    """A finding or verdict that at least says what it is about, and after which round.

    Args:
        line: One parsed line.

    Raises:
        RecordError: It names no metric.
    """
    if not isinstance(line.get("metric"), str):
        raise RecordError("it names no metric; the file was edited")
    number = line.get("round")
    return {**line, "round": number if isinstance(number, int) else 0}


def _short(value: object) -> str:
    with contextlib.suppress(Exception):
        return repr(value)[:60]
    return "something"
