"""The values that the rest of the platform trains and judges on: examples, their source, a task."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.inputs import InputSchema, public_facts
from fedsafe.data.mapped import FileArray, blocks, extremes, file_array
from fedsafe.data.preferences import Preferences
from fedsafe.errors import ConfigError, DataError
from fedsafe.rng import public_generator

Features = NDArray[Any]  # float32 or int64
Targets = NDArray[Any]  # int64 or float32
Texts = Mapping[str, NDArray[np.str_]]
Indices = NDArray[np.int64]
Kind = Literal["binary", "multiclass", "regression", "next_token"]


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Encoded records, their targets, the groups they belong to and who holds them.

    Args:
        x: ``(n, ...)``, C-contiguous: float32 features in encoded units, or int64 token numbers.
        y: ``(n,)`` int64 class indices; ``(n,)`` float32 values in encoded units (regression); or
            ``(n, positions)`` int64 tokens (next token).
        groups: Group column to ``(n,)`` group names, e.g. ``{"sex": ["Male", "Female", ...]}``.
        holders: Natural column to ``(n,)`` names of who holds each record, e.g. ``{"hospital": [...]}``: the
            clients of a natural partition.

    Arrays of the right type that ``numpy.load(..., mmap_mode="r")`` gave stay in their files, also when the examples
    are sent to another process: that process opens the same files.

    Raises:
        DataError: If lengths or shapes disagree, or a value is not finite.
    """

    x: Features
    y: Targets
    groups: Texts = field(default_factory=dict)
    holders: Texts = field(default_factory=dict)

    def __post_init__(self) -> None:
        x, y = _numbers(self.x), _numbers(self.y)
        if x.ndim < 2 or y.ndim not in (1, 2) or len(x) != len(y):
            raise DataError(
                f"Examples need x of shape (n, ...) and y of shape (n,) or (n, positions): got {x.shape} and {y.shape}."
            )
        for what, texts in (("Group", self.groups), ("Holder column", self.holders)):
            for name, values in texts.items():
                if np.shape(values) != y.shape[:1]:
                    raise DataError(
                        f"{what} {name!r} has shape {np.shape(values)}, but there are {len(y)} records."
                    )
        for name, values in (("x", x), ("y", y)):
            refuse_not_finite(values, name)
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)
        for what in ("groups", "holders"):
            texts = {name: np.asarray(values, dtype=np.str_) for name, values in getattr(self, what).items()}
            object.__setattr__(self, what, texts)

    def __len__(self) -> int:
        """Number of records."""
        return len(self.y)

    def __getstate__(self) -> dict[str, Any]:
        """What is sent: of a mapped array, where it is."""
        mapped = {name: file_array(getattr(self, name)) for name in ("x", "y")}
        return vars(self) | {name: found for name, found in mapped.items() if found is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open what is in files."""
        for name, value in state.items():
            object.__setattr__(self, name, value.open() if isinstance(value, FileArray) else value)

    def take(self, indices: Indices) -> Self:
        """The records at ``indices``, in that order."""
        groups = {name: values[indices] for name, values in self.groups.items()}
        holders = {name: values[indices] for name, values in self.holders.items()}
        return replace(self, x=self.x[indices], y=self.y[indices], groups=groups, holders=holders)


def refuse_not_finite(values: NDArray[Any], what: str) -> None:
    """Refuse a NaN or an infinity.

    Args:
        values: ``(n, ...)`` numbers.
        what: What to call them in the message.

    Raises:
        DataError: Naming the first row that has one.
    """
    if not np.issubdtype(values.dtype, np.inexact):
        return
    first = 0
    for block in blocks(values):
        if not np.isfinite(block).all():
            row = int((~np.isfinite(block)).reshape(len(block), -1).any(axis=1).argmax())
            found = block[row][~np.isfinite(block[row])].flat[0]
            raise DataError(
                f"Row {first + row} (counted from 0) of {what} has {found}, which is not finite: remove the record, or "
                f"put a public value in its place (in a table, by `fill` in the schema)."
            )
        first += len(block)


def _numbers(values: Any) -> NDArray[Any]:
    """Contiguous int64 for whole numbers, else float32."""
    array = np.asarray(values)
    kind = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32
    return np.ascontiguousarray(array, dtype=kind)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the records come from, for the run's record and card.

    Args:
        name: Title and authors.
        licence: Licence, or ``"not stated"``.
        url: Where a reader finds the data, a DOI if there is one.
        sha256: Checksum of the file that was read, in hexadecimal; empty if no file was read.
        note: What was dropped or changed, and why.
    """

    name: str
    licence: str = "not stated"
    url: str = ""
    sha256: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The number that a regression task predicts, with public bounds.

    A value is clamped to its bounds and encoded to [-1, 1], so that nothing is estimated from records.

    Args:
        name: What it is, e.g. ``"total UPDRS"``.
        low: Smallest value.
        high: Largest value.
        unit: Unit, if it has one.

    Raises:
        DataError: If the bounds are not finite and in order.
    """

    name: str
    low: float
    high: float
    unit: str = ""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise DataError(
                f"The target {self.name!r} needs finite bounds, low < high: got {self.low}, {self.high}."
            )

    @property
    def scale(self) -> float:
        """How many of its own units one encoded unit is."""
        return (self.high - self.low) / 2.0

    def encode(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """``(n,)`` values in their own unit to encoded ones."""
        clamped = np.clip(np.asarray(values, np.float64), self.low, self.high)
        return np.asarray((clamped - self.low) / self.scale - 1.0, np.float32)

    def decode(self, encoded: NDArray[Any]) -> NDArray[np.float64]:
        """``(n,)`` encoded values, such as a model's outputs, to their own unit."""
        return (np.asarray(encoded, np.float64) + 1.0) * self.scale + self.low


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a model for a task takes and gives.

    Args:
        kind: Of the task.
        inputs: Shape of one example.
        outputs: Shape of one example's output: ``(1,)`` for binary tasks (one logit, positive = class 1) and
            regression, ``(classes,)``, or ``(positions, tokens)``.
        classes: Number of classes or tokens; 0 for regression.
        vocabulary: Number of tokens of an input, or None where inputs are float features.
    """

    kind: Kind
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    classes: int
    vocabulary: int | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is learned: training records, evaluation records, and the public schema that encoded them.

    Args:
        name: Short name, e.g. ``"adult"``.
        kind: ``"binary"`` (one logit, positive = class 1), ``"multiclass"`` (one logit per class),
            ``"regression"`` (one number), or ``"next_token"`` (one logit per token, at each position).
        classes: Class names, or tokens; the index is the label. Empty for regression.
        schema: The public schema.
        train: Records that are spread over the clients.
        evaluation: Records that the model is judged on.
        evaluation_name: What the evaluation records are, and whether they are public.
        source: Where the records come from.
        evaluation_public: Whether the evaluation records are public. If not, every figure computed on them is
            a release about the people in them.
        target: The number that is predicted; regression only.
        unjudged: Whether there are no evaluation records, since nobody here has any: then nothing is measured.
        preferences: Of preferences between pairs: who judged which of the evaluation records.

    Raises:
        DataError: If the parts do not fit together, or the training records hold one target only.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    schema: InputSchema
    train: Examples
    evaluation: Examples
    evaluation_name: str
    source: Source
    evaluation_public: bool = False
    target: Target | None = None
    unjudged: bool = False
    preferences: Preferences | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise DataError(
                f"Task {self.name!r} has the kind {self.kind!r}: use one of {', '.join(get_args(Kind))}."
            )
        if self.kind != "regression" and (
            (self.kind == "binary") != (len(self.classes) == 2) or len(self.classes) < 2
        ):
            raise DataError(f"Task {self.name!r} is {self.kind} but has {len(self.classes)} classes.")
        if (self.kind == "regression") != (self.target is not None) or (self.target and self.classes):
            raise DataError(
                f"Task {self.name!r} is {self.kind}: only regression has a target, and no classes."
            )
        self._check("training", self.train)
        if not (self.unjudged and not len(self.evaluation)):
            self._check("evaluation", self.evaluation)
        if self.preferences is not None and len(self.preferences) != len(self.evaluation):
            raise DataError(
                f"Task {self.name!r} has {len(self.evaluation)} evaluation records and preferences about "
                f"{len(self.preferences)}: judge it on other records by judged_on, or set preferences to None."
            )
        lowest, highest = extremes(self.train.y)
        if lowest == highest:
            raise DataError(
                f"Every training record of {self.name!r} has {self._only()}: nothing can be learned."
            )

    def _only(self) -> str:
        """The one target of the training records."""
        if self.target is None:
            return f"the label {self.classes[int(self.train.y.flat[0])]!r}"
        value = float(self.target.decode(self.train.y[:1])[0])
        low, high = self.target.low, self.target.high
        clamped = f" (values outside its bounds, {low:g} and {high:g}, count as the nearer one)"
        return f"the target {value:g}{clamped if self.train.y[0] in (-1.0, 1.0) else ''}"

    def _check(self, part: str, examples: Examples) -> None:
        if not len(examples):
            raise DataError(f"Task {self.name!r} has no {part} records.")
        if examples.x.shape[1:] != self.schema.shape:
            found, wanted = examples.x.shape[1:], self.schema.shape
            if len(found) == len(wanted) == 1:
                raise DataError(f"The {part} records have {found[0]} features, the schema {wanted[0]}.")
            raise DataError(f"The {part} records have the shape {found}, the schema {wanted}.")
        whole = examples.y.dtype == np.int64
        if whole == (self.kind == "regression"):
            raise DataError(f"The {part} targets of a {self.kind} task cannot be {examples.y.dtype}.")
        if (examples.y.ndim == 2) != (self.kind == "next_token"):
            raise DataError(f"The {part} targets of a {self.kind} task have the shape {examples.y.shape}.")
        lowest, highest = extremes(examples.y)
        if whole and (lowest < 0 or highest >= len(self.classes)):
            article = "An" if part == "evaluation" else "A"
            wrong = int(lowest if lowest < 0 else highest)
            raise DataError(
                f"{article} {part} label lies outside 0..{len(self.classes) - 1}: {wrong}; number the classes from 0."
            )

    @property
    def description(self) -> str:
        """What is public about the task, as one text, to recognise it again: equal tasks give equal texts.

        It has the kind, the classes, the target's bounds, whether the evaluation records are public and the schema's
        facts, and nothing of the records.
        """
        target = self.target and (
            self.target.name,
            float(self.target.low),
            float(self.target.high),
            self.target.unit,
        )
        public = public_facts(self.schema)
        return repr((self.kind, self.classes, target, self.evaluation_public, public))

    @property
    def outputs(self) -> int:
        """Width of a model's output: 1 for binary tasks and regression, else the number of classes."""
        return 1 if self.kind in ("binary", "regression") else len(self.classes)

    @property
    def features(self) -> int:
        """Values of an encoded record."""
        return prod(self.schema.shape)

    @property
    def signature(self) -> Signature:
        """What a model for this task takes and gives."""
        positions = self.train.y.shape[1:]
        return Signature(
            kind=self.kind,
            inputs=self.schema.shape,
            outputs=(*positions, self.outputs),
            classes=len(self.classes),
            vocabulary=self.schema.vocabulary,
        )

    def judged_on(self, rows: Indices, evaluation_name: str) -> Self:
        """The same task, judged on the evaluation records at ``rows`` alone."""
        return replace(
            self,
            evaluation=self.evaluation.take(rows),
            evaluation_name=evaluation_name,
            preferences=self.preferences and self.preferences.take(rows),
        )

    def with_validation(self, fraction: float, seed: int) -> Self:
        """The same task, judged on a held-out part of its training records, which the training then lacks.

        For choosing settings without touching the evaluation records. The held-out part is private, as the
        training records are.

        Args:
            fraction: Part of the training records to hold out, in (0, 1).
            seed: Decides which.

        Raises:
            ConfigError: If ``fraction`` is outside (0, 1) or leaves either part empty.
        """
        held, kept = hold_out(len(self.train), fraction, seed)
        return replace(
            self,
            train=self.train.take(kept),
            evaluation=self.train.take(held),
            evaluation_name=f"{fraction:.0%} of the training records, held out with seed {seed} (private)",
            evaluation_public=False,
            preferences=None,
        )


def hold_out(n: int, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Sorted indices of a random held-out part of ``n`` records, and of the rest.

    Raises:
        ConfigError: If ``fraction`` is outside (0, 1) or leaves either part empty.
    """
    count = round(fraction * n) if 0.0 < fraction < 1.0 else 0
    if not 0 < count < n:
        raise ConfigError(
            f"Holding out {fraction!r} of {n} records leaves a part empty. Use a fraction such as 0.2."
        )
    order = public_generator(seed, "hold out").permutation(n)
    return np.sort(order[:count]), np.sort(order[count:])
