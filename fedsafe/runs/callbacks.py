"""Who is told what happens in a run."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from fedsafe.errors import ConfigError
from fedsafe.records import End, Round, Start
from fedsafe.runs.judge import Assessment


class Callback(Protocol):
    """Is told what happens in a run, in the process that runs it. Nothing it does changes the result.

    The order is: ``on_start`` once; for each round ``on_round`` and, where it was judged, ``on_assessment``; ``on_end``
    once, only if the run completes. A resumed run begins again with ``on_start``, whose ``first_round`` is then the
    round it goes on with. What is passed is what the shareable record holds.

    An exception stops the run as Ctrl-C would: finished rounds are kept, and it can be resumed. What must never
    stop a run is better a sink, see :class:`fedsafe.runs.sinks.SinkCallback`.
    """

    def on_start(self, path: Path, start: Start, first_round: int) -> None:
        """The plan is fixed and the folder is there; nothing has been released yet.

        Args:
            path: The run folder.
            start: The first line of the record: task, model, claims, plan, versions.
            first_round: 1, or where a resumed run goes on.
        """
        ...

    def on_round(self, line: Round) -> None:
        """A round is complete and on the disk.

        Args:
            line: Its line of the record: metrics on the evaluation records, and the planned spend so far.
        """
        ...

    def on_assessment(self, assessment: Assessment) -> None:
        """The assessors have judged a round's model, and what they found is on the disk.

        Args:
            assessment: Findings by assessor, and a verdict for each requirement.
        """
        ...

    def on_end(self, end: End) -> None:
        """The run is complete.

        Args:
            end: The last line of the record.
        """
        ...


_METHODS = ("on_start", "on_round", "on_assessment", "on_end")


def require_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """The callbacks of a run, before anything is made.

    Args:
        callbacks: A list or another sequence of them.

    Raises:
        ConfigError: It is no sequence, or an entry lacks a method of :class:`Callback`.
    """
    if isinstance(callbacks, str | bytes | dict) or not isinstance(callbacks, Iterable):
        raise ConfigError(f"callbacks is {type(callbacks).__name__}: {callbacks!r}; give a list of callbacks")
    given = tuple(callbacks)
    for position, callback in enumerate(given):
        if isinstance(callback, type):
            raise ConfigError(
                f"callbacks[{position}] is the class {callback.__name__}: give an instance, {callback.__name__}()"
            )
        lacking = [name for name in _METHODS if not callable(getattr(callback, name, None))]
        if lacking:
            raise ConfigError(
                f"callbacks[{position}], a {type(callback).__name__}, has no method {' and no '.join(lacking)}: a "
                f"callback has {', '.join(_METHODS)}; what only writes is a sink, see fedsafe.runs.sinks.SinkCallback"
            )
    return given
