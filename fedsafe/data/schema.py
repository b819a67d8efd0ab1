"""The public schema: how a raw record becomes features, using nothing but public knowledge.

Bounds, categories, bins and fill-in values are written down by hand and are part of the claim: nothing is
estimated from the records. So one record's features depend on that record alone, and encoding spends no
privacy budget.

A schema is a TOML file (:mod:`fedsafe.data.schema_file` documents the format) or is built in Python::

    Schema(
        label=Label(column="income", classes=("<=50K", ">50K")),
        columns=(
            Numeric(name="hours", low=10, high=70),
            Categorical(name="sex", categories=("Female", "Male"), group=True, immutable=True),
        ),
    )
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.columns import Categorical, Label, Numeric, nearest, numbers, text
from fedsafe.data.dataset import Target
from fedsafe.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Column = Numeric | Categorical


@dataclass(frozen=True, kw_only=True)
class Split:
    """A column that says which records are for evaluation.

    Args:
        column: Its name.
        train: The value that marks training records.
        evaluation: The value that marks evaluation records.
    """

    column: str
    train: str = "train"
    evaluation: str = "test"

    def indices(self, frame: "pd.DataFrame", origin: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sorted indices of the evaluation records, and of the training records.

        Raises:
            DataError: If a record has another value.
        """
        values = text(frame[self.column])
        held, kept = values == self.evaluation, values == self.train
        if not (held | kept).all():
            strange = values[~(held | kept)][0]
            raise DataError(
                f"{origin} has {strange!r} in the split column {self.column!r}; "
                f"expected {self.train!r} or {self.evaluation!r}."
            )
        return np.flatnonzero(held), np.flatnonzero(kept)


@dataclass(frozen=True, kw_only=True)
class Schema:
    """A public description of the columns, and the encoding that follows from it.

    Each linear numeric column gives one feature; a binned numeric column and a categorical column give a
    one-hot group. No column gives two numeric features that must move together, so an attack may move each
    perturbable feature alone and the result is still the encoding of a possible record.

    Args:
        columns: The columns that are used, in the order of the features. Others are ignored.
        label: The label column and its classes; or else
        target: the numeric column that is predicted, named ``target.name``.
        holders: Columns that say who holds a record, such as the hospital: the clients of a natural partition. They are
            features only if ``columns`` has them too.
        missing: Texts that mean "no value", besides an empty cell.
        split: The column that separates training from evaluation records, if the file has one.
        evaluation_public: Whether the evaluation records are declared public.
        note: What was left out and why.

    Raises:
        DataError: If two columns share a name, what is predicted is also a column, there is no column, or not
            exactly one of label and target.
    """

    columns: tuple[Column, ...]
    label: Label | None = None
    target: Target | None = None
    holders: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    split: Split | None = None
    evaluation_public: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"The schema describes {twice[0]!r} twice.")
        if (self.label is None) == (self.target is None):
            raise DataError("A schema needs either a label, with its classes, or a target, with its bounds.")
        if self.answer in names or self.answer in self.holders:
            what = (
                "feature column: the model would read the answer" if self.answer in names else "holder column"
            )
            raise DataError(f"The {self._answers} {self.answer!r} is also a {what}.")
        if not names:
            raise DataError("The schema has no columns.")

    @property
    def answer(self) -> str:
        """The column that is predicted."""
        if self.target is not None:
            return self.target.name
        return self.label.column if self.label is not None else ""

    @property
    def _answers(self) -> str:
        return "label" if self.target is None else "target"

    @property
    def shape(self) -> tuple[int, ...]:
        """``(features,)``."""
        return (len(self.feature_names),)

    @property
    def vocabulary(self) -> None:
        """No tokens."""
        return

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """``"hours-per-week"`` for a linear column, ``"sex=Male"`` or ``"age=[25, 35)"`` for one-hot ones."""
        return tuple(name for column in self.columns for name in column.feature_names)

    @cached_property
    def one_hot(self) -> tuple[tuple[int, ...], ...]:
        """Index groups of which exactly one feature is 1 and the others are 0."""
        return tuple(indices for column, indices in self._spans if column.one_hot)

    @cached_property
    def low(self) -> NDArray[np.float32]:
        """``(features,)`` smallest encoded values."""
        return np.concatenate([np.full(len(ix), c.encoded_range[0], np.float32) for c, ix in self._spans])

    @cached_property
    def high(self) -> NDArray[np.float32]:
        """``(features,)`` largest encoded values."""
        return np.concatenate([np.full(len(ix), c.encoded_range[1], np.float32) for c, ix in self._spans])

    @cached_property
    def immutable(self) -> NDArray[np.bool_]:
        """``(features,)`` True where the person cannot change the value (age, sex, race)."""
        return np.concatenate([np.full(len(ix), c.immutable, np.bool_) for c, ix in self._spans])

    @cached_property
    def perturbable(self) -> NDArray[np.bool_]:
        """``(features,)`` True for numeric, mutable features: what a bounded perturbation may move."""
        linear = np.concatenate([np.full(len(ix), not c.one_hot, np.bool_) for c, ix in self._spans])
        return np.asarray(linear & ~self.immutable)

    @property
    def group_columns(self) -> tuple[str, ...]:
        """The columns named for fairness."""
        return tuple(column.name for column in self.columns if column.group)

    @cached_property
    def _spans(self) -> tuple[tuple[Column, tuple[int, ...]], ...]:
        spans, start = [], 0
        for column in self.columns:
            stop = start + len(column.feature_names)
            spans.append((column, tuple(range(start, stop))))
            start = stop
        return tuple(spans)

    def check(self, frame: "pd.DataFrame", origin: str) -> None:
        """Refuse a frame that lacks a column of the schema, or has it twice.

        Args:
            frame: Raw records.
            origin: What to call the frame in the message, usually its file.

        Raises:
            DataError: Naming the missing columns, the nearest present one, and all that are present; or a
                name that the schema uses and two columns share.
        """
        present = [str(name) for name in frame.columns]
        wanted = [*(column.name for column in self.columns), *self.holders]
        wanted += [self.split.column] if self.split else []
        twice = [name for name in (self.answer, *wanted) if present.count(name) > 1]
        if twice:
            raise DataError(
                f"{origin} has {present.count(twice[0])} columns of the same name {twice[0]!r}. "
                f"Rename or remove all but one."
            )
        if self.answer not in present:
            hint = nearest(self.answer, present)
            raise DataError(
                f"{origin} has no {self._answers} column {self.answer!r}.{hint} Columns: {', '.join(present)}."
            )
        absent = [name for name in wanted if name not in present]
        if absent:
            hint = nearest(absent[0], present)
            raise DataError(
                f"{origin} lacks the columns {', '.join(absent)}.{hint} Columns: {', '.join(present)}."
            )

    def check_values(self, frame: "pd.DataFrame", origin: str) -> None:
        """Refuse a frame in which a column has values and not one of them can be read.

        Such a column would silently become a constant. Single unreadable values are no error.

        Args:
            frame: Raw records that passed :meth:`check`.
            origin: What to call the frame in the message, usually its file.

        Raises:
            DataError: Naming the column, one of its values and the remedy.
        """
        for column in self.columns:
            present = [value for value in self._values(frame, column.name) if value is not None]
            if present and not any(map(column.readable, present)):
                raise DataError(
                    f"{origin} has nothing readable in the column {column.name!r}, for example "
                    f"{present[0]!r}: {column.remedy}"
                )

    def encode(self, frame: "pd.DataFrame") -> NDArray[np.float32]:
        """``(n, features)`` float32 features; row ``i`` depends on record ``i`` alone.

        Raises:
            DataError: If a column is missing.
        """
        absent = [column.name for column in self.columns if column.name not in frame.columns]
        if absent:
            raise DataError(f"The records lack the columns {', '.join(absent)}.")
        parts = [column.encode(self._values(frame, column.name)) for column in self.columns]
        return np.ascontiguousarray(np.concatenate(parts, axis=1), dtype=np.float32)

    def answers(self, frame: "pd.DataFrame") -> NDArray[np.int64] | NDArray[np.float32]:
        """``(n,)`` class indices, or for a target ``(n,)`` encoded values.

        Raises:
            DataError: If one is missing, is no class of the schema, or is no number.
        """
        values = self._values(frame, self.answer)
        if self.target is not None:
            return self.target.encode(_all_numbers(values, self.target.name))
        return cast("Label", self.label).encode(values)  # one of the two is there

    def owners(self, frame: "pd.DataFrame") -> Mapping[str, NDArray[np.str_]]:
        """Holder column to ``(n,)`` names of who holds each record.

        Raises:
            DataError: If a record does not say.
        """
        return {name: _all_named(self._values(frame, name), name) for name in self.holders}

    def groups(self, frame: "pd.DataFrame") -> Mapping[str, NDArray[np.str_]]:
        """Group column to ``(n,)`` group names."""
        return {c.name: c.groups(self._values(frame, c.name)) for c in self.columns if c.group}

    def _values(self, frame: "pd.DataFrame", name: str) -> NDArray[np.object_]:
        return text(frame[name], {"", *self.missing})


def _all_numbers(values: NDArray[np.object_], name: str) -> NDArray[np.float64]:
    read = numbers(values)
    if np.isnan(read).any():
        at = int(np.isnan(read).argmax())
        raise DataError(
            f"The target {name!r} of record {at + 1} is {values[at]!r}, not a number: correct it, or remove the record."
        )
    return read


def _all_named(values: NDArray[np.object_], name: str) -> NDArray[np.str_]:
    absent = [at for at, value in enumerate(values) if value is None]
    if absent:
        raise DataError(
            f"Record {absent[0] + 1} has no value in the holder column {name!r}: say who holds it, or remove it."
        )
    return np.array(values, dtype=np.str_)
