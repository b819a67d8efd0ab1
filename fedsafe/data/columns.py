"""One column of a public schema: numeric, categorical or the label."""

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Texts = NDArray[np.object_]
Transform = Literal["none", "log1p"]
Encoding = Literal["linear", "bins"]


def nearest(name: str, options: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the option nearest to ``name``, or an empty text."""
    match = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""


def text(series: "pd.Series", missing: Collection[str] = ("",)) -> Texts:
    """``(n,)`` object array: each value as stripped text, ``None`` where it is missing.

    An integral number reads the same whether its column was stored as integers or as floats: a null
    elsewhere in the column turns one into the other, and must not change this record.
    """

    def one(value: object) -> str | None:
        if isinstance(value, float | np.floating):
            number = float(value)
            if math.isnan(number):
                return None
            value = int(number) if number.is_integer() else repr(number)
        read = "" if value is None else str(value).strip()
        return None if read in missing or read in ("<NA>", "NaT") else read

    import pandas as pd

    values = series.to_numpy(dtype=np.object_)
    if pd.api.types.infer_dtype(values, skipna=False) == "string":
        # Only texts: read each distinct one once. (Mixed types would be merged by equality: 1, 1.0 and True.)
        codes, distinct = pd.factorize(values)
        return np.array([*map(one, distinct), None], dtype=np.object_)[codes]
    out = np.empty(len(values), dtype=np.object_)
    out[:] = [one(value) for value in values]
    return out


def _number(value: str | None) -> float:
    try:
        return math.nan if value is None else float(value)
    except ValueError:
        return math.nan


def numbers(values: Texts) -> NDArray[np.float64]:
    """``(n,)`` numbers, NaN where a text is none."""
    return np.array([_number(value) for value in values], dtype=np.float64)


def _one_hot(codes: NDArray[np.int64], width: int) -> NDArray[np.float32]:
    out = np.zeros((len(codes), width), np.float32)
    out[np.arange(len(codes)), codes] = 1.0
    return out


def _interval(low: float, high: float, last: bool) -> str:
    return f"[{low:g}, {high:g}{']' if last else ')'}"


@dataclass(frozen=True, kw_only=True)
class Numeric:
    """A number with public bounds; values outside are clamped.

    Args:
        name: Column name.
        low: Smallest value, in the column's own units.
        high: Largest value.
        transform: ``"log1p"`` encodes ``log(1 + value)`` instead of the value; needs ``low > -1``.
        fill: What a missing or unreadable value becomes; by default the middle of the bounds.
        encoded: What the bounds are encoded to, ``(low, high)``: the feature's own units.
        bins: Inner edges ``e`` of the intervals ``[low, e1), [e1, e2), ..., [ek, high]`` that ``"bins"``
            encodes.
        encoding: ``"linear"`` gives one feature, ``"bins"`` one per interval.
        unknown: Name of one more interval, for missing and unreadable values, where the encoding is ``"bins"``; if
            empty, they count as ``fill``.
        group: Whether it is a group column for fairness; groups are the intervals of ``group_bins``.
        group_bins: Inner edges of the groups; by default ``bins``.
        immutable: Whether the person cannot change it.

    Raises:
        DataError: If the bounds, fill or edges do not fit together.
    """

    name: str
    low: float
    high: float
    transform: Transform = "none"
    fill: float | None = None
    encoded: tuple[float, float] = (0.0, 1.0)
    bins: tuple[float, ...] = ()
    encoding: Encoding = "linear"
    unknown: str = ""
    group: bool = False
    group_bins: tuple[float, ...] = ()
    immutable: bool = False

    def __post_init__(self) -> None:
        where = f"Column {self.name!r}"
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise DataError(
                f"{where} needs finite low < high: got low = {self.low!r} and high = {self.high!r}."
            )
        if self.transform == "log1p" and self.low <= -1:
            raise DataError(f"{where} uses log1p, which needs low > -1: got {self.low!r}.")
        if self.fill is not None and not self.low <= self.fill <= self.high:
            raise DataError(f"{where} has fill = {self.fill!r} outside [{self.low}, {self.high}].")
        for key, edges in (("bins", self.bins), ("group_bins", self.group_bins)):
            chain = (self.low, *edges, self.high)
            if any(a >= b for a, b in pairwise(chain)):
                raise DataError(
                    f"{where} needs rising {key} strictly between low and high: got {list(edges)}."
                )
        if self.encoding == "bins" and not self.bins:
            raise DataError(f"{where} has encoding = 'bins' but no bins.")
        if self.encoding == "linear" and self.bins and not (self.group and not self.group_bins):
            raise DataError(
                f"{where} has bins that nothing uses. Set encoding = 'bins', or name them group_bins."
            )
        if len(self.encoded) != 2 or not self.encoded[0] < self.encoded[1]:
            raise DataError(f"{where} needs encoded = [low, high] with low < high: got {list(self.encoded)}.")
        if self.encoding == "bins" and (self.encoded != (0.0, 1.0) or self.transform != "none"):
            raise DataError(
                f"{where} is encoded in bins: encoded and transform have no effect, so leave them out."
            )
        if self.unknown and (self.encoding != "bins" or self.fill is not None):
            raise DataError(
                f"{where} has unknown = {self.unknown!r}, which is an interval of its own: it needs encoding = 'bins' "
                f"and no fill."
            )
        if self.group and not (self.group_bins or self.bins):
            raise DataError(f"{where} is a group column and needs group_bins.")

    @property
    def one_hot(self) -> bool:
        """Whether its features are a one-hot group."""
        return self.encoding == "bins"

    @property
    def encoded_range(self) -> tuple[float, float]:
        """Bounds of its features in encoded units."""
        return self.encoded

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per feature."""
        if not self.one_hot:
            return (self.name,)
        own = (self.unknown,) if self.unknown else ()
        return tuple(f"{self.name}={part}" for part in (*self._intervals(self.bins), *own))

    @property
    def remedy(self) -> str:
        """What to do if no value is readable."""
        return (
            "no value is a number. Write decimals with a point instead of a comma and remove units, "
            "name another column in the schema, or describe this one as categorical."
        )

    def readable(self, value: str) -> bool:
        """Whether a text is a number."""
        return not math.isnan(_number(value))

    def encode(self, values: Texts) -> NDArray[np.float32]:
        """``(n, its features)`` from ``(n,)`` texts; clamped, so every feature lies in ``encoded_range``."""
        raw = self._clamped(values)
        if self.one_hot:
            codes = np.digitize(raw, self.bins)
            if self.unknown:
                codes[np.isnan(numbers(values))] = len(self.bins) + 1
            return _one_hot(codes, len(self.feature_names))
        low, high = self.low, self.high
        if self.transform == "log1p":
            raw, low, high = np.log1p(raw), math.log1p(low), math.log1p(high)
        unit = np.clip((raw - low) / (high - low), 0.0, 1.0)
        first, last = self.encoded
        return (first + (last - first) * unit).astype(np.float32)[:, None]

    def groups(self, values: Texts) -> NDArray[np.str_]:
        """``(n,)`` names of the intervals that the values lie in."""
        edges = self.group_bins or self.bins
        return np.array(self._intervals(edges), dtype=np.str_)[np.digitize(self._clamped(values), edges)]

    def _intervals(self, edges: tuple[float, ...]) -> tuple[str, ...]:
        chain = (self.low, *edges, self.high)
        last = len(edges)
        return tuple(_interval(chain[i], chain[i + 1], i == last) for i in range(last + 1))

    def _clamped(self, values: Texts) -> NDArray[np.float64]:
        fill = (self.low + self.high) / 2 if self.fill is None else self.fill
        read = numbers(values)
        return np.clip(np.where(np.isnan(read), fill, read), self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Categorical:
    """A value out of a public list.

    Args:
        name: Column name.
        categories: The public list.
        unknown: The category of missing and unlisted values. If it is not listed, it is added at the end.
        merge: Listed category to raw values that count as it.
        group: Whether it is a group column for fairness.
        immutable: Whether the person cannot change it.

    Raises:
        DataError: If the list is empty or names a value twice.
    """

    name: str
    categories: tuple[str, ...]
    unknown: str = "unknown"
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    group: bool = False
    immutable: bool = False

    def __post_init__(self) -> None:
        where = f"Column {self.name!r}"
        if not self.categories:
            raise DataError(f"{where} has no categories.")
        for target in self.merge:
            if target not in self.categories:
                hint = nearest(target, self.categories)
                raise DataError(f"{where} merges into {target!r}, which is not one of its categories.{hint}")
        raw = [*self.categories, *(value for values in self.merge.values() for value in values)]
        twice = sorted({value for value in raw if raw.count(value) > 1})
        if twice:
            raise DataError(f"{where} lists {twice[0]!r} twice.")

    @property
    def one_hot(self) -> bool:
        """Always True."""
        return True

    @property
    def encoded_range(self) -> tuple[float, float]:
        """Bounds of its features in encoded units."""
        return (0.0, 1.0)

    @property
    def values(self) -> tuple[str, ...]:
        """The listed categories, and the one for unknown values."""
        return self.categories if self.unknown in self.categories else (*self.categories, self.unknown)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per category."""
        return tuple(f"{self.name}={value}" for value in self.values)

    @property
    def remedy(self) -> str:
        """What to do if no value is readable."""
        return (
            f"no value is one of the categories, such as {self.categories[0]!r}. Add its values to the "
            f"categories in the schema, or name another column there."
        )

    def readable(self, value: str) -> bool:
        """Whether a text is a listed category or merged into one."""
        return value in self._code_of

    def encode(self, values: Texts) -> NDArray[np.float32]:
        """``(n, categories)`` one-hot features from ``(n,)`` texts."""
        return _one_hot(self._codes(values), len(self.values))

    def groups(self, values: Texts) -> NDArray[np.str_]:
        """``(n,)`` category names."""
        return np.array(self.values, dtype=np.str_)[self._codes(values)]

    @cached_property
    def _code_of(self) -> Mapping[str | None, int]:
        codes: dict[str | None, int] = {value: code for code, value in enumerate(self.values)}
        return codes | {value: codes[target] for target, merged in self.merge.items() for value in merged}

    def _codes(self, values: Texts) -> NDArray[np.int64]:
        unknown = self.values.index(self.unknown)
        return np.array([self._code_of.get(value, unknown) for value in values], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Label:
    """The label column.

    Args:
        column: Its name.
        classes: Two or more class names, as written in the file. With two, the second is the positive one.

    Raises:
        DataError: If there are fewer than two classes, or one is named twice.
    """

    column: str
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise DataError(
                f"Label {self.column!r} needs two or more different classes: got {list(self.classes)}."
            )

    def encode(self, values: Texts) -> NDArray[np.int64]:
        """``(n,)`` class indices from ``(n,)`` texts.

        Raises:
            DataError: Naming a value that is no class, or the number of missing labels.
        """
        codes = {value: code for code, value in enumerate(self.classes)}
        strange = sorted({str(value) for value in values if value is not None and value not in codes})
        if strange:
            listed = ", ".join(self.classes)
            raise DataError(
                f"Label {self.column!r} has the value {strange[0]!r}, which is no class ({listed})."
                f"{nearest(strange[0], self.classes)} Correct the file, or the classes in the schema."
            )
        absent = sum(value is None for value in values)
        if absent:
            raise DataError(
                f"Label {self.column!r} is missing in {absent} of {len(values)} records: remove them first."
            )
        return np.array([codes[value] for value in values], dtype=np.int64)
