"""What the columns of a file of preferences are: read from a TOML file.

The format, every key, for a file of **ratings** (one row for each item that a person rated)::

    format = "fedsafe.preferences/1"
    kind = "ratings"
    annotator = "user_id"          # column: who judged; the clients
    item = "text"                  # column: the item's text, or its name
    rating = "offensiveness"       # column: a number
    prefer = "lower"               # or "higher", the default
    groups = ["gender", "age"]     # columns: groups of people, one value each
    block = ""                     # column: what is held out together with an item; empty for the item alone
    evaluation = "private"         # or "public": whether the judgements are public
    note = ""                      # what was left out and why

    [features]
    from = "text"                  # sentence vectors of the item's text (the extra `text`)
    layers = "all"                 # of all layers, or "last"
    keep = true                    # whether vectors are kept in the cache folder

    # [features]                   # or numbers that the file has
    # from = "columns"
    # columns = ["length", "anger"]
    # low = 0                      # public bounds; values outside are clamped
    # high = 1

For a file of **pairs** (one row for each pair that a person judged), in place of item, rating and prefer::

    kind = "pairs"
    first = "answer_a"             # columns: what was shown first and second, texts or names
    second = "answer_b"
    preference = "choice"          # column: which was preferred
    values = { first = "1", second = "2", tie = "0" }   # how the file writes it; by default first, second, tie

and, where features are numbers, ``first = [...]`` and ``second = [...]`` in [features] in place of ``columns``.

An unknown key is an error. The format says nothing that would have to be computed from people's judgements.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedsafe.data.columns import nearest
from fedsafe.data.text_features import Layers
from fedsafe.errors import DataError

FORMAT = "fedsafe.preferences/1"
_COMMON = ("format", "kind", "annotator", "groups", "block", "evaluation", "note", "features")
_OWN: Mapping[str, tuple[str, ...]] = {
    "ratings": ("item", "rating", "prefer"),
    "pairs": ("first", "second", "preference", "values"),
}
_FEATURES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "text": {"ratings": ("layers", "keep"), "pairs": ("layers", "keep")},
    "columns": {"ratings": ("columns", "low", "high"), "pairs": ("first", "second", "low", "high")},
}
OUTCOMES: Mapping[str, int] = {"second": 0, "first": 1, "tie": 2}


@dataclass(frozen=True, kw_only=True)
class FeatureColumns:
    """Numbers that a file has for each item.

    Args:
        columns: Of an item, or of what was shown first.
        second: Of what was shown second; as many. Empty for ratings.
        low: Smallest value.
        high: Largest value.
    """

    columns: tuple[str, ...]
    second: tuple[str, ...]
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class PreferenceSchema:
    """What the columns of a file are.

    Args:
        kind: ``"ratings"`` or ``"pairs"``.
        annotator: Column of who judged.
        groups: Columns of groups of people.
        block: Column of what is held out together; empty for none.
        public: Whether the judgements are public.
        note: What was left out and why.
        item: Column of the item (ratings).
        rating: Column of the rating (ratings).
        lower: Whether a lower rating is preferred.
        first: Column of what was shown first (pairs).
        second: Column of what was shown second (pairs).
        preference: Column of what was preferred (pairs).
        values: How the file writes an outcome, to its label.
        features: Columns of numbers; None for vectors of texts.
        layers: Of the text encoder.
        keep: Whether vectors of texts are kept.
    """

    kind: str
    annotator: str
    groups: tuple[str, ...] = ()
    block: str = ""
    public: bool = False
    note: str = ""
    item: str = ""
    rating: str = ""
    lower: bool = False
    first: str = ""
    second: str = ""
    preference: str = ""
    values: Mapping[str, int]
    features: FeatureColumns | None = None
    layers: Layers = "all"
    keep: bool = True

    @property
    def columns(self) -> Mapping[str, str]:
        """What each named column is, by its name in the file."""
        named = {
            "annotator": self.annotator, "item": self.item, "rating": self.rating, "first": self.first,
            "second": self.second, "preference": self.preference, "block": self.block,
        }  # fmt: skip
        found = {column: key for key, column in named.items() if column}
        found |= dict.fromkeys(self.groups, "groups")
        if self.features:
            found |= dict.fromkeys((*self.features.columns, *self.features.second), "features")
        return found


def read_preference_schema(path: Path) -> PreferenceSchema:
    """The schema in a TOML file.

    Raises:
        DataError: If the file is missing, is not TOML, or breaks the format; it names file and key.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"The schema {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"The schema {path} is not UTF-8 text: {error.reason}.") from error
    return parse_preference_schema(content, str(path))


def parse_preference_schema(content: str, origin: str) -> PreferenceSchema:
    """The schema in a TOML text.

    Args:
        content: The text.
        origin: What to call it in messages, usually its path.

    Raises:
        DataError: If the text is not TOML or breaks the format.
    """
    try:
        document = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{origin} is not valid TOML: {error}.") from error
    if document.get("format") != FORMAT:
        raise DataError(f"{origin} has format {document.get('format')!r}; this version reads {FORMAT!r}.")
    if "kind" not in document:
        raise DataError(f"{origin} lacks the key 'kind': use one of {', '.join(_OWN)}.")
    kind = _choice(document, "kind", (*_OWN,), origin)
    _known(document, (*_COMMON, *_OWN[kind]), origin)
    wanted = ("annotator", *(key for key in _OWN[kind] if key not in ("prefer", "values")))
    for key in wanted:
        if key not in document:
            raise DataError(f"{origin} lacks the key {key!r}: name the column of the file that has it.")
    texts = {key: _text(document, key, origin) for key in (*wanted, "block", "note") if key in document}
    features = document.get("features", {"from": "text"})
    if not isinstance(features, Mapping):
        raise DataError(f"{origin} has features = {features!r}; expected a table [features].")
    where = f"{origin}, [features]"
    source = _choice(features, "from", (*_FEATURES,), where)
    _known(features, ("from", *_FEATURES[source][kind]), where)
    keep = features.get("keep", True)
    if not isinstance(keep, bool):
        raise DataError(f"{where} has keep = {keep!r}; expected true or false.")
    return PreferenceSchema(
        kind=kind,
        groups=_columns(document, "groups", origin) if "groups" in document else (),
        public=_choice(document, "evaluation", ("private", "public"), origin) == "public",
        lower=kind == "ratings" and _choice(document, "prefer", ("higher", "lower"), origin) == "lower",
        values=_values(document, origin),
        features=_feature_columns(features, kind, where) if source == "columns" else None,
        layers="last" if _choice(features, "layers", ("all", "last"), where) == "last" else "all",
        keep=keep,
        **texts,
    )


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            raise DataError(
                f"{where} has the unknown key {key!r}.{nearest(key, keys)} Keys: {', '.join(keys)}."
            )


def _choice(table: Mapping[str, Any], key: str, choices: tuple[str, ...], where: str) -> str:
    """One of a few texts; the first of them where the key is missing."""
    value = table.get(key, choices[0])
    if value not in choices:
        raise DataError(f"{where} has {key} = {value!r}; use one of {', '.join(choices)}.")
    return str(value)


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table[key]
    if not isinstance(value, str) or (not value and key not in ("block", "note")):
        raise DataError(f"{where} has {key} = {value!r}; expected a text.")
    return value


def _columns(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = table.get(key)
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise DataError(f"{where} has {key} = {value!r}; expected a list of column names.")
    if len(set(value)) != len(value):
        raise DataError(f"{where} names a column twice in {key} = {value!r}: leave one out.")
    return tuple(value)


def _values(document: Mapping[str, Any], where: str) -> Mapping[str, int]:
    """How the file writes an outcome, to its label."""
    table = document.get("values", {name: name for name in OUTCOMES})
    if not isinstance(table, Mapping) or set(table) - set(OUTCOMES) or not {"first", "second"} <= set(table):
        raise DataError(
            f'{where} has values = {table!r}; expected a table such as {{ first = "1", second = "2", tie = "0" }}, of '
            f"which tie may be left out."
        )
    found = {str(written): OUTCOMES[name] for name, written in table.items()}
    if len(found) != len(table):
        raise DataError(f"{where} writes two outcomes alike in values = {dict(table)!r}: make them differ.")
    return found


def _feature_columns(table: Mapping[str, Any], kind: str, where: str) -> FeatureColumns:
    first = _columns(table, "columns" if kind == "ratings" else "first", where)
    second = _columns(table, "second", where) if kind == "pairs" else ()
    if not first or (kind == "pairs" and len(first) != len(second)):
        raise DataError(
            f"{where} names {len(first)} and {len(second)} columns: as many of both, and at least one."
        )
    bounds = []
    for key in ("low", "high"):
        value = table.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise DataError(
                f"{where} has {key} = {value!r}; expected a number: the public bounds of the features."
            )
        bounds.append(float(value))
    if bounds[0] >= bounds[1]:
        raise DataError(f"{where} has low = {bounds[0]:g} and high = {bounds[1]:g}: low must be below high.")
    return FeatureColumns(columns=first, second=second, low=bounds[0], high=bounds[1])
