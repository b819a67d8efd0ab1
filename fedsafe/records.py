"""The lines of a run's record, versioned.

A run's ``record.jsonl`` holds one `Start` line, one `Round` line for every round that is complete, and one
`End` line. The `Round` line is the commit point of a round: whatever else a round wrote counts only once its
line is there.

JSON has no NaN and no infinity. A number that is not finite is written as ``null``: for an epsilon that reads
"no guarantee", for a metric "not a finite number".
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, Self, TypeAlias

from fedsafe.errors import RecordError

SCHEMA = "fedsafe.record/1"
"""The schema that this version writes; it reads every schema of the same major number."""

Json: TypeAlias = dict[str, Any]


def to_plain(value: Any) -> Any:
    """Turns a value into what JSON can hold.

    Args:
        value: Nested mappings, sequences, sets, numpy scalars and arrays, text, numbers, booleans and None.

    Returns:
        Dictionaries with string keys, lists, strings, numbers, booleans and None; a number that is not finite
        becomes None.

    Raises:
        RecordError: A value is of a type that a record cannot hold.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return [to_plain(entry) for entry in sorted(value)]
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return to_plain(value.tolist())
    raise RecordError(
        f"a record cannot hold a {type(value).__name__}: {value!r}; give it plain numbers and text"
    )


def dumps(value: Mapping[str, Any]) -> str:
    """One line of JSON, without its newline.

    Args:
        value: What `to_plain` accepts.

    Returns:
        Compact JSON in UTF-8 characters, with the keys in the order given, and no NaN or infinity.

    Raises:
        RecordError: A value is of a type that a record cannot hold.
    """
    return json.dumps(to_plain(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _needed(entry: Field[Any]) -> bool:
    """Whether a line must hold the field: every version wrote it."""
    return entry.default is MISSING and entry.default_factory is MISSING


@dataclass(frozen=True, kw_only=True)
class _Line:
    kind: ClassVar[str]

    def to_json(self) -> Json:
        """The line as plain JSON values, `schema` and `kind` first."""
        body = {entry.name: to_plain(getattr(self, entry.name)) for entry in fields(self)}
        return {"schema": SCHEMA, "kind": self.kind, **body}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """Reads a line back; keys that a later minor version added are ignored.

        Args:
            line: One parsed line of ``record.jsonl``.

        Raises:
            RecordError: The line has another schema major, another kind, or lacks a key.
        """
        _check_schema(line)
        if line.get("kind") != cls.kind:
            raise RecordError(f"expected a record line of kind {cls.kind!r}, found {line.get('kind')!r}")
        missing = [entry.name for entry in fields(cls) if entry.name not in line and _needed(entry)]
        if missing:
            raise RecordError(
                f"the {cls.kind} line of the record lacks {', '.join(missing)}; the file was edited or cut"
            )
        return cls(**{entry.name: line[entry.name] for entry in fields(cls) if entry.name in line})


@dataclass(frozen=True, kw_only=True)
class Start(_Line):
    """What was fixed before round 1.

    Attributes:
        run: Name of the run.
        created: When it started, ISO 8601 with a time zone.
        revision: Code revision, or None outside a checkout.
        versions: Package name to version.
        machine: Facts about the machine (processor, cores, system), and the engine that carried the messages.
        seed: Seed of partition and initialisation; it never drives the noise unless `reproducible`.
        reproducible: Whether the noise key was derived from the seed.
        task: name, kind, classes, features, train_records, evaluation, evaluation_records, source.
        model: name, parameters (a count).
        trainer: Name of the local trainer.
        federation: clients, partition, records_per_client (min, median, max).
        claims: One mapping for each privacy claim.
        matrix: One mapping for each adversary and unit: what is claimed, or why nothing is.
        plan: The plan's hash and its numbers.
        settings_sha256: Digest of ``config.toml`` without its engine, sinks and card, which cannot change a result.
        assessment: How models are judged: tier, every, looks, on_failure, alpha_spending, max_share, and what each
            assessor plans to spend.
    """

    kind: ClassVar[str] = "start"

    run: str
    created: str
    revision: str | None = None
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    seed: int
    reproducible: bool
    task: Mapping[str, Any]
    model: Mapping[str, Any]
    trainer: str
    federation: Mapping[str, Any]
    claims: tuple[Mapping[str, Any], ...]
    plan: Mapping[str, Any]
    settings_sha256: str
    matrix: tuple[Mapping[str, Any], ...] = ()
    assessment: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "claims", tuple(self.claims))
        object.__setattr__(self, "matrix", tuple(self.matrix))


@dataclass(frozen=True, kw_only=True)
class Round(_Line):
    """A complete round. It holds no time and no realised cohort size: both tell about the secret cohort.

    What tells of time all the same is `assess_every`, which doubles where assessments took too long; a claim lists it
    among what it does not cover.

    Attributes:
        round: Number of the round, from 1.
        metrics: Of the global model on the evaluation set: loss, and accuracy or (regression) r2 and mae; where the
            clients evaluated it too, federated_score and federated_score_deviation. None where not finite.
        spend: Planned epsilon so far for each unit ("record", "client"); None where there is no guarantee.
        ledger: sequence and head of the hash chain after this round.
        checkpoint: Path relative to the run folder, or None where the round wrote none.
        parameters_sha256: Digest of the global parameters after this round.
        accepted: Round of the last accepted model, so far; None where none is.
        assess_every: Rounds between two assessments from here on: more than the configuration says where assessments
            took more than their share of the time. None where an older version wrote the line.
    """

    kind: ClassVar[str] = "round"

    round: int
    metrics: Mapping[str, float | None]
    spend: Mapping[str, float | None]
    ledger: Mapping[str, Any]
    checkpoint: str | None
    parameters_sha256: str
    accepted: int | None = None
    assess_every: int | None = None


def headline_metric(kind: str) -> str:
    """Which metric of a round tells most about a task of that kind: ``"r2"`` for regression, else ``"accuracy"``."""
    return "r2" if kind == "regression" else "accuracy"


@dataclass(frozen=True, kw_only=True)
class End(_Line):
    """How the run ended.

    Attributes:
        rounds: Complete rounds.
        seconds: Wall-clock time of the whole run, in seconds.
        status: "completed" or "stopped".
        reason: Why it stopped, or None.
        accuracy: Accuracy of the accepted model on the evaluation set, in [0, 1], or of the newest where none is
            accepted; None for regression.
        accepted: Round of the accepted model, which is the one to release; None where none is.
        checkpoint: Its checkpoint, relative to the run folder.
    """

    kind: ClassVar[str] = "end"

    rounds: int
    seconds: float
    status: str
    reason: str | None = None
    accuracy: float | None = field(default=None)
    accepted: int | None = None
    checkpoint: str | None = None


RecordLine: TypeAlias = Start | Round | End

_READERS: Mapping[str, Callable[[Mapping[str, Any]], RecordLine]] = {
    Start.kind: Start.from_json,
    Round.kind: Round.from_json,
    End.kind: End.from_json,
}


def from_json(line: Mapping[str, Any]) -> RecordLine:
    """Reads any line of ``record.jsonl``.

    Args:
        line: One parsed line.

    Raises:
        RecordError: The schema major is another one, the kind is unknown, or a key is missing.
    """
    _check_schema(line)
    kind = line.get("kind")
    if not isinstance(kind, str) or kind not in _READERS:
        raise RecordError(f"unknown kind of record line {kind!r}; known: {', '.join(_READERS)}")
    return _READERS[kind](line)


def _check_schema(line: Mapping[str, Any]) -> None:
    found = line.get("schema")
    name, _, version = str(found).partition("/")
    ours, _, major = SCHEMA.partition("/")
    if name != ours or version.partition(".")[0] != major:
        versions = line.get("versions")
        writer = versions.get("fedsafe") if isinstance(versions, Mapping) else None
        by = f" by fedsafe {writer}" if writer else ""
        raise RecordError(
            f"this record was written{by} with schema {found!r}, this fedsafe reads {SCHEMA!r}; "
            "read it with the version that wrote it"
        )
