"""A task from data that a program already has: arrays, tensors, data frames, or one data set for each client."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.about import (
    class_names,
    count_classes,
    inputs_of,
    refuse_unknown,
    refuse_unused,
    target_of,
    texts,
)
from fedsafe.data.arrays import Part, clients_part, part
from fedsafe.data.dataset import Examples, Kind, Source, Target, Task, Texts, hold_out
from fedsafe.data.inputs import ArraySchema, InputSchema
from fedsafe.data.mapped import blocks, extremes, file_array
from fedsafe.data.options import number, one_of, whole
from fedsafe.data.schema import Schema
from fedsafe.data.schema_file import read_schema
from fedsafe.data.tables import EVALUATION_FRACTION, task_from_frame
from fedsafe.errors import ConfigError, DataError

NAME = "given in Python"
# A few values outside the public range are outliers; more show that the range is not that of these values.
_OUTSIDE = 0.05


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
    evaluation_fraction: float | None = None,
    evaluation_public: bool = False,
    evaluation_groups: Texts | None = None,
    seed: int = 0,
    groups: Texts | None = None,
    holders: Texts | None = None,
    clients: int | None = None,
    **unknown: Any,
) -> Task:
    """A task from data in memory.

    Nothing about the inputs is estimated: their range is what ``low`` and ``high`` say, and values outside are clamped;
    more than 5 % outside are refused, since the range is then not theirs.

    Records that are too many for the memory stay in their files: give ``x`` of float32 and ``y`` of int64 as
    ``numpy.load("x.npy", mmap_mode="r")`` opens them, with evaluation records of their own and no value to clamp, and
    use the partition ``contiguous``. Workers open the same files.

    Args:
        data: One of

            * a :class:`Task`, which is returned as it is and says everything itself;
            * ``(x, y)``: ``x`` of shape ``(n, ...)`` and ``y`` of shape ``(n,)``, ``(n, 1)`` or ``(n, positions)``;
              arrays or tensors. A part is held out for evaluation unless ``evaluation`` is given;
            * a ``torch.utils.data.Dataset`` or another sequence of single ``(x, y)`` pairs, likewise;
            * ``(x_train, y_train, x_evaluation, y_evaluation)``, or ``{"train": ..., "evaluation": ...}`` of the above;
            * a data frame of raw records, with ``schema``, which says all but what is evaluated on;
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
        evaluation_fraction: Part held out for evaluation where there is nothing else to judge on, in (0, 1); by default
            0.2.
        evaluation_public: Whether the evaluation records are public.
        evaluation_groups: Group column to ``(n,)`` names, for the records of ``evaluation``.
        seed: Decides which are held out.
        groups: Group column to ``(n,)`` names, for the training records.
        holders: Natural column to ``(n,)`` names of who holds each training record.
        clients: Number of clients, for a callable.
        unknown: Refused, with the nearest of the above.

    Raises:
        ConfigError: If something that must not be taken from the records is not said, or an argument does not fit.
        DataError: If the records cannot be used.
    """
    refuse_unknown(unknown, [key for key in signature(as_task).parameters if key not in ("data", "unknown")])
    by_schema = {
        "kind": kind,
        "classes": classes,
        "low": low,
        "high": high,
        "target": target,
        "tokens": tokens,
        "groups": groups,
        "holders": holders,
        "clients": clients,
        "evaluation_groups": evaluation_groups,
    }
    judging = {"evaluation": evaluation, "evaluation_fraction": evaluation_fraction}
    if isinstance(data, Task):
        public = evaluation_public or None
        rest = {"schema": schema, **judging, "evaluation_public": public}
        refuse_unused(by_schema | rest, "A task says everything about its records itself")
        return data
    data, evaluation = _separated(data, evaluation)
    if evaluation is not None:
        refuse_unused({"evaluation_fraction": evaluation_fraction}, "The records to judge on are given")
    else:
        refuse_unused({"evaluation_groups": evaluation_groups}, "No records to judge on are given")
    fraction = number(
        EVALUATION_FRACTION if evaluation_fraction is None else evaluation_fraction, "`evaluation_fraction`"
    )
    seed = whole(seed, "`seed`", least=0)
    if not isinstance(evaluation_public, bool):
        raise ConfigError(f"`evaluation_public` = {evaluation_public!r}: say True or False.")
    if _is_frame(data):
        refuse_unused(by_schema, "A data frame is described by its schema alone")
        return _from_frame(data, schema, name, evaluation, evaluation_fraction, evaluation_public, seed)
    if schema is not None:
        raise ConfigError("`schema` describes a data frame, which the data is not: leave it out.")
    if callable(data) != (clients is not None):
        raise ConfigError(
            "`clients` says how many clients a callable, client -> data set, has: give both or neither."
        )
    given = (
        clients_part(data, whole(clients, "`clients`"), mixed=kind is not None)
        if callable(data)
        else part(data, "the data")
    )
    given = replace(
        given,
        groups=texts(groups, "groups") or given.groups,
        holders=texts(holders, "holders") or given.holders,
    )
    _refuse_several(kind, given.y, said=tokens is None and low is not None)
    kind = _kind(kind, given, classes)
    names = class_names(kind, given.y, classes, tokens)
    bounds = target_of(kind, given.y, target)
    inputs = inputs_of(given.x, low, high, tokens)
    train = _encoded(given, kind, inputs, bounds, "the data")
    if evaluation is None:
        held, kept = hold_out(len(train), fraction, seed)
        train, judged = train.take(kept), train.take(held)
        told = f"{fraction:.0%} held out with seed {seed}"
    else:
        what = "the evaluation records"
        read = part(evaluation, what)
        read = replace(read, groups=texts(evaluation_groups, "evaluation_groups") or read.groups)
        judged = _encoded(read, kind, inputs, bounds, what)
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


def _is_frame(data: Any) -> bool:
    return hasattr(data, "columns") and hasattr(data, "iloc")


def _from_frame(
    frame: Any,
    schema: Schema | str | Path | None,
    name: str,
    evaluation: Any,
    fraction: float | None,
    public: bool,
    seed: int,
) -> Task:
    if schema is None:
        raise ConfigError(
            "A data frame needs `schema`, a public schema or its file: bounds and categories taken from the records "
            "would be a release about the people in them."
        )
    if not isinstance(schema, Schema | str | Path):
        raise ConfigError(f"`schema` = {schema!r}: give a fedsafe.data.Schema, or the name of its file.")
    if evaluation is not None and not _is_frame(evaluation):
        raise ConfigError(
            f"`evaluation` is {type(evaluation).__name__}, but the data is a data frame: give one, too."
        )
    read = schema if isinstance(schema, Schema) else read_schema(Path(schema))
    if read.split:
        why = f"The schema's split column {read.split.column!r} says which records are for evaluation"
        refuse_unused({"evaluation": evaluation, "evaluation_fraction": fraction}, why)
    fraction = EVALUATION_FRACTION if fraction is None else fraction
    told = f"{fraction:.0%} held out with seed {seed}"
    if read.split or evaluation is not None:
        told = f"split column {read.split.column!r}" if read.split else "evaluation records given in Python"
    return task_from_frame(
        frame,
        read,
        name=name,
        origin="the data frame",
        evaluation_name=f"{told} ({'public' if read.evaluation_public or public else 'private'})",
        source=Source(name=name, note=read.note),
        evaluation=evaluation,
        evaluation_fraction=fraction,
        evaluation_public=public,
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
    return "binary" if count_classes(classes, given.y) == 2 else "multiclass"


def _refuse_several(kind: Kind | None, y: NDArray[Any], *, said: bool) -> None:
    """Refuse more than one target for a record where that cannot be next tokens.

    Args:
        kind: As it was given.
        y: Targets.
        said: Whether the inputs were said to be no tokens.
    """
    tokens = kind == "next_token" or (kind is None and not said and np.issubdtype(y.dtype, np.integer))
    if y.ndim > 2 or (y.ndim == 2 and not tokens):
        raise DataError(
            f"y has the shape {y.shape}: give one number for each record, y of shape ({len(y)},), such as one of its "
            f"columns; for one-hot classes, y.argmax(1). Only next tokens, with `tokens`, have several."
        )


def _encoded(given: Part, kind: Kind, inputs: InputSchema, target: Target | None, what: str) -> Examples:
    x, y = given.x, given.y
    if isinstance(inputs, ArraySchema):
        with np.errstate(over="ignore"):  # what is too large for float32 is clamped like the rest
            x = x.astype(np.float32, copy=file_array(x) is None)
        low, high = np.float32(inputs.lowest), np.float32(inputs.highest)
        outside = _refuse_outside(x, low, high, f"x of {what}", "`low` and `high`")
        if outside or file_array(x) is None:
            x = np.clip(x, low, high)
    elif x.size and not 0 <= extremes(x)[0] <= extremes(x)[1] < (inputs.vocabulary or 0):
        raise DataError(f"A token lies outside 0..{(inputs.vocabulary or 0) - 1}.")
    if target is not None:
        # Compared in the values' own precision: 0.1 as float32 is above 0.1.
        own = y.dtype.type if np.issubdtype(y.dtype, np.floating) else float
        _refuse_outside(y, own(target.low), own(target.high), f"y of {what}", "`target`")
        y = target.encode(y)
    elif not np.issubdtype(y.dtype, np.integer) and not np.array_equal(y, np.round(y)):
        row = int((y != np.round(y)).reshape(len(y), -1).any(axis=1).argmax())
        where, owners = f"row {row}", given.holders.get("client")
        if owners is not None:
            where = f"row {(owners[:row] == owners[row]).sum()} of client {owners[row]}"
        raise DataError(f"The targets of a {kind} task are whole numbers, from 0: {where} has {y[row]}.")
    else:
        y = y.astype(np.int64, copy=file_array(y) is None)
    return Examples(x=x, y=y, groups=given.groups, holders=given.holders)


def _refuse_outside(values: NDArray[Any], low: Any, high: Any, what: str, said: str) -> int:
    """Refuse values of which many would be clamped: a wrong unit or scale would otherwise pass unseen.

    Returns:
        How many will be clamped.
    """
    outside = sum(int(((block < low) | (block > high)).sum()) for block in blocks(values))
    if outside > _OUTSIDE * values.size:
        at = np.clip(values, low, high).reshape(-1)
        one = f" All would count as {at[0]:g}, so nothing could be learned." if (at == at[0]).all() else ""
        raise DataError(
            f"{outside:,} of {values.size:,} values of {what} lie outside [{low:g}, {high:g}], the public bounds "
            f"{said}, and would be clamped.{one} Give the bounds that such values have by their meaning and unit, or "
            f"scale them by public constants first. Do not read bounds off the records: that would be a release."
        )
    return outside
