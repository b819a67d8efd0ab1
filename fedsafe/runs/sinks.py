"""Sinks: a run's shareable record, event by event, for whatever keeps track of experiments.

An event is a plain mapping with a ``kind``:

* ``"start"``, ``"round"``, ``"end"``: the line of ``record.jsonl``;
* ``"finding"``: the line of ``findings.jsonl``, after its round;
* ``"verdict"``: the line of ``requirements.jsonl``, after its round.

Nothing else reaches a sink: no cohort, no time of a round, nothing of ``private/``. A sink of one's own is a class
with ``write`` and ``close``; in a configuration it is a factory at an import path or an entry point of the group
``fedsafe.sinks``, called with the run folder and the options of its table.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from fedsafe.errors import ConfigError, FedSafeError
from fedsafe.extensions import one_line, resolve, unknown_option
from fedsafe.records import End, Json, Round, Start, dumps
from fedsafe.runs.judge import Assessment
from fedsafe.store import RunFolder

_LOG = logging.getLogger(__name__)


@runtime_checkable
class Sink(Protocol):
    """Takes what a run records. Whatever it raises, the run goes on without it."""

    def write(self, event: Mapping[str, Any]) -> None:
        """Take one event; it is the sink's own copy."""
        ...

    def close(self) -> None:
        """The run is complete: finish what was begun. An interrupted run closes nothing, and writes all again."""
        ...


class SinkCallback:
    """Feeds sinks from a run: a callback of :func:`fedsafe.run`.

    A resumed run begins with all that was recorded before, so that a sink sees every run whole. A sink that raises
    is reported once, as a warning of the logger ``fedsafe.runs.sinks``, and dropped: it changes nothing else.

    Args:
        sinks: Where to write.
    """

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = list(sinks)

    def on_start(self, path: Path, start: Start, first_round: int) -> None:
        """Send what is recorded so far: the start, and the rounds before an interruption."""
        for event in recorded_events(path):
            self._send(event)

    def on_round(self, line: Round) -> None:
        """Send a round."""
        self._send(line.to_json())

    def on_assessment(self, assessment: Assessment) -> None:
        """Send its findings and verdicts."""
        for name, findings in assessment.findings.items():
            for finding in findings:
                line = {"round": assessment.round, "assessor": name, **finding.to_json()}
                self._send({"kind": "finding", **line})
        for verdict in assessment.verdicts:
            self._send({"kind": "verdict", **verdict.to_json(assessment.round)})

    def on_end(self, end: End) -> None:
        """Send the end, and close."""
        self._send(end.to_json())
        for sink in tuple(self._sinks):
            self._guard(sink, sink.close)

    def _send(self, event: Mapping[str, Any]) -> None:
        text = dumps(event) if self._sinks else ""
        for sink in tuple(self._sinks):
            self._guard(sink, lambda sink=sink: sink.write(json.loads(text)))  # type: ignore[misc]

    def _guard(self, sink: Sink, act: Callable[[], None]) -> None:
        try:
            act()
        except (Exception, SystemExit) as error:  # a sink may be anybody's code, and is never worth a run
            self._sinks.remove(sink)
            _LOG.warning(
                "the sink %s failed, and the run goes on without it: %s", type(sink).__name__, one_line(error)
            )
            with contextlib.suppress(Exception, SystemExit):
                sink.close()


def recorded_events(path: Path | str) -> Iterator[Json]:
    """The events of a run folder, or of a shared copy of one: what its sinks were sent.

    Raises:
        RecordError: It is not a run folder, or is damaged.
    """
    folder = RunFolder.open(path)
    after: dict[int, list[Json]] = {}
    for kind, name in (("finding", "findings.jsonl"), ("verdict", "requirements.jsonl")):
        for line in folder.read(name):
            after.setdefault(line["round"], []).append({"kind": kind, **line})
    for recorded in folder.record():
        yield recorded.to_json()
        if isinstance(recorded, Round):
            yield from after.get(recorded.round, ())


SINKS: Mapping[str, str] = MappingProxyType(
    {
        "csv": "fedsafe.runs.file_sinks:csv_file",
        "jsonl": "fedsafe.runs.file_sinks:jsonl_file",
        "tensorboard": "fedsafe.runs.trackers:tensorboard",
        "mlflow": "fedsafe.runs.trackers:mlflow",
    }
)
"""The built-in sinks by name: factories, called with the run folder and the options of the configuration."""


def make_sinks(specs: Sequence[str | Mapping[str, Any]], folder: Path) -> list[Sink]:
    """The sinks of a configuration, before anything is written.

    Args:
        specs: Names, or tables with ``name`` and options. A name is a built-in, an entry point of the group
            ``fedsafe.sinks`` or an import path of a factory ``(folder, **options) -> Sink``.
        folder: The run folder, which need not be there yet: write when the first event comes.

    Raises:
        ConfigError: A sink cannot be found or made, needs a package that is not installed, is none, or is named twice
            with the same options.
    """
    for position, spec in enumerate(specs):
        if _table(spec) in [_table(other) for other in specs[:position]]:
            raise ConfigError(
                f"sinks names {spec!r} twice: each event would be written twice; leave one out."
            )
    return [_make(spec, folder) for spec in specs]


def _table(spec: str | Mapping[str, Any]) -> dict[str, Any]:
    return {"name": spec} if isinstance(spec, str) else dict(spec)


def _make(spec: str | Mapping[str, Any], folder: Path) -> Sink:
    table = _table(spec)
    name = table.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"sinks: {spec!r} needs a `name`, such as 'csv'.")
    factory = resolve("sink", name, SINKS)
    wrong = unknown_option(factory, table, first=1)
    if wrong:
        raise ConfigError(f"The sink {name!r} cannot be made: {wrong}.")
    try:
        sink: object = factory(folder, **table)
    except FedSafeError:
        raise
    except (Exception, SystemExit) as error:  # the factory is the user's code, which may raise anything
        raise ConfigError(f"The sink {name!r} cannot be made: {one_line(error)}.") from error
    if not isinstance(sink, Sink):
        lacking = [member for member in ("write", "close") if not hasattr(sink, member)]
        raise ConfigError(f"The sink {name!r} is a {type(sink).__name__} without {' and '.join(lacking)}.")
    return sink
