"""A task from data that a program already has: arrays, tensors, data frames, or one data set for each client."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.arrays import Part, clients_part, part
from fedsafe.data.dataset import Examples, Kind, Source, Target, Task, Texts, hold_out
from fedsafe.data.inputs import ArraySchema, InputSchema, TokenSchema
from fedsafe.data.options import one_of, whole
from fedsafe.data.schema import Schema
from fedsafe.data.schema_file import read_schema
from fedsafe.data.tables import EVALUATION_FRACTION, task_from_frame
from fedsafe.errors import ConfigError, DataError

NAME = "given in Python"


def as_task(
    data: Any,
    *,
    name: str = NAME,
    kind: Kind | None = None,
    classes: Sequence[str] | int | None = None,
    low: float | None = None,
    high: float | None = None,
    target: Target | tuple[float, float] | None = None,
    tokens: Sequence[str] | int | None = None,
    schema: Schema | str | Path | None = None,
    evaluation: Any = None,
    evaluation_fraction: float = EVALUATION_FRACTION,
    evaluation_public: bool = False,
    seed: int = 0,
    groups: Texts | None = None,
    holders: Texts | None = None,
    clients: int | None = None,
) -> Task:
    """A task from data in memory.

    Nothing about the inputs is estimated: their range is what ``low`` and ``high`` say, and values outside are clamped.

    Args:
        data: One of

            * a :class:`Task`, which is returned as it is;
            * ``(x, y)``: ``x`` of shape ``(n, ...)`` and ``y`` of shape ``(n,)``, ``(n, 1)`` or ``(n, positions)``;
              arrays or tensors. A part is held out for evaluation unless ``evaluation`` is given;
            * a ``torch.utils.data.Dataset`` or another sequence of single ``(x, y)`` pairs, likewise;
            * ``(x_train, y_train, x_evaluation, y_evaluation)``, or ``{"train": ..., "evaluation": ...}`` of the above;
            * a data frame of raw records, with ``schema``;
            * a callable ``client -> (x, y)`` or ``client -> Dataset`` for the clients ``0 .. clients - 1``, who become
              the holders ``"client"``: use the natural partition.
        name: Name of the task.
        kind: By default from ``y``: whole numbers are classes (two of them: binary), others a regression, and whole
            numbers in two dimensions the next tokens.
        classes: Names of the classes, or how many there are; by default as many as the largest label says, which
            makes that label public.
        low: Smallest value that an input can take; public, and needed unless inputs are tokens.
        high: Largest value that an input can take.
        target: For regression: the public bounds of ``y`` in its own units.
        tokens: For inputs that are tokens: the vocabulary, or its size.
        schema: Public schema of a data frame, or its file.
        evaluation: Records to judge on, in one of the forms of ``data`` that have no evaluation records yet.
        evaluation_fraction: Part held out for evaluation where there is nothing else to judge on, in (0, 1).
        evaluation_public: Whether the evaluation records are public.
        seed: Decides which are held out.
        groups: Group column to ``(n,)`` names, for the training records.
        holders: Natural column to ``(n,)`` names of who holds each training record.
        clients: Number of clients, for a callable.

    Raises:
        ConfigError: If something that must not be taken from the records is not said, or an argument does not fit.
        DataError: If the records cannot be used.
    """
    if isinstance(data, Task):
        return data
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return _from_frame(data, schema, name, evaluation_fraction, seed)
    if schema is not None:
        raise ConfigError("`schema` describes a data frame, which the data is not: leave it out.")
    data, evaluation = _separated(data, evaluation)
    if callable(data) != (clients is not None):
        raise ConfigError(
            "`clients` says how many clients a callable, client -> data set, has: give both or neither."
        )
    given = clients_part(data, whole(clients, "clients")) if callable(data) else part(data, "the data")
    given = replace(given, groups=groups or given.groups, holders=holders or given.holders)
    kind = _kind(kind, given, classes)
    names = _classes(kind, given.y, classes, tokens)
    bounds = _target(kind, target)
    inputs = _inputs(given.x, low, high, tokens)
    train = _encoded(given, kind, inputs, bounds)
    if evaluation is None:
        held, kept = hold_out(len(train), evaluation_fraction, seed)
        train, judged = train.take(kept), train.take(held)
        told = f"{evaluation_fraction:.0%} held out with seed {seed}"
    else:
        judged = _encoded(part(evaluation, "the evaluation records"), kind, inputs, bounds)
        told = "evaluation records given in Python"
    return Task(
        name=name,
        kind=kind,
        classes=names,
        target=bounds,
        schema=inputs,
        train=train,
        evaluation=judged,
        evaluation_name=f"{told} ({'public' if evaluation_public else 'private'})",
        source=Source(name=name),
        evaluation_public=evaluation_public,
    )


def _from_frame(
    frame: Any, schema: Schema | str | Path | None, name: str, fraction: float, seed: int
) -> Task:
    if schema is None:
        raise ConfigError(
            "A data frame needs `schema`, a public schema or its file: bounds and categories taken from the records "
            "would be a release about the people in them."
        )
    read = schema if isinstance(schema, Schema) else read_schema(Path(schema))
    told = (
        f"split column {read.split.column!r}" if read.split else f"{fraction:.0%} held out with seed {seed}"
    )
    public = "public" if read.evaluation_public else "private"
    return task_from_frame(
        frame,
        read,
        name=name,
        origin="the data frame",
        evaluation_name=f"{told} ({public})",
        source=Source(name=name, note=read.note),
        evaluation_fraction=fraction,
        seed=seed,
    )


def _separated(data: Any, evaluation: Any) -> tuple[Any, Any]:
    """Training and evaluation records."""
    if isinstance(data, Mapping):
        if set(data) != {"train", "evaluation"}:
            keys = ", ".join(map(repr, data))
            raise ConfigError(f"A mapping of records needs the keys 'train' and 'evaluation': got {keys}.")
        found = data["train"], data["evaluation"]
    elif isinstance(data, tuple) and len(data) == 4:
        found = data[:2], data[2:]
    else:
        return data, evaluation
    if evaluation is not None:
        raise ConfigError("The data has evaluation records of its own: leave `evaluation` out.")
    return found


def _kind(kind: Kind | None, given: Part, classes: Sequence[str] | int | None) -> Kind:
    if kind is not None:
        one_of(kind, get_args(Kind), "kind")
        return kind
    if given.y.ndim == 2:
        return "next_token"
    if not np.issubdtype(given.y.dtype, np.integer):
        return "regression"
    return "binary" if _count(classes, given.y) == 2 else "multiclass"


def _count(classes: Sequence[str] | int | None, y: NDArray[Any]) -> int:
    if classes is None:
        return max(2, int(y.max()) + 1)
    return classes if isinstance(classes, int) else len(classes)


def _classes(
    kind: Kind, y: NDArray[Any], classes: Sequence[str] | int | None, tokens: Sequence[str] | int | None
) -> tuple[str, ...]:
    if kind == "regression":
        return ()
    if kind == "next_token":
        return _named(tokens, "tokens")
    return _named(_count(classes, y) if classes is None else classes, "classes")


def _named(given: Sequence[str] | int | None, what: str) -> tuple[str, ...]:
    if given is None or isinstance(given, str):
        raise ConfigError(
            f"`{what}` = {given!r}: give their names, or how many there are. They must be public."
        )
    return tuple(map(str, range(whole(given, what, least=2)))) if isinstance(given, int) else tuple(given)


def _target(kind: Kind, target: Target | tuple[float, float] | None) -> Target | None:
    if kind != "regression":
        if target is not None:
            raise ConfigError(
                f"`target` has the bounds of a regression, but the task is {kind}: leave it out."
            )
        return None
    if target is None:
        raise ConfigError(
            "A regression needs `target` = (low, high), public bounds of y: taken from the records, they would be a "
            "release. If y holds classes, make it whole numbers, or say kind='binary' or 'multiclass'."
        )
    return target if isinstance(target, Target) else Target(name="y", low=target[0], high=target[1])


def _inputs(
    x: NDArray[Any], low: float | None, high: float | None, tokens: Sequence[str] | int | None
) -> InputSchema:
    if tokens is not None:
        if x.ndim != 2 or not np.issubdtype(x.dtype, np.integer):
            raise ConfigError(
                f"`tokens` are whole numbers in x of shape (n, length), not {x.dtype} of {x.shape}."
            )
        return TokenSchema(tokens=_named(tokens, "tokens"), length=x.shape[1])
    if low is None or high is None:
        raise ConfigError(
            "Inputs need `low` and `high`, the public range of a value, such as 0 and 1: taken from the records, it "
            "would be a release. Inputs that are tokens need `tokens` instead."
        )
    return ArraySchema(shape=x.shape[1:], lowest=low, highest=high)


def _encoded(given: Part, kind: Kind, inputs: InputSchema, target: Target | None) -> Examples:
    x, y = given.x, given.y
    if isinstance(inputs, ArraySchema):
        x = np.clip(x.astype(np.float32), np.float32(inputs.lowest), np.float32(inputs.highest))
    elif x.size and not 0 <= x.min() <= x.max() < (inputs.vocabulary or 0):
        raise DataError(f"A token lies outside 0..{(inputs.vocabulary or 0) - 1}.")
    if target is not None:
        y = target.encode(y)
    elif not np.array_equal(y, np.round(y)):
        raise DataError(
            f"The targets of a {kind} task are whole numbers, from 0: got {y.dtype} with fractions."
        )
    else:
        y = y.astype(np.int64)
    return Examples(x=x, y=y, groups=given.groups, holders=given.holders)
